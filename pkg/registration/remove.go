// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	admissionregistrationv1client "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

// A running guard restores the webhook configuration within a second, so that a removal counts only if it lasts.
const (
	removalLasts    = 2 * time.Second
	removalAttempts = 5
)

var errRestored = errors.New("a running guard restores the webhook configuration: stop the guard first: " +
	"scale its Deployment to 0 or end its process")

// Remove deletes the webhook configuration and reports whether there was one. It returns an error if a running guard restores it.
func Remove(ctx context.Context, client admissionregistrationv1client.ValidatingWebhookConfigurationsGetter) (removed bool, err error) {
	for range removalAttempts {
		err := client.ValidatingWebhookConfigurations().Delete(ctx, guardian.WebhookConfiguration, metav1.DeleteOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return removed, nil
		case err != nil:
			return removed, fmt.Errorf("delete validatingwebhookconfiguration %q: %w", guardian.WebhookConfiguration, err)
		}
		removed = true
		select {
		case <-ctx.Done():
			return removed, ctx.Err()
		case <-time.After(removalLasts):
		}
	}
	return removed, errRestored
}
