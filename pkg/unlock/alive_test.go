// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package unlock

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

func TestAReplicaIsAliveWhileItsNoteIsRecent(t *testing.T) {
	t.Parallel()
	note := func(ago time.Duration) string { return time.Now().Add(-ago).UTC().Format(time.RFC3339) }
	notes := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: guardian.Replicas},
		Data:       map[string]string{"a": note(time.Second), "b": note(time.Minute), "c": "never"},
	}
	client := &Client{clients: clients{client: fake.NewClientset(notes)}, namespace: "n"}
	if got, err := client.Alive(t.Context()); err != nil || got != 1 {
		t.Errorf("got %d, %v, want 1", got, err)
	}
	client = &Client{clients: clients{client: fake.NewClientset()}, namespace: "n"}
	if got, err := client.Alive(t.Context()); err != nil || got != 0 {
		t.Errorf("without notes: got %d, %v, want 0", got, err)
	}
}
