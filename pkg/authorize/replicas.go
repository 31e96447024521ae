// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"context"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/probe"
)

// Why a denial in the guard's name does not count.
const (
	unproven = "failed: denied, but by something else than this guard: the denial has no valid proof of a replica. " +
		"Whoever holds the key of the CA can answer in the guard's place"
	unknownGuard = "failed: denied, but nothing proves by whom: the webhook configuration names no replica. " +
		"Is the guard of an earlier version?"
	notVerified = "failed: denied, but the keys of the replicas cannot be read: "
)

// try runs an attack with a nonce, and returns what came of it: a denial counts only with the proof of a replica, where the
// attack can carry a nonce. Without the right to read the keys, PermittedWrites takes a denial for what it says.
func (v verifier) try(ctx context.Context, a attack, t target) (got string, err error) {
	t.nonce = probe.NewNonce()
	err = a.run(ctx, t)
	if got = verdict(err); got != denied || a.marked == "" {
		return got, err
	}
	keys, readErr := v.replicas(ctx)
	switch {
	case v.leavesOut(readErr):
		return got, err
	case readErr != nil:
		return notVerified + readErr.Error(), err
	case len(keys) == 0:
		return unknownGuard, err
	}
	var status apierrors.APIStatus
	errors.As(err, &status) // verdict has seen it
	subject := probe.Subject{
		Nonce: t.nonce, Operation: a.marked, Resource: t.entry.GVR.GroupResource().String(), Namespace: t.entry.Namespace,
	}
	if !keys.Prove(status.Status().Message, subject) {
		return unproven, err
	}
	return got, err
}

// replicas reads the keys after a denial, so that a replica that has just started is known.
func (v verifier) replicas(ctx context.Context) (probe.Keys, error) {
	live, err := v.cluster.Client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(
		ctx, guardian.WebhookConfiguration, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return probe.KeysOf(live.Annotations), nil
}
