// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
)

const (
	// reachPatience is how long API servers and Services may take to notice a new guard.
	reachPatience = 10 * time.Second
	// reachPoll is the pause between two probes for that long, and reachRetry after it.
	reachPoll  = 250 * time.Millisecond
	reachRetry = 2 * time.Second
)

// reach is what a replica knows about the way from API servers to the guard. It is safe for concurrent use.
type reach struct {
	// proven is true once a review has arrived, at any replica. It stays true: a guard that cannot be reached later fails closed.
	proven atomic.Bool
	// problem is a string that says why no review arrives; "" or nil for none.
	problem atomic.Value
}

func (r *reach) currentProblem() string {
	problem, _ := r.problem.Load().(string)
	return problem
}

// check is a check of /protectedz.
func (r *reach) check(*http.Request) error {
	if !r.proven.Load() {
		return errors.New("no review of the API server has arrived")
	}
	return nil
}

func (g *Guard) addReach() {
	if g.options.Controller {
		return
	}
	promauto.With(g.options.Registry).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "apigw_guardian_reachable",
		Help: "1 once a review of an API server has arrived at the guard. Until then the webhooks ignore failures, and nothing is protected.",
	}, func() float64 {
		if g.reach.proven.Load() {
			return 1
		}
		return 0
	})
}

// failurePolicy returns Fail once a review has arrived at this replica, or at one that wrote live. Before that, a guard that API
// servers cannot reach would refuse every write to a reserved resource, although it never ran.
func (g *Guard) failurePolicy(live *admissionregistrationv1.ValidatingWebhookConfiguration) admissionregistrationv1.FailurePolicyType {
	if registration.FailsClosed(live, g.options.Endpoint) {
		g.reached()
	}
	if g.options.Mode == policy.Observe || !g.reach.proven.Load() {
		return admissionregistrationv1.Ignore
	}
	return admissionregistrationv1.Fail
}

func (g *Guard) reached() {
	if !g.reach.proven.Swap(true) {
		g.reach.problem.Store("")
		g.changes.Notify()
	}
}

// proveReach sends probes until one has arrived at a replica, or ctx ends. Every replica runs it: there may be no leader.
func (g *Guard) proveReach(ctx context.Context) {
	var since time.Time
	for poll := reachPoll; pause(ctx, poll) && !g.reach.proven.Load(); {
		live, err := g.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().
			Get(ctx, guardian.WebhookConfiguration, metav1.GetOptions{})
		if err != nil || registration.ProbeNamespace(live) != g.options.Namespace {
			continue
		}
		if since.IsZero() {
			since = time.Now()
		}
		isLate := time.Since(since) > reachPatience
		if isLate {
			poll = reachRetry
		}
		g.judgeReach(registration.Reach(ctx, g.client.CoreV1(), g.options.Namespace), isLate)
	}
}

// judgeReach takes the result of a probe. A probe that cannot be sent, or is not sent on for long, says nothing against the way: the
// webhooks then fail closed, as they protect nothing otherwise.
func (g *Guard) judgeReach(err error, isLate bool) {
	status, isAnswer := errors.AsType[*apierrors.StatusError](err)
	isRefused := isAnswer && status.Status().Code < http.StatusInternalServerError && !apierrors.IsTooManyRequests(err)
	switch {
	case err == nil:
		g.options.Log.Info("a review of the API server has arrived")
		g.reached()
	case isRefused || errors.Is(err, registration.ErrNotAsked) && isLate:
		g.options.Log.Warn("cannot find out whether the API server reaches the guard, failing closed", slog.Any("err", err))
		g.reached()
	case errors.Is(err, registration.ErrUnreachable) && isLate:
		g.setUnreachable(fmt.Sprintf("%v: %s", err, registration.ReachRemedy(g.listenPort())))
	}
}

func (g *Guard) setUnreachable(problem string) {
	if g.reach.currentProblem() != "" { // the API server's message may differ each time
		return
	}
	g.reach.problem.Store(problem)
	g.options.Log.Error("no review of the API server arrives, nothing is protected", slog.String("reason", problem))
	g.warn("WebhookUnreachable", problem)
	g.changes.Notify()
}

// listenPort is the port that API servers connect to on this replica.
func (g *Guard) listenPort() string {
	_, port, err := net.SplitHostPort(g.options.Listen)
	if err != nil {
		return g.options.Listen
	}
	return port
}
