// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package siege

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

// Report is what honest callers saw during an attack.
type Report struct {
	// Denials and Connections are the times of each denial through the API server, and of each new connection with its handshake
	// and one request, in ascending order.
	Denials, Connections []time.Duration
	// Others are the times of writes that the API server answers without the guard: what of a time is not the guard's.
	Others []time.Duration
	// Wrong and Refused count the writes that were not denied by the guard, and the connections that did not come about.
	Wrong, Refused int
	// FirstWrong and FirstRefused say what the first of them were.
	FirstWrong, FirstRefused string
	// Peak is the most memory that the guard held, in bytes; -1 where it has ended.
	Peak int
	// Failed says that the attack did not take place.
	Failed error
}

// Place is where an attack takes place: a guard that an API server asks.
type Place struct {
	World *scenario.World
	Guard *testbed.Guard
}

// Run attacks the guard for some time.
func Run(ctx context.Context, place Place, attack Attack, duration time.Duration) (Report, error) {
	world, guard := place.World, place.Guard
	address, err := url.Parse(guard.URL())
	if err != nil {
		return Report{}, fmt.Errorf("read the guard's address: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, duration)
	defer cancel()
	t := &target{address: address.Host, world: world}
	besiege := func() error { return attack.child(ctx, t.address) }
	if attack.throughAPI {
		besiege = func() error {
			attack.run(ctx, t)
			return ctx.Err()
		}
	}
	var report Report
	var group sync.WaitGroup
	group.Go(func() {
		if err := besiege(); err != nil && ctx.Err() == nil {
			report.Failed = err
			cancel()
		}
	})
	group.Go(func() { report.watchMemory(ctx, guard) })
	group.Go(func() { report.deny(ctx, t) })
	group.Go(func() { report.connect(ctx, t) })
	group.Wait()
	slices.Sort(report.Denials)
	slices.Sort(report.Connections)
	slices.Sort(report.Others)
	return report, report.Failed
}

// warmUp is how long the attack runs before times are taken: it has to open its connections first.
const warmUp = time.Second

func (r *Report) watchMemory(ctx context.Context, guard *testbed.Guard) {
	for ctx.Err() == nil {
		resident, err := guard.Resident()
		if err != nil {
			r.Peak = -1
			return
		}
		r.Peak = max(r.Peak, resident)
		pause(ctx, 20*time.Millisecond)
	}
}

// deny deletes the reserved ClusterRole again and again, as a dry-run.
func (r *Report) deny(ctx context.Context, t *target) {
	pause(ctx, warmUp)
	for ctx.Err() == nil {
		start := time.Now()
		answer, err := t.world.Guarded.Do(ctx, scenario.Delete(t.world.Role).DryRun())
		if ctx.Err() != nil {
			return
		}
		r.Denials = append(r.Denials, time.Since(start))
		if err != nil || answer.Code != http.StatusForbidden {
			r.Wrong++
			if r.FirstWrong == "" {
				r.FirstWrong = fmt.Sprintf("%v %d %.300s", err, answer.Code, answer.Body)
			}
		}
		r.other(ctx, t)
		pause(ctx, 5*time.Millisecond)
	}
}

// other deletes a ClusterRole that is not reserved, as a dry-run.
func (r *Report) other(ctx context.Context, t *target) {
	other := scenario.Delete(t.world.Role).DryRun()
	other.Path = t.world.Role.Collection + "/view"
	start := time.Now()
	if _, err := t.world.Guarded.Do(ctx, other); err == nil {
		r.Others = append(r.Others, time.Since(start))
	}
}

// connect opens new connections, one after the other.
func (r *Report) connect(ctx context.Context, t *target) {
	pause(ctx, warmUp)
	for ctx.Err() == nil {
		took, err := t.connectOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		r.Connections = append(r.Connections, took)
		if err != nil {
			r.Refused++
			if r.FirstRefused == "" {
				r.FirstRefused = err.Error()
			}
		}
		pause(ctx, 20*time.Millisecond)
	}
}

func (t *target) connectOnce(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	transport := &http.Transport{
		DialContext:       (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // the question is whether it answers
		DisableKeepAlives: true,
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+t.address+"/", http.NoBody)
	if err != nil {
		return 0, err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return time.Since(start), err
	}
	_ = response.Body.Close()
	return time.Since(start), nil
}

// Percentile returns the given percentile of times in ascending order; 0 of none.
func Percentile(times []time.Duration, percent int) time.Duration {
	if len(times) == 0 {
		return 0
	}
	return times[min(len(times)-1, len(times)*percent/100)]
}
