// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Command probe is what the test's Pods run: a server, or a client that prints what it gets.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 2 && args[0] == "get" {
		return get(args[1])
	}
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello from a Pod\n") })
	http.HandleFunc("/deny", deny)
	failed := make(chan error)
	go func() { failed <- http.ListenAndServe(":8080", nil) }()
	go func() { failed <- http.ListenAndServeTLS(":8443", "/tls/tls.crt", "/tls/tls.key", nil) }()
	return <-failed
}

// get tries for half a minute, since the Service may get its endpoints after this Pod was started.
func get(url string) error {
	var err error
	for range 30 {
		var response *http.Response
		if response, err = (&http.Client{Timeout: 5 * time.Second}).Get(url); err == nil {
			_, err = io.Copy(os.Stdout, response.Body)
			return err
		}
		time.Sleep(time.Second)
	}
	return err
}

// deny answers an AdmissionReview.
func deny(w http.ResponseWriter, request *http.Request) {
	var review struct{ Request struct{ UID string } }
	if err := json.NewDecoder(request.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"apiVersion": "admission.k8s.io/v1",
		"kind":       "AdmissionReview",
		"response": map[string]any{
			"uid":     review.Request.UID,
			"allowed": false,
			"status":  map[string]any{"code": http.StatusForbidden, "message": "denied by a Pod"},
		},
	})
}
