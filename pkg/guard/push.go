// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/otlp"
	"github.com/apigw-guardian/apigw-guardian/pkg/client"
	"github.com/apigw-guardian/apigw-guardian/pkg/drift"
)

const (
	// pushedKey holds in the ConfigMap of drift.StateName until when every record that was written is pushed.
	pushedKey = "pushed"
	// pushOverlap is how much earlier the next leader begins: the clocks of API servers differ.
	pushOverlap = 2 * time.Minute
	// pushPause is the pause before the records are read anew, and saveInterval the time between two writes of pushedKey.
	pushPause, saveInterval = 5 * time.Second, 10 * time.Second
	// firstPushRetry and lastPushRetry bound the pause before the next attempt to push.
	firstPushRetry, lastPushRetry = time.Second, 30 * time.Second
	// saveTimeout bounds the last write of pushedKey.
	saveTimeout = 2 * time.Second
)

// The values of the label result.
const (
	pushAccepted = "accepted"
	pushRejected = "rejected"
	pushFailed   = "failed"
)

// pusher sends records to a receiver of OTLP. The API server is its queue: it keeps at most one batch, and after an outage it reads the
// records again that were written since. Only the leader runs it.
type pusher struct {
	guard    *Guard
	records  *prometheus.CounterVec
	failing  prometheus.Gauge
	exporter *otlp.Exporter

	reached, saved time.Time
	savedAt        time.Time
}

// addPusher registers the metrics if there is a receiver.
func (g *Guard) addPusher() {
	if g.options.Push.Endpoint == "" {
		return
	}
	register := promauto.With(g.options.Registry)
	p := &pusher{
		guard: g,
		records: register.NewCounterVec(prometheus.CounterOpts{
			Name: "apigw_guardian_audit_pushed_records_total",
			Help: "States of audit records that were sent to the OTLP receiver, by result: accepted, rejected by the receiver for what they " +
				"hold, or failed and sent again.",
		}, []string{"result"}),
		failing: register.NewGauge(prometheus.GaugeOpts{
			Name: "apigw_guardian_audit_push_failing",
			Help: "1 while this replica leads and the OTLP receiver takes no records. They wait in the API server.",
		}),
	}
	for _, result := range []string{pushAccepted, pushRejected, pushFailed} {
		p.records.WithLabelValues(result)
	}
	g.pusher = p
}

// push pushes records until ctx ends, if there is a receiver.
func (g *Guard) push(ctx context.Context) {
	if g.pusher == nil {
		return
	}
	said := ""
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		err := g.pusher.run(ctx)
		if err == nil || ctx.Err() != nil {
			said = ""
			return
		}
		if text := err.Error(); text != said { // an outage of the API server would say the same every 5 s
			said = text
			g.options.Log.Warn("failed to push audit records, reading them again", slog.Any("err", err))
		}
	}, pushPause)
	g.pusher.failing.Set(0)
}

// run reads the files of the options each time, so that a new credential needs no restart.
func (p *pusher) run(ctx context.Context) error {
	exporter, err := otlp.New(p.guard.options.Push)
	if err != nil {
		p.failing.Set(1)
		return err
	}
	p.exporter = exporter
	defer func() { p.exporter.Close() }() // it may be another one by then
	since, err := p.load(ctx)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
		defer cancel()
		p.save(ctx)
	}()
	return p.guard.records.Changes(ctx, since, p)
}

// Receive implements [store.Receiver]. It repeats until the receiver has the records or ctx ends.
func (p *pusher) Receive(ctx context.Context, records []v1alpha1.AuditRecord) error {
	backoff := wait.Backoff{Duration: firstPushRetry, Factor: 2, Cap: lastPushRetry, Steps: 10, Jitter: 0.1}
	for failed := false; ; failed = true {
		err := p.send(ctx, records)
		if err == nil {
			if p.failing.Set(0); failed {
				p.guard.options.Log.Info("audit records can be pushed again")
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p.records.WithLabelValues(pushFailed).Add(float64(len(records)))
		if p.failing.Set(1); !failed {
			p.guard.options.Log.Warn("failed to push audit records, trying again", slog.Any("err", err))
		}
		pause(ctx, backoff.Step())
		if rotated, err := otlp.New(p.guard.options.Push); err == nil {
			p.exporter.Close()
			p.exporter = rotated
		}
	}
}

// send halves records that the receiver refuses, until it knows which ones.
func (p *pusher) send(ctx context.Context, records []v1alpha1.AuditRecord) error {
	rejected, err := p.exporter.Export(ctx, records)
	switch {
	case errors.Is(err, otlp.ErrRefused) && len(records) > 1:
		half := len(records) / 2
		if err := p.send(ctx, records[:half]); err != nil {
			return err
		}
		return p.send(ctx, records[half:])
	case errors.Is(err, otlp.ErrRefused):
		rejected = 1
		p.guard.options.Log.Error("audit record was refused by the receiver", slog.String("name", records[0].Name), slog.Any("err", err))
	case err != nil:
		return err
	case rejected > 0:
		p.guard.options.Log.Error("audit records were rejected by the receiver", slog.Int64("count", rejected))
	}
	p.records.WithLabelValues(pushRejected).Add(float64(rejected))
	p.records.WithLabelValues(pushAccepted).Add(float64(int64(len(records)) - rejected))
	return nil
}

// Reached implements [store.Receiver].
func (p *pusher) Reached(at time.Time) {
	p.reached = at
	if time.Since(p.savedAt) >= saveInterval {
		ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
		defer cancel()
		p.save(ctx)
	}
}

func (p *pusher) notes() client.Notes {
	return client.Notes{Client: p.guard.client, Namespace: p.guard.options.Namespace, Name: drift.StateName}
}

// load returns from when on records must be pushed. A time in the future would hide records.
func (p *pusher) load(ctx context.Context) (time.Time, error) {
	if p.reached.IsZero() {
		state, err := p.notes().Read(ctx)
		if err != nil {
			return time.Time{}, err
		}
		if state != nil {
			p.reached, _ = time.Parse(time.RFC3339, state.Data[pushedKey]) // the zero time for none
		}
	}
	if p.reached.IsZero() || p.reached.After(time.Now()) {
		return time.Time{}, nil
	}
	return p.reached.Add(-pushOverlap), nil
}

// save notes how far the records are pushed. Without the ConfigMap, which the ledger of drift makes, the next leader pushes all of them.
func (p *pusher) save(ctx context.Context) {
	if p.reached.Equal(p.saved) {
		return
	}
	p.savedAt = time.Now()
	_, err := p.notes().Write(ctx, "", map[string]*string{pushedKey: new(p.reached.UTC().Format(time.RFC3339))})
	switch {
	case err == nil:
		p.saved = p.reached
	case !apierrors.IsNotFound(err):
		p.guard.options.Log.Warn("failed to note which audit records are pushed", slog.Any("err", err))
	}
}
