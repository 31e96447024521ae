// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

// writesPerRound is how many writes of each kind one round makes in each setting, in batches that take turns.
const (
	writesPerRound = 200
	batch          = 50
)

// unrelated is a kind of write to objects that are not reserved.
type unrelated struct {
	name, path, manifest string
}

func unrelatedKinds() []unrelated {
	object := func(kind, api, namespace string) string {
		return `{"apiVersion":"` + api + `","kind":"` + kind + `","metadata":{"name":"bench"` + namespace + `}}`
	}
	system, elsewhere := `,"namespace":"kube-system"`, `,"namespace":"default"`
	return []unrelated{
		{"Secret in kube-system", "/api/v1/namespaces/kube-system/secrets/bench", object("Secret", "v1", system)},
		{"Secret elsewhere", "/api/v1/namespaces/default/secrets/bench", object("Secret", "v1", elsewhere)},
		{"ServiceAccount in kube-system", "/api/v1/namespaces/kube-system/serviceaccounts/bench", object("ServiceAccount", "v1", system)},
		{"ServiceAccount elsewhere", "/api/v1/namespaces/default/serviceaccounts/bench", object("ServiceAccount", "v1", elsewhere)},
		{"ClusterRole", "/apis/rbac.authorization.k8s.io/v1/clusterroles/bench", object("ClusterRole", "rbac.authorization.k8s.io/v1", "")},
	}
}

// sample is what one round has measured of one kind.
type sample struct{ without, with, ratio float64 }

// unrelatedWrites is P5: the p50 of writes to objects that are not reserved, with the guard and without. Each round measures a cluster
// without a guard and one with. The second API server, which asks no webhook, takes turns with the guarded one in both, and
// takes the machine's mood out of the ratio.
func (b *bench) unrelatedWrites(ctx context.Context) error {
	kinds := unrelatedKinds()
	samples := make([][]sample, len(kinds))
	calls, resident := 0, 0
	for range rounds {
		without, err := b.measure(ctx, kinds)
		if err != nil {
			return err
		}
		guard, err := b.cluster.StartGuard(ctx, b.guardian)
		if err != nil {
			return err
		}
		with, err := b.measure(ctx, kinds)
		if err == nil {
			calls, resident, err = idle(ctx, guard, calls)
		}
		guard.Stop()
		if err := errors.Join(err, b.forget(ctx)); err != nil {
			return err
		}
		for i := range kinds {
			samples[i] = append(samples[i], sample{
				without: without[i].guarded, with: with[i].guarded,
				ratio: with[i].guarded / with[i].beside / (without[i].guarded / without[i].beside),
			})
		}
	}
	printUnrelated(kinds, samples)
	fmt.Printf("\nWebhook calls for these %d writes: %d. P6, resident memory of the guard behind them: %.1f MB\n\n",
		rounds*len(kinds)*writesPerRound, calls, float64(resident)/1e6)
	return nil
}

func printUnrelated(kinds []unrelated, samples [][]sample) {
	fmt.Printf("| P5 unrelated write | no guard, p50 | guard, p50 | ratio |\n|---|---|---|---|\n")
	for i, kind := range kinds {
		fmt.Printf("| %s | %.2f ms | %.2f ms | %.3fx |\n", kind.name,
			medianOf(samples[i], func(s sample) float64 { return s.without }),
			medianOf(samples[i], func(s sample) float64 { return s.with }),
			medianOf(samples[i], func(s sample) float64 { return s.ratio }))
	}
}

func medianOf(samples []sample, field func(sample) float64) float64 {
	var values []float64
	for _, s := range samples {
		values = append(values, field(s))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// pair is the p50 in milliseconds of one kind of write on two API servers that took turns.
type pair struct{ guarded, beside float64 }

func (b *bench) measure(ctx context.Context, kinds []unrelated) ([]pair, error) {
	var pairs []pair
	for _, kind := range kinds {
		var guarded, beside []time.Duration
		for range writesPerRound / batch {
			for _, turn := range []struct {
				client *scenario.Client
				into   *[]time.Duration
			}{{b.world.Unguarded, &beside}, {b.world.Guarded, &guarded}} {
				times, err := write(ctx, turn.client, kind)
				if err != nil {
					return nil, err
				}
				*turn.into = append(*turn.into, times...)
			}
		}
		pairs = append(pairs, pair{median(guarded).Seconds() * 1000, median(beside).Seconds() * 1000})
	}
	return pairs, nil
}

// idle tells what the guards have been asked in all, and what this one holds.
func idle(ctx context.Context, guard *testbed.Guard, before int) (calls, resident int, err error) {
	if calls, err = guard.Requests(ctx); err != nil {
		return 0, 0, err
	}
	resident, err = guard.Resident()
	return before + calls, resident, err
}

// write changes the object again and again: each write is stored.
func write(ctx context.Context, client *scenario.Client, kind unrelated) ([]time.Duration, error) {
	apply := scenario.Write{
		Method: http.MethodPatch, Path: kind.path, ContentType: scenario.ApplyPatch, Body: []byte(kind.manifest),
		Query: map[string][]string{"fieldManager": {"bench"}, "force": {"true"}},
	}
	if _, err := client.Do(ctx, apply); err != nil {
		return nil, err
	}
	var times []time.Duration
	for range batch {
		label := strconv.FormatInt(time.Now().UnixNano(), 36)
		patch := scenario.Write{
			Method: http.MethodPatch, Path: kind.path, ContentType: scenario.MergePatch,
			Body: []byte(`{"metadata":{"labels":{"bench":"` + label + `"}}}`),
		}
		start := time.Now()
		answer, err := client.Do(ctx, patch)
		if err != nil {
			return nil, err
		}
		if answer.Code != http.StatusOK {
			return nil, fmt.Errorf("write a %s: got %d %s", kind.name, answer.Code, answer.Body)
		}
		times = append(times, time.Since(start))
	}
	return times, nil
}
