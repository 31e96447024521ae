// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package unlock

import (
	"context"
	"errors"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	guardianclient "github.com/apigw-guardian/apigw-guardian/pkg/client"
)

const (
	// absence is how long after its last note a replica counts as running: one that the API server cannot reach may still be asked.
	absence = time.Minute
	// leaveTimeout bounds the removal of the note at the end.
	leaveTimeout = 2 * time.Second
)

// notesOf returns the ConfigMap with a key for each replica, and the time of its last successful list as the value.
func notesOf(client kubernetes.Interface, namespace string) guardianclient.Notes {
	return guardianclient.Notes{Client: client, Namespace: namespace, Name: guardian.Replicas}
}

// presence keeps the note of one replica. `unlock` waits for the replicas with a note.
type presence struct {
	notes   guardianclient.Notes
	replica string
	noted   time.Time
	// gone are replicas whose notes are too old.
	gone []string
	// stopping is closed once this replica drains. From then on, a ConfigMap that is gone was removed by `uninstall`.
	stopping <-chan struct{}
}

// note writes the time unless the last note is recent, and removes the notes of replicas that are gone.
func (p *presence) note(ctx context.Context, now time.Time) error {
	if time.Since(p.noted) < presenceInterval {
		return nil
	}
	notes := map[string]*string{p.replica: new(now.UTC().Format(time.RFC3339))}
	for _, replica := range p.gone {
		notes[replica] = nil
	}
	stored, err := p.notes.Put(ctx, "", notes, p.checkStopping)
	switch {
	case errors.Is(err, errStopping):
		return nil
	case err != nil:
		return err
	}
	p.noted, p.gone = time.Now(), nil
	present := running(stored.Data, now.Add(-absence))
	for replica := range stored.Data {
		if !slices.Contains(present, replica) {
			p.gone = append(p.gone, replica)
		}
	}
	return nil
}

var errStopping = errors.New("this replica drains")

// checkStopping returns no owner, and errStopping if this replica must not make the ConfigMap.
func (p *presence) checkStopping(context.Context) (*metav1.OwnerReference, error) {
	select {
	case <-p.stopping:
		return nil, errStopping
	default:
		return nil, nil //nolint:nilnil // see above
	}
}

// leave removes the note.
func (p *presence) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	_, _ = p.notes.Write(ctx, "", map[string]*string{p.replica: nil}) // or the note gets too old
}

// running returns the replicas that have noted a time after since, in order.
func running(notes map[string]string, since time.Time) []string {
	var replicas []string
	for replica, note := range notes {
		if at, err := time.Parse(time.RFC3339, note); err == nil && at.After(since) {
			replicas = append(replicas, replica)
		}
	}
	slices.Sort(replicas)
	return replicas
}
