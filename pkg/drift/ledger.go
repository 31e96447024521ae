// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/client"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
)

const (
	// noteInterval is the time between two notes of a replica that it decides.
	noteInterval = 3 * time.Second
	// awaitInterval is the time between two looks while the webhook configuration is not in place.
	awaitInterval = 500 * time.Millisecond
	// noteTimeout bounds one note.
	noteTimeout = 5 * time.Second
	// gapTolerance is how old the last note of any replica may be before that is a gap: two notes, and a slow API server.
	gapTolerance = 2*noteInterval + time.Second
)

// Ledger notes for one replica that the guard decides. Every replica runs one, so a new leader causes no gap.
type Ledger struct {
	Cluster live.Cluster
	Owner   Owner
	// Ready is closed when the guard answers reviews.
	Ready <-chan struct{}
	Log   *slog.Logger
	// Lost is called when the webhook configuration begins to let writes pass, after this replica decided; nil for nothing.
	Lost func()

	mu sync.Mutex
	// decided is when this replica last saw that the guard decides; zero before that.
	decided time.Time
	// noted is what it wrote then. Another replica may write another time by another clock, so only the first note reads that time.
	noted time.Time
	// missed is a gap that is not noted yet.
	missed *Span
	// defect is what the last looks found to let writes pass; "" since the guard decides.
	defect string
}

// Run notes until ctx ends.
func (l *Ledger) Run(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, noteTimeout)
	if configuration, err := l.Cluster.WebhookConfiguration(bounded); err == nil { // before this guard can have registered
		l.find(configuration)
	}
	cancel()
	select {
	case <-l.Ready:
	case <-ctx.Done():
		return
	}
	said := ""
	for ctx.Err() == nil {
		bounded, cancel := context.WithTimeout(ctx, noteTimeout)
		decides, err := l.note(bounded)
		cancel()
		switch {
		case err == nil:
			said = ""
		case ctx.Err() == nil && said != err.Error():
			said = err.Error()
			l.Log.Warn("failed to note that the guard decides", slog.Any("err", err))
		}
		interval := noteInterval
		if err == nil && !decides {
			interval = awaitInterval
		}
		select {
		case <-ctx.Done():
		case <-time.After(interval):
		}
	}
}

// find returns what lets writes pass, and remembers it.
func (l *Ledger) find(configuration *admissionregistrationv1.ValidatingWebhookConfiguration) registration.Defect {
	defect, text := registration.DefectOf(configuration)
	l.mu.Lock()
	isNew := l.defect == "" && text != "" && !l.decided.IsZero()
	l.defect = cmp.Or(text, l.defect)
	l.mu.Unlock()
	if isNew && l.Lost != nil {
		l.Lost()
	}
	return defect
}

// Missed notes that the webhook configuration was away, or had been edited, since this replica last saw it in place.
func (l *Ledger) Missed(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.decided.IsZero() {
		l.missed = join(l.missed, &Span{
			From: metav1.NewTime(l.decided), To: metav1.NewTime(now), Defect: "another client had changed or deleted the webhook configuration",
		})
	}
}

// note returns false if the webhook configuration is not in place. The next note shows the gap.
func (l *Ledger) note(ctx context.Context) (decides bool, err error) {
	configuration, err := l.Cluster.WebhookConfiguration(ctx)
	if err != nil {
		return false, err
	}
	if l.find(configuration) != "" {
		return false, nil
	}
	now := time.Now()
	state, err := notes{l.Cluster, l.Owner}.read(ctx)
	if err != nil {
		return false, err
	}
	missed := join(l.pending(), l.gap(state, now))
	values, version := map[string]*string{decidedKey: new(now.UTC().Format(time.RFC3339))}, ""
	if missed != nil {
		values[gapKey], version = client.Encoded(join(state.Gap, missed)), state.version
	}
	if err := (notes{l.Cluster, l.Owner}).write(ctx, version, values); err != nil {
		return false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.decided, l.noted, l.defect = now, now.Truncate(time.Second), ""
	if l.missed != nil && missed != nil && !missed.To.Before(&l.missed.To) {
		l.missed = nil
	}
	return true, nil
}

func (l *Ledger) pending() *Span {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.missed
}

// gap returns the time since the last note of any replica, if it is a gap.
func (l *Ledger) gap(state State, now time.Time) *Span {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := l.decided
	switch {
	case last.IsZero():
		last = state.Decided
	case !state.Decided.Equal(l.noted): // another replica has noted something since
		return nil
	}
	if last.IsZero() || now.Sub(last) <= gapTolerance {
		return nil
	}
	return &Span{From: metav1.NewTime(last), To: metav1.NewTime(now), Defect: l.defect}
}
