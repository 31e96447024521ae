// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package corpus holds admission reviews as a real API server sent them, and the answers that they must get.
//
// `make corpus` captures the reviews, one for each scenario of e2e/scenario. All tests that judge a review use this one
// corpus: of the decision, of the handler, of the fuzzers, and those against a live API server.
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
	// Review is the body that the API server posted. The values of Secrets in it are replaced by canaries.
	Review []byte
	// Answer is what the guard must answer, indented; nil where nobody has written it down yet.
	Answer []byte
}

// Holds tells whether the lookups that the write rests on held when it was captured. They did not in the scenarios whose names say that
// an account or a Secret lives, or that a certificate authority or a UID is not the cluster's.
func (c Case) Holds() bool {
	for _, part := range []string{"-that-lives", "-other-ca", "-foreign-ca", "-bogus-uid"} {
		if strings.HasSuffix(c.Name, part) {
			return false
		}
	}
	return true
}

// IsLive tells whether the object that the review writes was the live one. It was not where an object is created that exists.
func (c Case) IsLive() bool { return !strings.HasPrefix(c.Name, "create-") }

// Canary starts every value of a Secret in the corpus, decoded. It must show up nowhere else.
const Canary = "canary-"

// Cases returns the whole corpus, sorted by name. The error says that a file of it could not be read.
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
		answer, _ := files.ReadFile(path.Join("answers", entry.Name())) // absent: not written down yet
		cases = append(cases, Case{Name: strings.TrimSuffix(entry.Name(), ".json"), Review: review, Answer: answer})
	}
	return cases, nil
}

// Orphans returns the names of answers to reviews that are not there.
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
