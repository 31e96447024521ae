// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package harness is what the end-to-end tests share: control planes, guards, runs of the program, and waiting.
package harness

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/client-go/kubernetes"

	"github.com/apigw-guardian/apigw-guardian/e2e/program"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
)

// Bed is a control plane and the guard's binary. A test that has taken a bed leaves it as it found it.
type Bed struct {
	Cluster *testbed.Cluster
	Program string
	// World is nil unless prepare sets it.
	World *scenario.World
}

// The beds of a test binary: the free ones, and the taken ones by the name of the top-level test. turn is closed once every
// test that asked before has a bed.
var (
	free  chan *Bed
	taken sync.Map
	turn  = make(chan struct{})
)

// waiting is the value of -parallel: tests wait for a bed and not for package testing.
const waiting = "1000"

// Main builds the guard unless E2E_PROGRAM names it, starts so many beds side by side, prepares each, runs the tests and
// exits. With several beds, so many tests run at the same time.
func Main(m *testing.M, beds int, prepare func(context.Context, *Bed) error) {
	flag.Parse()
	code, err := run(m, beds, prepare)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M, beds int, prepare func(context.Context, *Bed) error) (code int, err error) {
	binary, remove, err := program.Build()
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	free = make(chan *Bed, beds)
	all, failures := make([]*Bed, beds), make([]error, beds)
	var group sync.WaitGroup
	for i := range beds {
		group.Go(func() { all[i], failures[i] = start(binary, prepare) })
	}
	group.Wait()
	defer func() { err = errors.Join(err, stop(all)) }()
	if err := errors.Join(errors.Join(failures...), flag.Set("test.parallel", waiting)); err != nil {
		return 1, err
	}
	close(turn)
	for _, bed := range all {
		free <- bed
	}
	return m.Run(), nil
}

func stop(beds []*Bed) error {
	var failures []error
	for _, bed := range beds {
		if bed != nil {
			failures = append(failures, bed.Cluster.Stop())
		}
	}
	return errors.Join(failures...)
}

func start(binary string, prepare func(context.Context, *Bed) error) (*Bed, error) {
	cluster, err := testbed.Start(context.Background(), program.Config())
	if err != nil {
		return nil, err
	}
	bed := &Bed{Cluster: cluster, Program: binary}
	if err := prepare(context.Background(), bed); err != nil {
		return nil, errors.Join(err, cluster.Stop())
	}
	return bed, nil
}

// Unguarded prepares a bed with an API server that calls no webhook, and with the guard's kinds.
func Unguarded(ctx context.Context, bed *Bed) error {
	return errors.Join(bed.Cluster.StartUnguarded(ctx), bed.Cluster.InstallCRDs(ctx))
}

// WithWorld prepares like Unguarded, and applies the built-in reservation once, for all tests of the bed.
func WithWorld(ctx context.Context, bed *Bed) error {
	if err := Unguarded(ctx, bed); err != nil {
		return err
	}
	var err error
	bed.World, err = scenario.NewWorld(ctx, bed.Cluster)
	return err
}

// Take gives a top-level test a bed until it ends. If there are several beds, tests run in parallel, and get a bed in the order
// of their source: package testing runs one test at a time until t.Parallel.
func Take(t *testing.T) *Bed {
	t.Helper()
	mine, next := turn, make(chan struct{})
	turn = next
	if cap(free) > 1 {
		t.Parallel()
	}
	since := time.Now()
	<-mine
	bed := <-free
	close(next)
	t.Logf("waited %.1f s for a bed", time.Since(since).Seconds()) // gotest subtracts it
	taken.Store(t.Name(), bed)
	t.Cleanup(func() {
		taken.Delete(t.Name())
		free <- bed
	})
	return bed
}

// Needs skips a test of what API servers have since a release, such as "1.30.0".
func Needs(t *testing.T, cluster *testbed.Cluster, release string) {
	t.Helper()
	if !Serves(cluster, release) {
		t.Skipf("Kubernetes has it since %s, and this is %s", release, cluster.Version())
	}
}

// Serves reports whether the cluster is of the release, such as "1.30.0", or a later one.
func Serves(cluster *testbed.Cluster, release string) bool {
	return version.MustParseGeneric(cluster.Version()).AtLeast(version.MustParseGeneric(release))
}

// Of returns the bed that the top-level test of t has taken.
func Of(t *testing.T) *Bed {
	t.Helper()
	name, _, _ := strings.Cut(t.Name(), "/")
	bed, found := taken.Load(name)
	if !found {
		t.Fatalf("%s has taken no bed: call harness.Take first", name)
	}
	return bed.(*Bed) //nolint:forcetypeassert,errcheck // only Take stores there
}

// Clients is a client of the API server as the admin.
func Clients(t *testing.T) kubernetes.Interface {
	t.Helper()
	clients, err := kubernetes.NewForConfig(Of(t).Cluster.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	return clients
}

// Records is the store of the cluster's audit records.
func Records(t *testing.T) *store.Store {
	t.Helper()
	records, err := store.New(Of(t).Cluster.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	return records
}

// World applies the built-in reservation anew, whatever the test before has left. The bed needs an unguarded API server.
func World(t *testing.T) *scenario.World {
	t.Helper()
	world, err := scenario.NewWorld(t.Context(), Of(t).Cluster)
	if err != nil {
		t.Fatal(err)
	}
	return world
}

// Full returns the number for `make e2e`, which sets E2E_FULL, or the smaller one for `make test`.
func Full[N any](full, smaller N) N {
	if os.Getenv("E2E_FULL") != "" {
		return full
	}
	return smaller
}

// Repetitions is how often something is done: as often as CI has time for, or as E2E_REPETITIONS says.
func Repetitions(tb testing.TB, usual int) int {
	tb.Helper()
	text := os.Getenv("E2E_REPETITIONS")
	if text == "" {
		return usual
	}
	times, err := strconv.Atoi(text)
	if err != nil || times < 1 {
		tb.Fatalf("E2E_REPETITIONS=%q: must be a positive number", text)
	}
	return times
}
