// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Command capture plays every scenario against a real API server and writes the reviews that it sends into the corpus.
//
// It registers itself in the guard's place, without match conditions, and denies what it records, so that one scenario does
// not change the scene of the next. Values of Secrets are replaced before anything is written.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/apigw-guardian/apigw-guardian/e2e/program"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
)

// reviewsDir is where the corpus is, seen from the top of the tree.
const reviewsDir = "corpus/reviews"

func main() { program.Main("capture", run) }

func run(ctx context.Context) (err error) {
	world, err := scenario.Start(ctx, program.Config())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, world.Cluster.Stop()) }()
	r, err := startRecorder(ctx, world.Cluster)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	var names []string
	for _, s := range scenario.All() {
		if err := capture(ctx, world, r, s); err != nil {
			return fmt.Errorf("scenario %s: %w", s.Name, err)
		}
		names = append(names, s.Name+".json")
	}
	fmt.Printf("captured %d reviews into %s\n", len(names), reviewsDir)
	return removeOthers(names)
}

func capture(ctx context.Context, world *scenario.World, r *recorder, s scenario.Scenario) error {
	if err := world.Play(ctx, s); err != nil {
		return err
	}
	write := s.Write(world)
	review, err := r.record(write.As.User, func() (scenario.Answer, error) {
		return world.Guarded.Do(ctx, write)
	})
	if err != nil {
		return err
	}
	file := filepath.Join(reviewsDir, s.Name+".json")
	if err := os.WriteFile(file, append(scrub(review), '\n'), 0o644); err != nil { //nolint:gosec // a file of the tree, for all
		return fmt.Errorf("write the corpus: %w", err)
	}
	return world.Reset(ctx)
}

// removeOthers deletes the reviews of scenarios that are no more.
func removeOthers(names []string) error {
	entries, err := os.ReadDir(reviewsDir)
	if err != nil {
		return fmt.Errorf("read the corpus: %w", err)
	}
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), ".json") && !slices.Contains(names, entry.Name()) {
			if err := os.Remove(filepath.Join(reviewsDir, entry.Name())); err != nil {
				return fmt.Errorf("remove an old review: %w", err)
			}
		}
	}
	return nil
}
