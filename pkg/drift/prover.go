// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
	"github.com/apigw-guardian/apigw-guardian/pkg/verify"
)

// ProverOptions are the parts of a Prover. All are required except where the comment says otherwise.
type ProverOptions struct {
	Cluster live.Cluster
	// Interval is the time between two rounds; zero for none.
	Interval time.Duration
	// Ready is closed when the guard answers reviews.
	Ready <-chan struct{}
	// Announce tells administrators, as an Event does, when the result changes.
	Announce func(reason, note string)
	Registry prometheus.Registerer
	Log      *slog.Logger
}

// Prover tries one forbidden write per kind of reserved resource, as a server dry-run, again and again. Make one by NewProver.
type Prover struct {
	options   ProverOptions
	protected *prometheus.GaugeVec
	// latest are the results of the last round; nil before the first one. news tells the Publisher.
	latest atomic.Pointer[[]verify.Protection]
	news   chan struct{}
	hurry  chan struct{}
}

// Hurry starts the next round now.
func (p *Prover) Hurry() { tell(p.hurry) }

func (p *Prover) results() []verify.Protection {
	if latest := p.latest.Load(); latest != nil {
		return *latest
	}
	return nil
}

// NewProver registers the metric.
func NewProver(options ProverOptions) *Prover {
	p := &Prover{options: options, news: make(chan struct{}, 1), hurry: make(chan struct{}, 1)}
	p.protected = promauto.With(options.Registry).NewGaugeVec(prometheus.GaugeOpts{
		Name: "apigw_guardian_protected",
		Help: "1 if the last forbidden write to the reserved resource, a server dry-run, was denied with a replica's proof; 0 if not. The " +
			"leader tries one resource per kind every 30 s. Only the leader has it.",
	}, []string{"resource"})
	return p
}

// proofTimeout bounds one round: a hung guard keeps a write for the 5 s of a webhook.
const proofTimeout = 15 * time.Second

// Lead proves until ctx ends.
func (p *Prover) Lead(ctx context.Context) {
	if p.options.Interval <= 0 {
		return
	}
	select {
	case <-p.options.Ready:
	case <-ctx.Done():
		return
	}
	defer p.protected.Reset()
	defer p.latest.Store(nil)
	var said *string
	for ctx.Err() == nil {
		bounded, cancel := context.WithTimeout(ctx, proofTimeout)
		results := verify.New(p.options.Cluster, verify.PermittedWrites).Protections(bounded, verify.PerKind(p.options.Cluster.Set))
		if ctx.Err() == nil {
			said = p.tell(results, said)
			p.latest.Store(&results)
			tell(p.news)
		}
		cancel()
		select {
		case <-ctx.Done():
		case <-time.After(p.pause(results)):
		case <-p.hurry:
		}
	}
}

// lostInterval is the time between two rounds while a resource is not protected, so that the end of that is seen soon.
const lostInterval = 5 * time.Second

func (p *Prover) pause(results []verify.Protection) time.Duration {
	if worst := verify.Worst(results); worst == verify.Protected || worst == verify.Observed {
		return p.options.Interval
	}
	return min(p.options.Interval, lostInterval)
}

// maxNote is less than the API server accepts in an Event: 1024 bytes.
const maxNote = 1000

// tell sets the metric, and announces a problem that differs from the last one, and its end. said is what the last round returned: "" for
// no problem, nil before the first round.
func (p *Prover) tell(results []verify.Protection, said *string) *string {
	var reasons []string
	problem := ""
	for _, result := range results {
		value := 0.0
		if result.State == verify.Protected || result.State == verify.Observed {
			value = 1
		}
		p.protected.WithLabelValues(result.Resource).Set(value)
		if value == 0 {
			problem += fmt.Sprintf("%s %s %s\n", result.Resource, result.State, result.Cause)
			reasons = append(reasons, result.String())
		}
	}
	switch {
	case said == nil && problem != "":
		return new("") // the guard may not have registered yet: the next round tells
	case said == nil || problem == *said:
	case problem != "":
		p.options.Log.Warn("the guard does not protect the reserved resources", slog.String("state", string(verify.Worst(results))),
			slog.String("reason", strings.Join(reasons, ". ")))
		p.options.Announce("NotProtected", text.Printable(strings.Join(reasons, ". "), maxNote))
	default:
		p.options.Log.Info("the guard protects the reserved resources again")
		p.options.Announce("ProtectedAgain", "The guard denies forbidden writes to the reserved resources again.")
	}
	return &problem
}
