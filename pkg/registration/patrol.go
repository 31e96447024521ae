// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"context"
	"errors"
	"log/slog"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

const (
	// lookInterval is the time between two looks of a replica.
	lookInterval = 5 * time.Second
	// lookTimeout bounds a look: an API server that hangs must not hide the next look.
	lookTimeout = 10 * time.Second
	// patience is how long a replica leaves a repair to the leader, which makes it within a second.
	patience = 15 * time.Second
	// upgradePatience is how long a replica leaves another revision, a CA bundle with more CAs than its own, and with provided files
	// any other CA bundle: longer than a rolling upgrade has two versions, than kubelets differ in a mounted Secret (about 90 s), and
	// than replicas that made their own CA at the same time take to agree on one.
	upgradePatience = 2 * time.Minute
)

// Patrol looks at the webhook configuration from every replica, whether it leads or not, and repairs it where the leader does not:
// there may be no leader, its watch may hang, or another client may hold the lease.
type Patrol struct {
	// Repairer is that of the Keeper.
	Repairer *Repairer
	// Ready is closed when the guard answers reviews.
	Ready <-chan struct{}
	// FilesDiffer says that replicas may hold different CA bundles for a while: those of provided files.
	FilesDiffer bool
	// Announce tells administrators, as an Event does; nil for no announcement.
	Announce func(reason, note string)

	// since is when a look first found the webhook configuration not in place; zero while it is.
	since time.Time
	// said is what was logged last.
	said string
}

// Run looks until ctx ends.
func (p *Patrol) Run(ctx context.Context) {
	if !waitFor(ctx, p.Ready) {
		return
	}
	wait.UntilWithContext(ctx, p.round, lookInterval)
}

// round looks once, and repairs if the webhook configuration has not been in place for long enough.
func (p *Patrol) round(ctx context.Context) {
	p.Repairer.mu.Lock()
	defer p.Repairer.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	live, want, err := p.Repairer.look(ctx)
	if err != nil {
		p.Repairer.inPlace.Set(0)
		p.complain(err)
		return
	}
	found := p.judge(live, want)
	if found == inPlace {
		p.Repairer.inPlace.Set(1)
		p.since, p.said = time.Time{}, ""
		return
	}
	p.Repairer.inPlace.Set(0)
	if p.since.IsZero() {
		p.since = time.Now()
	}
	if time.Since(p.since) < p.patience(found) {
		return
	}
	p.Repairer.options.Log.Warn("webhook configuration is not in place and no leader repairs it", slog.String("state", string(found)))
	if err := p.Repairer.repair(ctx, live, want); err != nil {
		p.complain(err)
		return
	}
	p.since = time.Time{}
}

func (p *Patrol) judge(live, want *admissionregistrationv1.ValidatingWebhookConfiguration) state {
	if p.Repairer.settled(live, want) {
		return inPlace
	}
	return judge(live, want)
}

func (p *Patrol) patience(found state) time.Duration {
	if found == otherRevision || found == moreCAs || found == otherCA && p.FilesDiffer {
		return upgradePatience
	}
	return patience
}

// complain logs once why this replica cannot look or repair, and again when the reason changes. The end of the patrol is no reason.
func (p *Patrol) complain(err error) {
	if p.said == err.Error() || errors.Is(err, context.Canceled) {
		return
	}
	p.said = err.Error()
	if !errors.Is(err, ErrOwnerGone) {
		p.Repairer.options.Log.Warn("failed to look after the webhook configuration", slog.Any("err", err))
		return
	}
	p.Repairer.options.Log.Warn("not registering: the release that owns the webhook configuration is gone")
	if p.Announce != nil {
		p.Announce("OwnerGone", "The ClusterRole that owns the webhook configuration is gone. The guard leaves the webhook "+
			"configuration away, and protects nothing, until the ClusterRole is back.")
	}
}
