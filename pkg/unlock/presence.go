// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package unlock

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

const (
	// absence is how long after its last note a replica counts as running: one that the API server cannot reach may still be asked.
	absence = time.Minute
	// leaveTimeout bounds the removal of the note at the end.
	leaveTimeout = 2 * time.Second
)

// presence keeps the note of one replica in the ConfigMap guardian.Replicas: a key for each replica, and the time of its last
// successful list as the value. `unlock` waits for these replicas.
type presence struct {
	maps      corev1client.ConfigMapInterface
	namespace string
	replica   string
	noted     time.Time
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
	notes := map[string]any{p.replica: now.UTC().Format(time.RFC3339)}
	for _, replica := range p.gone {
		notes[replica] = nil // null removes it
	}
	stored, err := p.patch(ctx, notes)
	if apierrors.IsNotFound(err) {
		select {
		case <-p.stopping:
			return nil
		default:
		}
		// An apply creates it, and RBAC can limit that to a name.
		first := corev1apply.ConfigMap(guardian.Replicas, p.namespace).WithData(map[string]string{p.replica: now.UTC().Format(time.RFC3339)})
		stored, err = p.maps.Apply(ctx, first, metav1.ApplyOptions{FieldManager: guardian.FieldManager})
	}
	if err != nil {
		return fmt.Errorf("write configmap %q: %w", guardian.Replicas, err)
	}
	p.noted, p.gone = time.Now(), nil
	present := running(stored.Data, now)
	for replica := range stored.Data {
		if !slices.Contains(present, replica) {
			p.gone = append(p.gone, replica)
		}
	}
	return nil
}

// leave removes the note.
func (p *presence) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	_, _ = p.patch(ctx, map[string]any{p.replica: nil}) // or the note gets too old
}

func (p *presence) patch(ctx context.Context, notes map[string]any) (*corev1.ConfigMap, error) {
	patch, err := json.Marshal(map[string]any{"data": notes})
	if err != nil {
		return nil, err
	}
	return p.maps.Patch(ctx, guardian.Replicas, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: guardian.FieldManager})
}

// running returns the replicas with a recent note, in order.
func running(notes map[string]string, now time.Time) []string {
	var replicas []string
	for replica, note := range notes {
		if at, err := time.Parse(time.RFC3339, note); err == nil && now.Sub(at) < absence {
			replicas = append(replicas, replica)
		}
	}
	slices.Sort(replicas)
	return replicas
}
