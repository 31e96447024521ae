// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/recorder"
)

const (
	deniedPerRound  = 300
	clientsOfFlood  = 8
	floodOfDenials  = 1_500
	createsPerRound = 100
)

// contender is one that denies. start returns what ends it.
type contender struct {
	name  string
	start func(context.Context) (end func() error, err error)
	// one has the p50 and the p99 of a client alone, and rate the denials a second of several clients, by round.
	p50, p99 []time.Duration
	rate     []float64
}

// deniedWrites is P1 and P2: a denied PATCH through the API server, with records on, beside the floor webhook.
func (b *bench) deniedWrites(ctx context.Context) error {
	if err := b.cluster.InstallCRDs(ctx); err != nil {
		return err
	}
	contenders := []*contender{{name: "floor webhook", start: b.startFloor}}
	for _, mode := range slices.Backward(recorder.Modes()) {
		contenders = append(contenders, &contender{name: "guard, `" + string(mode) + "`", start: b.guardIn(mode)})
	}
	var creates []time.Duration
	for range rounds {
		for _, c := range contenders {
			if err := b.round(ctx, c); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
		took, err := b.createRecords(ctx)
		if err != nil {
			return err
		}
		creates = append(creates, took)
	}
	printDenials("P1, P2", contenders)
	floor, create := contenders[0], median(creates)
	fmt.Printf("\nCreate of a custom resource: %s. `blocking` costs the floor and %.2f creates.\n\n", milliseconds(create),
		float64(median(contenders[len(contenders)-1].p50)-median(floor.p50))/float64(create))
	return nil
}

// printDenials prints the contenders beside the first one.
func printDenials(title string, contenders []*contender) {
	first := contenders[0]
	fmt.Printf("| %s: denied PATCH | p50 | ratio | p99 | denials/s, %d clients | ratio |\n|---|---|---|---|---|---|\n", title, clientsOfFlood)
	for _, c := range contenders {
		fmt.Printf("| %s | %s | %.2fx | %s | %.0f | %.2fx |\n", c.name, milliseconds(median(c.p50)),
			ratio(c.p50, first.p50), milliseconds(median(c.p99)), middle(c.rate), ratio(c.rate, first.rate))
	}
}

func (b *bench) guardIn(mode recorder.Mode) func(context.Context) (func() error, error) {
	return func(ctx context.Context) (func() error, error) {
		spool, err := os.MkdirTemp("", "apigw-guardian-bench-")
		if err != nil {
			return nil, fmt.Errorf("make a spool directory: %w", err)
		}
		guard, err := b.cluster.StartGuard(ctx, b.guardian, "--audit-mode="+string(mode), "--spool-dir="+filepath.Join(spool, "spool"))
		if err != nil {
			return nil, errors.Join(err, os.RemoveAll(spool))
		}
		return func() error {
			guard.Stop()
			return errors.Join(b.forget(ctx), os.RemoveAll(spool))
		}, nil
	}
}

func (b *bench) round(ctx context.Context, c *contender) (err error) {
	end, err := c.start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	if err := b.await(ctx, http.StatusForbidden); err != nil {
		return err
	}
	var times []time.Duration
	for n := range deniedPerRound {
		start := time.Now()
		if err := b.deny(ctx, n%10); err != nil {
			return err
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	c.p50, c.p99 = append(c.p50, times[len(times)/2]), append(c.p99, times[len(times)*99/100])
	flood := scenario.Flood{Clients: clientsOfFlood, Users: 10, Max: floodOfDenials}
	start := time.Now()
	tally := flood.Run(ctx, b.world)
	if tally.Denied != floodOfDenials {
		return fmt.Errorf("%d of %d writes were denied; one got %s", tally.Denied, floodOfDenials, tally.Failure)
	}
	c.rate = append(c.rate, floodOfDenials/time.Since(start).Seconds())
	return nil
}

// await tries a forbidden write until it is denied, or allowed. It is a dry-run: one that passes must change nothing.
func (b *bench) await(ctx context.Context, code int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, fmt.Errorf("a forbidden write does not get %d", code))
	defer cancel()
	write := scenario.Merge(b.world.Role, labelOfBench).DryRun()
	for {
		answer, err := b.world.Guarded.Do(ctx, write)
		if err == nil && answer.Code == code {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// labelOfBench is a forbidden merge patch.
const labelOfBench = `{"metadata":{"labels":{"bench":"denied"}}}`

func (b *bench) deny(ctx context.Context, user int) error {
	write := scenario.Merge(b.world.Role, labelOfBench)
	write.As = scenario.Identity{User: "user-" + strconv.Itoa(user), Groups: []string{"system:masters"}}
	answer, err := b.world.Guarded.Do(ctx, write)
	if err == nil && answer.Code != http.StatusForbidden {
		err = fmt.Errorf("the write was not denied: %d %s", answer.Code, answer.Body)
	}
	return err
}

// createRecords returns the p50 of the creation of a small custom resource.
func (b *bench) createRecords(ctx context.Context) (time.Duration, error) {
	const path = "/apis/guardian.apigw.io/v1alpha1/auditrecords"
	var times []time.Duration
	for n := range createsPerRound {
		event := audit.Event{Time: time.Now(), Outcome: v1alpha1.Denied, Source: v1alpha1.SourceGuard, User: v1alpha1.User{Name: strconv.Itoa(n)}}
		body, err := json.Marshal(event.Record("bench", 1))
		if err != nil {
			return 0, err
		}
		start := time.Now()
		answer, err := b.world.Unguarded.Do(ctx, scenario.Write{Method: http.MethodPost, Path: path, ContentType: scenario.JSON, Body: body})
		if err != nil {
			return 0, err
		}
		if answer.Code != http.StatusCreated {
			return 0, fmt.Errorf("create a custom resource: %d %s", answer.Code, answer.Body)
		}
		times = append(times, time.Since(start))
	}
	_, err := b.world.Unguarded.Do(ctx, scenario.Write{Method: http.MethodDelete, Path: path, ContentType: scenario.JSON})
	return median(times), err
}

// ratio is the median of the ratios of each round.
func ratio[T time.Duration | float64](of, to []T) float64 {
	var ratios []float64
	for i := range of {
		ratios = append(ratios, float64(of[i])/float64(to[i]))
	}
	return middle(ratios)
}

func middle(of []float64) float64 {
	of = slices.Sorted(slices.Values(of))
	return of[len(of)/2]
}
