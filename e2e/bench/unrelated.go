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
	"slices"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

// tenants is the number of further reservations of P15.
const tenants = 50

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

// sample is what one round has measured of one kind in two settings.
type sample struct{ first, second, ratio float64 }

// setting is a guard, or none.
type setting struct {
	name    string
	noGuard bool
	flags   []string
}

// unrelatedWrites is P5: the p50 of writes to objects that are not reserved, with the guard and without.
func (b *bench) unrelatedWrites(ctx context.Context) error {
	return b.compare(ctx, "P5", setting{name: "no guard", noGuard: true}, setting{name: "guard"})
}

// manyReservations is P15: the same with 50 further reservations, and without them.
func (b *bench) manyReservations(ctx context.Context) error {
	directory, err := os.MkdirTemp("", "apigw-guardian-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(directory) }()
	if err := scenario.WriteTenants(directory, tenants); err != nil {
		return err
	}
	many := setting{name: fmt.Sprintf("%d more", tenants), flags: []string{"--reservations", directory}}
	return b.compare(ctx, "P15", setting{name: "one reservation"}, many)
}

// compare measures each setting in each round. The second API server, which asks no webhook, takes turns with the guarded one in both,
// and takes the machine's mood out of the ratio.
func (b *bench) compare(ctx context.Context, title string, first, second setting) error {
	kinds := unrelatedKinds()
	samples := make([][]sample, len(kinds))
	var seen seen
	for range rounds {
		before, err := b.measureIn(ctx, first, kinds, &seen)
		if err != nil {
			return err
		}
		after, err := b.measureIn(ctx, second, kinds, &seen)
		if err != nil {
			return err
		}
		for i := range kinds {
			samples[i] = append(samples[i], sample{
				first: before[i].guarded, second: after[i].guarded,
				ratio: after[i].guarded / after[i].beside / (before[i].guarded / before[i].beside),
			})
		}
	}
	fmt.Printf("| %s unrelated write | %s, p50 | %s, p50 | ratio |\n|---|---|---|---|\n", title, first.name, second.name)
	for i, kind := range kinds {
		fmt.Printf("| %s | %.2f ms | %.2f ms | %.3fx |\n", kind.name,
			medianOf(samples[i], func(s sample) float64 { return s.first }),
			medianOf(samples[i], func(s sample) float64 { return s.second }),
			medianOf(samples[i], func(s sample) float64 { return s.ratio }))
	}
	fmt.Printf("\nWebhook calls for these writes: %d. P6, resident memory of the last guard: %.1f MB. Webhook configuration: %d bytes\n\n",
		seen.calls, float64(seen.resident)/1e6, seen.configuration)
	return nil
}

// seen is what the guards have been asked in all, what the last one holds, and the size of its webhook configuration.
type seen struct{ calls, resident, configuration int }

func (b *bench) measureIn(ctx context.Context, s setting, kinds []unrelated, seen *seen) ([]pair, error) {
	if s.noGuard {
		return b.measure(ctx, kinds)
	}
	guard, err := b.cluster.StartGuard(ctx, b.guardian, s.flags...)
	if err != nil {
		return nil, err
	}
	pairs, err := b.measure(ctx, kinds)
	if err == nil {
		seen.calls, seen.resident, err = idle(ctx, guard, seen.calls)
	}
	if err == nil {
		seen.configuration, err = b.configurationSize(ctx)
	}
	guard.Stop()
	return pairs, errors.Join(err, b.forget(ctx))
}

// configurationSize returns the size of the webhook configuration as JSON, without its managedFields.
func (b *bench) configurationSize(ctx context.Context) (int, error) {
	clients, err := kubernetes.NewForConfig(b.cluster.AdminConfig())
	if err != nil {
		return 0, err
	}
	configuration, err := clients.AdmissionregistrationV1().ValidatingWebhookConfigurations().
		Get(ctx, guardian.WebhookConfiguration, metav1.GetOptions{})
	if err != nil {
		return 0, err
	}
	configuration.ManagedFields = nil
	data, err := json.Marshal(configuration)
	return len(data), err
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
