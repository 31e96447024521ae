// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

const guardName = "apigw-guardian"

// installation is a cluster with what an install leaves in the guard's namespace, with or without the release's annotation.
func installation(annotations map[string]string) *fake.Clientset {
	named := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: guardName, Name: name} }
	deployment := &appsv1.Deployment{ObjectMeta: named(guardName)}
	deployment.Annotations = annotations
	client := fake.NewClientset(
		deployment, &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: guardName}},
		&corev1.Secret{ObjectMeta: named("apigw-guardian-ca")}, &coordinationv1.Lease{ObjectMeta: named(guardName)},
		&corev1.ConfigMap{ObjectMeta: named("apigw-guardian-replicas")}, &corev1.ConfigMap{ObjectMeta: named("apigw-guardian-credentials")},
		&corev1.ConfigMap{ObjectMeta: named("apigw-guardian-retirements")}, &batchv1.Job{ObjectMeta: named("apigw-guardian-authorize")},
		&corev1.Pod{ObjectMeta: named("apigw-guardian-verify")},
	)
	client.PrependReactor("update", "deployments", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, &autoscalingv1.Scale{}, nil
	})
	return client
}

// deletions are the objects that a client has deleted: "secrets/some-name".
func deletions(client *fake.Clientset) []string {
	var all []string
	for _, action := range client.Actions() {
		if deletion, isDeletion := action.(clienttesting.DeleteAction); isDeletion {
			all = append(all, action.GetResource().Resource+"/"+deletion.GetName())
		}
	}
	return all
}

func TestUninstall(t *testing.T) {
	t.Parallel()
	owned := map[string]string{"meta.helm.sh/release-name": "guard"}
	everything := []string{
		"validatingadmissionpolicybindings/apigw-guardian-registration",
		"validatingwebhookconfigurations/apigw-guardian", "secrets/apigw-guardian-ca", "leases/apigw-guardian",
		"configmaps/apigw-guardian-replicas", "jobs/apigw-guardian-authorize", "pods/apigw-guardian-verify",
	}
	for name, test := range map[string]struct {
		client  *fake.Clientset
		flags   uninstallFlags
		name    string
		want    error
		deleted []string
		warns   string
	}{
		"a helm release": {client: installation(owned), name: guardName, deleted: everything},
		"an Application of Argo CD": {
			client: installation(map[string]string{"argocd.argoproj.io/tracking-id": "guard:apps/Deployment:ns/guard"}),
			name:   guardName, deleted: everything,
		},
		"no helm release":                  {client: installation(nil), name: guardName, want: errNotReleased},
		"no helm release, but forced":      {client: installation(nil), flags: uninstallFlags{force: true}, name: guardName, deleted: everything},
		"another name":                     {client: installation(owned), name: "other", deleted: everything, warns: "not found"},
		"no Deployment is named":           {client: installation(nil), deleted: everything[:2]},
		"the Deployment cannot be read":    {client: refusing("get", "deployments"), name: guardName, want: errRefused},
		"the webhook configuration stays":  {client: refusing("delete", "validatingwebhookconfigurations"), name: guardName, want: errRefused},
		"a leftover cannot be deleted":     {client: refusing("delete", "leases"), name: guardName, deleted: everything, warns: "lease"},
		"the Deployment cannot be stopped": {client: refusing("update", "deployments"), name: guardName, deleted: everything, warns: "scale"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := newUninstall(&sharedFlags{})
			cmd.SetContext(t.Context())
			var stdout, stderr bytes.Buffer
			cmd.SetOut(&stdout)
			cmd.SetErr(&stderr)
			err := test.flags.uninstall(cmd, test.client, types.NamespacedName{Namespace: guardName, Name: test.name})
			if !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if test.want != nil {
				return
			}
			if got := deletions(test.client); !slices.Equal(slices.Compact(got), test.deleted) {
				t.Errorf("deleted %q, want %q", got, test.deleted)
			}
			if !strings.Contains(stderr.String(), test.warns) || (test.warns == "") != (stderr.Len() == 0) {
				t.Errorf("got %q on standard error, want %q", &stderr, test.warns)
			}
		})
	}
}

// A refused uninstall writes nothing.
func TestUninstallLeavesAnAppliedDeployment(t *testing.T) {
	t.Parallel()
	client := installation(map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "{}"})
	cmd := newUninstall(&sharedFlags{})
	cmd.SetContext(t.Context())
	err := (&uninstallFlags{}).uninstall(cmd, client, types.NamespacedName{Namespace: guardName, Name: guardName})
	if !errors.Is(err, errNotReleased) {
		t.Errorf("got %v", err)
	}
	for _, action := range client.Actions() {
		if action.GetVerb() != "get" {
			t.Errorf("got %s %s", action.GetVerb(), action.GetResource().Resource)
		}
	}
}

var errRefused = apierrors.NewForbidden(schema.GroupResource{}, "", nil)

// refusing is an installation by helm whose API server refuses one verb on one kind.
func refusing(verb, resource string) *fake.Clientset {
	client := installation(map[string]string{"meta.helm.sh/release-name": "guard"})
	client.PrependReactor(verb, resource, func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, errRefused })
	return client
}
