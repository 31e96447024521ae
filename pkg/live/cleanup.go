// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package live

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/client"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// The legacy token cleaner of kube-controller-manager labels a token Secret invalid that no client has used for a year, and deletes it a
// year later. It takes only a Secret that its ServiceAccount lists, which kube-controller-manager made so before Kubernetes 1.24, that
// no Pod of the namespace mounts, and that is older than a year. It starts a year after the API server began to note uses:
// k8s.io/kubernetes/pkg/controller/serviceaccount/legacy_serviceaccount_token_cleaner.go. The period is its default,
// kube-controller-manager's --legacy-service-account-token-clean-up-period.
const (
	cleanUpPeriod  = 365 * 24 * time.Hour
	cleanUpWarning = 30 * 24 * time.Hour
	// trackingName is the ConfigMap of k8s.io/kubernetes/pkg/controlplane/controller/legacytokentracking, in kube-system.
	trackingName = "kube-apiserver-legacy-service-account-token-tracking"
	trackingKey  = "since"
)

// Reasons of a Cleanup.
const (
	CleanupDue  = "CleanupDue"
	CleanupDone = "MarkedInvalid"
)

// Cleanup says that kube-controller-manager has labelled a token invalid, or will within 30 days. It is zero if neither is so.
type Cleanup struct {
	Reason, Message string
	// Due is when it labels the Secret if no client uses the token before; zero if it has done so.
	Due time.Time
}

// TokenCleanup returns what the legacy token cleaner does with the token Secret in use; if none is, with one that it has labelled.
func (c Cluster) TokenCleanup(ctx context.Context, resource *reserved.Resource, now time.Time) (Cleanup, error) {
	account, err := c.Account(ctx, resource)
	if err != nil || account == nil {
		return Cleanup{}, err
	}
	o, err := c.Find(ctx, resource)
	if err != nil {
		return Cleanup{}, err
	}
	if o.Older.IsUnread() {
		return Cleanup{}, fmt.Errorf("you may not read %s: ask an administrator to run: %s status", o, guardian.Name)
	}
	secrets, _, err := c.tokenSecrets(ctx, resource, account)
	if err != nil {
		return Cleanup{}, err
	}
	tracking, err := client.Find(ctx, c.Client.CoreV1().ConfigMaps(metav1.NamespaceSystem), trackingName)
	if err != nil {
		return Cleanup{}, fmt.Errorf("read configmap %s/%s: %w", metav1.NamespaceSystem, trackingName, err)
	}
	for i := range secrets {
		secret := &secrets[i]
		_, isMarked := secret.Labels[invalidSinceLabel]
		isOwn := strings.HasPrefix(secret.Name, resource.NamePrefix) && secret.Annotations[corev1.ServiceAccountNameKey] == resource.Account
		if isOwn && (secret.Name == o.InUse() || o.InUse() == "" && isMarked) {
			return tracked{secret, account, tracking}.cleanup(resource.Reference(secret.Namespace, secret.Name).String(), now), nil
		}
	}
	return Cleanup{}, nil
}

// tracked is a token Secret and what the cleaner knows of it. tracking is nil where the API server does not note uses.
type tracked struct {
	secret   *corev1.Secret
	account  *corev1.ServiceAccount
	tracking *corev1.ConfigMap
}

// cleanup judges the Secret, whose name is for messages.
func (t tracked) cleanup(name string, now time.Time) Cleanup {
	if since, isMarked := t.secret.Labels[invalidSinceLabel]; isMarked {
		return Cleanup{Reason: CleanupDone, Message: fmt.Sprintf("%s has the label %s (%q): the API server refuses its token. To get one that "+
			"works: %s authorize --repair", name, invalidSinceLabel, since, guardian.Name)}
	}
	if t.tracking == nil {
		return Cleanup{}
	}
	due := t.due()
	if due.IsZero() || due.Sub(now) > cleanUpWarning {
		return Cleanup{}
	}
	return Cleanup{Reason: CleanupDue, Due: due, Message: fmt.Sprintf("No client has used the token of %s for 11 months. On %s, "+
		"kube-controller-manager labels it as invalid, unless a Pod mounts it or the guard denies that write. If API Gateway does not use this "+
		"cluster any more: %s retire", name, due.Format(time.DateOnly), guardian.Name)}
}

// due returns when the cleaner labels the Secret if no client uses its token before; zero for never.
func (t tracked) due() time.Time {
	since, err := time.Parse(time.DateOnly, t.tracking.Data[trackingKey])
	isListed := slices.ContainsFunc(t.account.Secrets, func(r corev1.ObjectReference) bool { return r.Name == t.secret.Name })
	if err != nil || !isListed || t.secret.DeletionTimestamp != nil {
		return time.Time{}
	}
	from := since.AddDate(0, 0, 1)
	if used, isUsed := t.secret.Labels[reserved.LastUsedLabel]; isUsed {
		day, err := time.Parse(time.DateOnly, used)
		if err != nil {
			return time.Time{} // the cleaner leaves it alone
		}
		from = latest(from, day.AddDate(0, 0, 1)) // the cleaner compares days
	}
	return latest(from, t.secret.CreationTimestamp.UTC()).Add(cleanUpPeriod)
}

func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }
