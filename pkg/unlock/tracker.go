// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package unlock reads the unlocks of a cluster for a replica of the guard, and opens, approves and closes them for an administrator.
package unlock

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	guardianclient "github.com/apigw-guardian/apigw-guardian/pkg/client"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
)

const (
	// readInterval is the time between two lists of the unlocks. It bounds how long a new Unlock is not honoured yet, and a closed
	// one still is.
	readInterval = time.Second
	// readTimeout bounds one list and its acknowledgements.
	readTimeout = 3 * time.Second
	// maxAge is how long a replica relies on the unlocks that it has read.
	maxAge = 10 * time.Second
	// presenceInterval is the time between two notes in the ConfigMap of the replicas.
	presenceInterval = 5 * time.Second
)

// Options are the parts of a Tracker. All are required.
type Options struct {
	Config *rest.Config
	Rules  policy.UnlockRules
	// Replica identifies the process.
	Replica string
	// Namespace holds the ConfigMap of the replicas.
	Namespace string
	// Announce emits an Event about an Unlock.
	Announce func(unlock *v1alpha1.Unlock, reason, note string)
	Log      *slog.Logger
}

// Tracker keeps the unlocks of the cluster for one replica. Make one by NewTracker. It is safe for concurrent use.
//
// It lists them once a second and does not watch: a list that succeeds proves that the replica sees what the API server has stored,
// while a watch that is silent proves nothing.
type Tracker struct {
	clients

	options  Options
	snapshot atomic.Pointer[snapshot]
	guard    atomic.Pointer[string]
	presence presence
	// used are the names of the unlocks that this replica has announced the first use of, or is about to.
	used sync.Map
}

// snapshot is what one list returned.
type snapshot struct {
	unlocks []v1alpha1.Unlock
	// at is when the list began.
	at time.Time
}

// NewTracker does not call the API server.
func NewTracker(options Options) (*Tracker, error) {
	t := &Tracker{options: options}
	if err := t.connect(options.Config); err != nil {
		return nil, err
	}
	t.presence = presence{notes: notesOf(t.client, options.Namespace), replica: options.Replica}
	return t, nil
}

// Facts returns what a decision rests on. seen is false if the last successful list is older than 10 s: then there are no unlocks.
func (t *Tracker) Facts() (facts policy.Facts, seen bool) {
	facts.Now = metav1.NewTime(t.clock.Now())
	if guard := t.guard.Load(); guard != nil {
		facts.Guard = *guard
	}
	last := t.snapshot.Load()
	if last == nil || time.Since(last.at) > maxAge {
		return facts, false
	}
	facts.Unlocks = last.unlocks
	return facts, true
}

// Used notes that an Unlock allowed a write. It does not block.
func (t *Tracker) Used(name string) { t.used.LoadOrStore(name, false) }

// Run reads the unlocks until ctx ends. Once stopping is closed, it makes no ConfigMap of the replicas.
func (t *Tracker) Run(ctx context.Context, stopping <-chan struct{}) {
	t.presence.stopping = stopping
	failed := false
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		bounded, cancel := context.WithTimeout(ctx, readTimeout)
		defer cancel()
		err := t.read(bounded)
		switch {
		case err != nil && !failed && ctx.Err() == nil:
			t.options.Log.Warn("failed to read unlocks, none is honoured while that lasts", slog.Any("err", err))
		case err == nil && failed:
			t.options.Log.Info("unlocks can be read again")
		}
		failed = err != nil
	}, readInterval)
	t.presence.leave()
}

// read lists the unlocks and acknowledges what is new about them.
func (t *Tracker) read(ctx context.Context) error {
	start := time.Now()
	list := &v1alpha1.UnlockList{}
	if err := t.unlocks.List(ctx, list); err != nil {
		return fmt.Errorf("list unlocks: %w", err)
	}
	t.snapshot.Store(&snapshot{unlocks: list.Items, at: start})
	if err := t.identify(ctx); err != nil {
		return err
	}
	for i := range list.Items {
		t.acknowledge(ctx, &list.Items[i])
	}
	if err := t.presence.note(ctx, t.clock.Server()); err != nil && ctx.Err() == nil {
		t.options.Log.Warn("failed to note that this replica reads unlocks", slog.Any("err", err))
	}
	return nil
}

// identify asks the API server once who this process is.
func (t *Tracker) identify(ctx context.Context) error {
	if t.guard.Load() != nil {
		return nil
	}
	user, err := guardianclient.UserName(ctx, t.client)
	if err != nil {
		return err
	}
	t.guard.Store(&user)
	return nil
}

// acknowledge writes the state in which this replica sees an Unlock. The first replica that sees a new state also announces it.
func (t *Tracker) acknowledge(ctx context.Context, unlock *v1alpha1.Unlock) {
	state := t.options.Rules.StateOf(unlock, metav1.NewTime(t.clock.Now()))
	last, known := unlock.Status.Replicas[t.options.Replica]
	own := map[string]any{t.options.Replica: state}
	switch {
	case unlock.Status.State != state:
		if t.patch(ctx, unlock, map[string]any{"state": state, "replicas": own}, unlock.ResourceVersion) {
			t.options.Announce(unlock, "Unlock"+string(state), note(unlock, state))
		}
	// A replica that started after the end of an Unlock has nothing to acknowledge.
	case last != state && (known || !state.IsOver()):
		t.patch(ctx, unlock, map[string]any{"replicas": own}, "")
	}
	t.announceUse(ctx, unlock)
}

func (t *Tracker) announceUse(ctx context.Context, unlock *v1alpha1.Unlock) {
	announced, used := t.used.Load(unlock.Name)
	if !used || announced == true || unlock.Status.FirstUsed != nil {
		return
	}
	first := metav1.NewTime(t.clock.Server())
	if t.patch(ctx, unlock, map[string]any{"firstUsed": first}, unlock.ResourceVersion) {
		t.used.Store(unlock.Name, true)
		t.options.Announce(unlock, "UnlockUsed", fmt.Sprintf("Unlock %s has allowed its first write. See: %s audit show %s",
			unlock.Name, guardian.Name, unlock.Name))
	}
}

func note(unlock *v1alpha1.Unlock, state v1alpha1.UnlockState) string {
	spec := &unlock.Spec
	switch state {
	case v1alpha1.UnlockOpen:
		return fmt.Sprintf("%s may write to resources of %s until %s: %s",
			strings.Join(spec.Subjects(), ", "), spec.Reservation, spec.ExpiresAt.UTC().Format(time.RFC3339), spec.Reason)
	case v1alpha1.UnlockPending:
		return fmt.Sprintf("Unlock %s waits for the approval by a second user.", unlock.Name)
	default:
		return fmt.Sprintf("Unlock %s is over: %s.", unlock.Name, state)
	}
}

// patch changes the status, if the Unlock still has the version; "" for any version. It reports whether it did: another replica may
// have been first.
func (t *Tracker) patch(ctx context.Context, unlock *v1alpha1.Unlock, status map[string]any, version string) bool {
	change := map[string]any{"status": status}
	if version != "" {
		change["metadata"] = map[string]any{"resourceVersion": version}
	}
	patch, _ := json.Marshal(change) // these types always marshal
	stored := unlock.DeepCopy()      // the patched object replaces it, while decisions read the snapshot
	owner := client.FieldOwner(guardian.FieldManager + "-replica")
	err := t.unlocks.Status().Patch(ctx, stored, client.RawPatch(types.MergePatchType, patch), owner)
	if client.IgnoreNotFound(err) != nil {
		t.options.Log.Debug("failed to write the status of an unlock", slog.Any("err", err))
	}
	return err == nil
}

// CleanUp deletes the unlocks that ended before the time. Only the leader calls it.
func (t *Tracker) CleanUp(ctx context.Context, before time.Time) error {
	facts, _ := t.Facts()
	for i := range facts.Unlocks {
		unlock := &facts.Unlocks[i]
		if !t.options.Rules.StateOf(unlock, facts.Now).IsOver() || !unlock.Spec.ExpiresAt.Time.Before(before) {
			continue
		}
		if err := client.IgnoreNotFound(t.unlocks.Delete(ctx, unlock.DeepCopy())); err != nil {
			return fmt.Errorf("delete unlock %q: %w", unlock.Name, err)
		}
	}
	return nil
}
