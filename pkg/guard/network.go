// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/apigw-guardian/apigw-guardian/pkg/drift"
	"github.com/apigw-guardian/apigw-guardian/pkg/tke"
)

// Network says how the leader asks Tencent Cloud about private network access.
type Network struct {
	// Client is the zero Client to ask nothing.
	tke.Client

	// Interval is the time between two calls.
	Interval time.Duration
}

func (n Network) isOff() bool { return n.Credentials == "" }

// network is what the leader knows of private network access.
type network struct {
	enabled *prometheus.GaugeVec
	said    tke.Reason
}

func (g *Guard) addNetwork() {
	if g.options.Network.isOff() {
		return
	}
	g.network.enabled = promauto.With(g.options.Registry).NewGaugeVec(prometheus.GaugeOpts{
		Name: "apigw_guardian_private_network",
		Help: "1 for what the leader last learnt from Tencent Cloud about private network access (Yes, No, Unknown), 0 for the others.",
	}, []string{"enabled"})
}

// watchNetwork asks until ctx ends.
func (g *Guard) watchNetwork(ctx context.Context) {
	if g.options.Network.isOff() {
		return
	}
	defer g.network.enabled.Reset()
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		answer := g.options.Network.PrivateNetwork(ctx)
		if ctx.Err() != nil {
			return
		}
		g.tellNetwork(answer)
		note := drift.Network{Answer: answer, At: metav1.Now(), Interval: metav1.Duration{Duration: g.options.Network.Interval}}
		if err := drift.NoteNetwork(ctx, g.ledger.Cluster, g.owner, note); err != nil {
			g.options.Log.Warn("failed to note the answer about private network access", slog.Any("err", err))
		}
	}, g.options.Network.Interval)
}

// tellNetwork sets the metric, and tells administrators of an answer that differs from the last one.
func (g *Guard) tellNetwork(answer tke.Answer) {
	for _, enabled := range []string{"Yes", "No", "Unknown"} {
		g.network.enabled.WithLabelValues(enabled).Set(0)
	}
	g.network.enabled.WithLabelValues(answer.PrivateNetwork()).Set(1)
	before := g.network.said
	g.network.said = answer.Reason
	switch {
	case answer.Reason == before:
	case answer.Reason != tke.Enabled:
		g.options.Log.Warn("private network access is not confirmed", slog.String("reason", string(answer.Reason)),
			slog.String("cause", answer.Message))
		g.warn("PrivateNetwork"+string(answer.Reason), answer.Message+"; "+answer.Remedy)
	default:
		g.options.Log.Info("private network access is enabled")
	}
}
