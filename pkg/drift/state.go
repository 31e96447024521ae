// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package drift finds reserved resources that differ from their manifests, restores them, proves again and again that the guard denies
// forbidden writes, and reports the times in which it did not decide.
package drift

import (
	"cmp"
	"context"
	"encoding/json"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/client"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/tke"
)

// StateName is the name of the ConfigMap in the guard's namespace that holds the State.
const StateName = guardian.Name + "-state"

// The keys of the ConfigMap.
const (
	decidedKey = "decided"
	gapKey     = "gap"
	reportKey  = "report"
	networkKey = "network"
)

// State is what the replicas have noted. Any client that may write ConfigMaps in the guard's namespace can change it: no decision reads it.
type State struct {
	// Decided is when a replica last served with its webhook configuration in place; zero if it never did.
	Decided time.Time
	// Gap is one that the leader has not reported yet; nil for none.
	Gap *Span
	// Report is nil before the first leader has written one.
	Report *Report
	// Network is the last answer of Tencent Cloud; nil if the leader does not ask.
	Network *Network

	version string
}

// Network is an answer of Tencent Cloud about private network access.
type Network struct {
	tke.Answer

	At metav1.Time `json:"at"`
	// Interval is the time until the next answer.
	Interval metav1.Duration `json:"interval"`
}

// IsCurrent reports whether the leader still asks: the next answer is not long due.
func (n *Network) IsCurrent(now time.Time) bool {
	return n != nil && now.Sub(n.At.Time) < 2*n.Interval.Duration+time.Minute
}

// NoteNetwork writes the answer into the ConfigMap.
func NoteNetwork(ctx context.Context, cluster live.Cluster, owner Owner, network Network) error {
	return notes{cluster, owner}.write(ctx, "", map[string]*string{networkKey: client.Encoded(network)})
}

// Span is a time in which the guard did not decide.
type Span struct {
	From metav1.Time `json:"from"`
	To   metav1.Time `json:"to"`
	// Defect says what let writes pass; empty if the webhook configuration was in place, so that the API server refused them.
	Defect string `json:"defect,omitempty"`
}

// join returns the span from the earlier start to the later end. Either may be nil.
func join(a, b *Span) *Span {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	joined := *a
	if b.From.Before(&joined.From) {
		joined.From = b.From
	}
	if joined.To.Before(&b.To) {
		joined.To = b.To
	}
	joined.Defect = cmp.Or(joined.Defect, b.Defect)
	return &joined
}

// Report is what the leader knows.
type Report struct {
	// Mode is that of the leader.
	Mode Mode `json:"mode"`
	// Drift holds the resources that are not as their manifests say; empty for none.
	Drift []Finding `json:"drift,omitempty"`
	// Gap is the last one; nil for none.
	Gap *Gap `json:"gap,omitempty"`
	// Seen are the objects by the reserved resource, in the form of reserved.Resource.String.
	Seen map[string]Seen `json:"seen,omitempty"`
}

// Finding is a reserved resource that is not as its manifest says.
type Finding struct {
	// Resource is the reserved resource, and Object the object, both in the form of reserved.Resource.String.
	Resource string `json:"resource"`
	Object   string `json:"object"`
	// Paths are the sorted fields that differ; empty if the object is absent.
	Paths []string `json:"paths,omitempty"`
	// Writer is who wrote one of these fields last; zero if unknown.
	live.Writer
	// Found is when the leader found it.
	Found metav1.Time `json:"found"`
	// Unlock is the name of the Unlock under which it was changed; empty for none.
	Unlock string `json:"unlock,omitempty"`
	// Held says why the leader does not restore it; empty if it does.
	Held string `json:"held,omitempty"`
}

// isAbsent reports whether the object does not exist.
func (f *Finding) isAbsent() bool { return len(f.Paths) == 0 }

// Gap is a time in which the guard did not decide, and what changed meanwhile.
type Gap struct {
	Span
	Changes []Finding `json:"changes,omitempty"`
}

// Seen is an object that the leader has seen.
type Seen struct {
	UID types.UID `json:"uid"`
	// Since is when the leader first saw this UID.
	Since metav1.Time `json:"since"`
	// InSync says that the object was as its manifest says at some time.
	InSync bool `json:"inSync,omitempty"`
}

// ReadState reads what the replicas have noted; the zero State if there is no ConfigMap. It ignores a value that cannot be read.
func ReadState(ctx context.Context, clients kubernetes.Interface, namespace string) (State, error) {
	stored, err := client.Notes{Client: clients, Namespace: namespace, Name: StateName}.Read(ctx)
	if err != nil || stored == nil {
		return State{}, err
	}
	state := State{version: stored.ResourceVersion}
	if at, err := time.Parse(time.RFC3339, stored.Data[decidedKey]); err == nil {
		state.Decided = at
	}
	if json.Unmarshal([]byte(stored.Data[gapKey]), &state.Gap) != nil {
		state.Gap = nil
	}
	if json.Unmarshal([]byte(stored.Data[reportKey]), &state.Report) != nil {
		state.Report = nil
	}
	if json.Unmarshal([]byte(stored.Data[networkKey]), &state.Network) != nil {
		state.Network = nil
	}
	return state, nil
}

// Owner returns the cluster-scoped object with which the garbage collector deletes the ConfigMap, nil for none. What was authorized before
// the release was uninstalled is no reason for the next one to restore it. An error says that the release is gone.
type Owner func(ctx context.Context) (*metav1.OwnerReference, error)

// notes is the ConfigMap.
type notes struct {
	live.Cluster
	owner Owner
}

func (n notes) read(ctx context.Context) (State, error) { return ReadState(ctx, n.Client, n.Namespace) }

// write makes the ConfigMap if it is absent.
func (n notes) write(ctx context.Context, version string, values map[string]*string) error {
	_, err := client.Notes{Client: n.Client, Namespace: n.Namespace, Name: StateName}.Put(ctx, version, values, n.owner)
	return err
}
