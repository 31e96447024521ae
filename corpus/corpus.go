// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package corpus holds admission reviews that a real API server sent, and the answers that the guard must give.
//
// `make corpus` captures the reviews, one for each scenario of e2e/scenario. The tests of the decision and of the handler, the
// fuzzers and the end-to-end tests share this corpus.
package corpus

import (
	"embed"
	"fmt"
	"path"
	"strings"
)

//go:embed reviews/*.json answers/*.json
var files embed.FS

// Case is one review and its answer.
type Case struct {
	Name string
	// Review is the body that the API server posted. Canaries replace the values of Secrets in it.
	Review []byte
	// Answer is the answer that the guard must give, indented. It is nil if the answer has not been written yet.
	Answer []byte
}

// Holds returns whether the lookup of the decision held when the review was captured. It did not hold in scenarios whose names say
// that an account or a Secret lives, or that a CA or a UID is not the cluster's.
func (c Case) Holds() bool {
	for _, part := range []string{"-that-lives", "-other-ca", "-wrong-ca", "-bogus-uid"} {
		if strings.HasSuffix(c.Name, part) {
			return false
		}
	}
	return true
}

// IsLive returns whether the object of the review was the live object. It was not if the review creates an object that exists.
func (c Case) IsLive() bool { return !strings.HasPrefix(c.Name, "create-") }

// Canary is the prefix of each decoded value of a Secret in the corpus. It must not appear in any output of the guard.
const Canary = "canary-"

// Cases returns the whole corpus, sorted by name. An error means that a file could not be read.
func Cases() ([]Case, error) {
	entries, err := files.ReadDir("reviews")
	if err != nil {
		return nil, fmt.Errorf("read the corpus: %w", err)
	}
	var cases []Case
	for _, entry := range entries {
		review, err := files.ReadFile(path.Join("reviews", entry.Name()))
		if err != nil {
			return nil, fmt.Errorf("read the corpus: %w", err)
		}
		answer, _ := files.ReadFile(path.Join("answers", entry.Name())) // may be absent
		cases = append(cases, Case{Name: strings.TrimSuffix(entry.Name(), ".json"), Review: review, Answer: answer})
	}
	return cases, nil
}

// Orphans returns the names of answers that have no review.
func Orphans() ([]string, error) {
	entries, err := files.ReadDir("answers")
	if err != nil {
		return nil, fmt.Errorf("read the corpus: %w", err)
	}
	var orphans []string
	for _, entry := range entries {
		if _, err := files.ReadFile(path.Join("reviews", entry.Name())); err != nil {
			orphans = append(orphans, entry.Name())
		}
	}
	return orphans, nil
}
