// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"fmt"
	"time"

	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/drift"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/unlock"
)

// Drift says what the leader does about drift, and how often it proves that the guard denies.
type Drift struct {
	Mode drift.Mode
	// ProofInterval is the time between two proofs; zero for none.
	ProofInterval time.Duration
}

// addDrift makes the parts that look after the reserved resources, with separate clients.
func (g *Guard) addDrift() error {
	config := rest.CopyConfig(g.config)
	config.WarningHandler = rest.NoWarnings{} // a guard that observes warns of each proof
	cluster, err := live.Connect(config, g.options.Set, g.options.Namespace)
	if err != nil {
		return err
	}
	objects, err := metadata.NewForConfig(g.config)
	if err != nil {
		return fmt.Errorf("make a client of object metadata: %w", err)
	}
	unlocks, err := unlock.NewClient(g.config, g.options.Namespace)
	if err != nil {
		return err
	}
	mode := g.options.Drift.Mode
	if g.options.Mode == policy.Observe && mode != drift.Off {
		mode = drift.ReportOnly // a guard that observes allows every write, so it must not revert one
	}
	g.ledger = &drift.Ledger{Cluster: cluster, Owner: g.owner, Ready: g.ready(), Log: g.options.Log}
	g.prover = drift.NewProver(drift.ProverOptions{
		Cluster: cluster, Interval: g.options.Drift.ProofInterval, Ready: g.ready(),
		Announce: g.warn, Registry: g.options.Registry, Log: g.options.Log,
	})
	g.ledger.Lost = g.prover.Hurry
	g.drift = drift.New(drift.Options{
		Cluster: cluster, Owner: g.owner, Metadata: objects, Mode: mode, Rules: g.options.Unlocks, Unlocks: unlocks, Records: g.records,
		Record: func(ctx context.Context, event audit.Event) { g.recorder.Record(ctx, event) }, Registry: g.options.Registry, Log: g.options.Log,
	})
	g.publications = &drift.Publisher{Watcher: g.drift, Prover: g.prover, Log: g.options.Log}
	return nil
}

// ready is closed when reviews are answered: from the start if policies do that.
func (g *Guard) ready() <-chan struct{} {
	if !g.options.Controller {
		return g.server.Listening()
	}
	closed := make(chan struct{})
	close(closed)
	return closed
}

// note notes that this replica decides, unless the guard does not look after drift.
func (g *Guard) note(ctx context.Context) {
	if g.options.Drift.Mode != drift.Off {
		g.ledger.Run(ctx)
	}
}
