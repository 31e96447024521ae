// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	admissionregistrationv1client "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/drift"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/policies"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
	"github.com/apigw-guardian/apigw-guardian/pkg/verify"
)

// The values of --engine, which are those of the chart's value.
const (
	engineWebhook = "webhook"
	enginePolicy  = "policy"
	engineBoth    = "both"
)

// propagation is how long API servers may take to notice a policy: each reads them once a second
// (k8s.io/apiserver/pkg/admission/plugin/policy/generic/policy_source.go).
const propagation = 3 * time.Second

// engine removes what the former engine of a release left in the cluster. It waits until the new engine denies, so that no forbidden
// write passes in between.
type engine struct {
	name string
	// isChart is false for a user who runs authorize: then nothing ends.
	isChart bool
	cluster live.Cluster
	cmd     *cobra.Command
	wait    time.Duration
	// observes says that the guard denies nothing.
	observes bool
}

// begin runs before authorize, which fails while a webhook configuration leads to no guard.
func (e engine) begin(ctx context.Context) error {
	if e.name != enginePolicy {
		return nil
	}
	if err := e.keepPolicies(ctx); err != nil {
		return err
	}
	return e.endWebhook(ctx)
}

// finish runs after authorize, which waits for the guard.
func (e engine) finish(ctx context.Context) error {
	if !e.isChart || e.name == enginePolicy {
		return nil
	}
	return e.endPolicies(ctx)
}

// keepPolicies lets helm leave the policies when the release gets another engine: an upgrade obeys the annotation on the live object, an
// uninstall only that in the chart (helm's pkg/kube/client.go and pkg/action/resource_policy.go). It fails if a policy or its binding is
// absent: then the engine before must not end.
func (e engine) keepPolicies(ctx context.Context) error {
	const keep = `{"metadata":{"annotations":{"` + keepAnnotation + `":"keep"}}}`
	options := metav1.PatchOptions{FieldManager: guardian.FieldManager}
	return e.eachPolicy(func(client admissionregistrationv1client.AdmissionregistrationV1Interface, name string) error {
		_, err := client.ValidatingAdmissionPolicies().Patch(ctx, name, types.MergePatchType, []byte(keep), options)
		if err == nil {
			_, err = client.ValidatingAdmissionPolicyBindings().Patch(ctx, name, types.MergePatchType, []byte(keep), options)
		}
		return err
	})
}

// keepAnnotation is helm's.
const keepAnnotation = "helm.sh/resource-policy"

// eachPolicy calls do with the name of each policy of the built-in reservation, which are those of the chart.
func (e engine) eachPolicy(do func(admissionregistrationv1client.AdmissionregistrationV1Interface, string) error) error {
	for _, reservation := range e.cluster.Set.Reservations() {
		if !reservation.BuiltIn {
			continue
		}
		set, err := reserved.NewSet(reservation)
		if err != nil {
			return err
		}
		compiled, err := policies.Compile(set, policies.Options{})
		if err != nil {
			return err
		}
		for _, p := range compiled {
			if err := do(e.cluster.Client.AdmissionregistrationV1(), p.Policy.Name); err != nil {
				return fmt.Errorf("validatingadmissionpolicy %q: %w", p.Policy.Name, err)
			}
		}
	}
	return nil
}

var (
	errPoliciesAllow = errors.New("the policies do not deny yet")
	errNotRegistered = errors.New("policies protect, and the guard has not registered yet: with the chart's engine policy, add " +
		"--engine policy")
)

// endWebhook removes the webhook configuration of a guard that is gone, and what that guard left, once the policies deny.
func (e engine) endWebhook(ctx context.Context) error {
	configuration, err := e.cluster.WebhookConfiguration(ctx)
	if err != nil || configuration == nil {
		return err
	}
	if err := e.await(ctx, errPoliciesAllow, func(ctx context.Context) (bool, error) {
		return e.observes || verify.New(e.cluster, verify.PermittedWrites).ByPolicies(ctx, verify.PerKind(e.cluster.Set)), nil
	}); err != nil {
		return err
	}
	if _, err := registration.Remove(ctx, e.cluster.Client.AdmissionregistrationV1()); err != nil {
		return err
	}
	say(e.cmd.OutOrStdout(), "Removed the webhook configuration: the policies deny.")
	remove(e.cmd, e.cluster.Namespace, leftByGuard(e.cluster.Client, e.cluster.Namespace))
	return e.endReports(ctx)
}

// endReports deletes what the leader has noted and published. RBAC refuses that if the release has another leader, the controller.
func (e engine) endReports(ctx context.Context) error {
	err := e.cluster.Client.CoreV1().ConfigMaps(e.cluster.Namespace).Delete(ctx, drift.StateName, metav1.DeleteOptions{})
	for _, reservation := range e.cluster.Set.Reservations() {
		err = cmp.Or(ignoreRefusal(err), e.cluster.Dynamic.Resource(v1alpha1.GroupVersion().WithResource("reservations")).
			Delete(ctx, reservation.Name, metav1.DeleteOptions{}))
	}
	return ignoreRefusal(err)
}

func ignoreRefusal(err error) error {
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return nil
	}
	return err
}

// endPolicies deletes the policies that keepPolicies has marked, once the guard decides. Until then they deny, and their denials have no
// record.
func (e engine) endPolicies(ctx context.Context) error {
	var kept []string
	err := e.eachPolicy(func(client admissionregistrationv1client.AdmissionregistrationV1Interface, name string) error {
		p, err := client.ValidatingAdmissionPolicies().Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err == nil && p.Annotations[keepAnnotation] != "" && p.Spec.ParamKind == nil {
			kept = append(kept, name)
		}
		return err
	})
	if err != nil || len(kept) == 0 {
		return err
	}
	err = e.await(ctx, errNotRegistered, func(ctx context.Context) (bool, error) {
		configuration, err := e.cluster.WebhookConfiguration(ctx)
		defect, _ := registration.DefectOf(configuration)
		return defect == "" && (e.observes || !registration.Observes(configuration)), err
	})
	if err != nil {
		return err
	}
	client := e.cluster.Client.AdmissionregistrationV1()
	for _, name := range kept {
		for _, remove := range []func(context.Context, string, metav1.DeleteOptions) error{
			client.ValidatingAdmissionPolicyBindings().Delete, client.ValidatingAdmissionPolicies().Delete,
		} {
			if err := remove(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("delete policy %q of the engine before: %w", name, err)
			}
		}
	}
	say(e.cmd.OutOrStdout(), "Removed the policies of the engine before: the guard denies.")
	return nil
}

// await waits for a check, and then until every API server sees the same; missing is the error if it never holds.
func (e engine) await(ctx context.Context, missing error, check wait.ConditionWithContextFunc) error {
	err := wait.PollUntilContextTimeout(ctx, time.Second, e.wait, true, check)
	switch {
	case wait.Interrupted(err):
		return fmt.Errorf("%w after %s", missing, e.wait)
	case err != nil:
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(propagation):
		return nil
	}
}
