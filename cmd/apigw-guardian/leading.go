// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlmanager "sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
)

// termPause is the pause before the next term, when one has ended with an error.
const termPause = time.Second

// lead runs one term of leadership after the other until ctx ends. A term has a manager of its own, as a manager ends for
// good when it loses its lease, which it does whenever the API server is away for some seconds; serving must go on then.
func (g *guard) lead(ctx context.Context) error {
	for {
		err := g.term(ctx)
		if err == nil || ctx.Err() != nil {
			return nil //nolint:nilerr // what a term says when it is told to end is of no use
		}
		g.settings.log.Warn("a term of leadership has ended; answering goes on", slog.Any("err", err))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(termPause):
		}
	}
}

// term waits for the lease, where leaders are elected, and keeps the registration, the certificates and the records until the
// lease is lost or ctx ends.
func (g *guard) term(ctx context.Context) error {
	scheme := runtime.NewScheme()
	if err := admissionregistrationv1.AddToScheme(scheme); err != nil {
		return fmt.Errorf("make a scheme: %w", err)
	}
	lock, err := g.newLock()
	if err != nil {
		return err
	}
	flags := g.settings.flags
	manager, err := ctrl.NewManager(g.config, ctrl.Options{
		Scheme: scheme,
		Cache: cache.Options{ByObject: map[client.Object]cache.ByObject{
			&admissionregistrationv1.ValidatingWebhookConfiguration{}: {
				Field: fields.OneTermEqualSelector("metadata.name", guardian.WebhookConfiguration),
			},
		}},
		Logger:                              logr.FromSlogHandler(untilDone(ctx, g.settings.log)),
		Metrics:                             metricsserver.Options{BindAddress: "0"},
		LeaderElection:                      flags.leaderElect,
		LeaderElectionResourceLockInterface: lock,
		LeaseDuration:                       new(leaseDuration),
		RenewDeadline:                       new(renewDeadline),
		LeaderElectionReleaseOnCancel:       true,
	})
	if err != nil {
		return fmt.Errorf("set up the leader: %w", err)
	}
	err = errors.Join(
		manager.Add(&trimmer{store: g.records, retention: flags.recording.retention, log: g.settings.log}),
		manager.Add(ctrlmanager.RunnableFunc(g.certificates.lead)),
		manager.Add(ctrlmanager.RunnableFunc(g.publishRecordsProblem)),
		(&registration.Keeper{
			Repairer: g.repairer, Ready: g.server.Listening(), Changed: g.certificates.changed,
		}).SetupWithManager(manager),
	)
	if err != nil {
		return fmt.Errorf("set up the leader: %w", err)
	}
	return manager.Start(ctx)
}

// addRepairer makes the Repairer of the webhook configuration. It has a separate client, and so a separate rate limit: the reads
// of the certificates must not delay a repair.
func (g *guard) addRepairer() error {
	clientset, err := kubernetes.NewForConfig(rest.CopyConfig(g.config))
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	g.repairer, err = registration.NewRepairer(registration.RepairerOptions{
		Client: clientset.AdmissionregistrationV1().ValidatingWebhookConfigurations(),
		Build:  g.wantedRegistration, Report: g.repaired, Registry: metrics.Registry, Log: g.settings.log,
	})
	return err
}

func (g *guard) wantedRegistration(ctx context.Context) (*admissionregistrationv1.ValidatingWebhookConfiguration, error) {
	owner, err := g.owner(ctx)
	if err != nil {
		return nil, err
	}
	bundle, err := g.certificates.bundle(ctx)
	if err != nil {
		return nil, err
	}
	failurePolicy := admissionregistrationv1.Fail
	if g.settings.mode == policy.Observe {
		failurePolicy = admissionregistrationv1.Ignore
	}
	return registration.Build(g.set, registration.Options{
		Endpoint: g.settings.endpoint, CABundle: bundle, Owner: owner, FailurePolicy: failurePolicy,
		CertificateProblem: g.certificates.state().Problem, RecordsProblem: g.recorder.Problem(),
		Annotations: g.publisher.Annotations(),
	}), nil
}

// owner returns the reference to the ClusterRole that owns the webhook configuration; nil where none is named. It is read anew each
// time: once it is gone, the release is being uninstalled, and the garbage collector takes the webhook configuration along.
//
// One that is being deleted still counts. A finalizer can hold it for ever, and then nothing is uninstalled. If it does go, the
// garbage collector deletes what this reference is in, also if that was written a moment too late.
func (g *guard) owner(ctx context.Context) (*metav1.OwnerReference, error) {
	name := g.settings.flags.ownerClusterRole
	if name == "" {
		return nil, nil //nolint:nilnil // no owner is no error
	}
	role, err := g.client.RbacV1().ClusterRoles().Get(ctx, name, metav1.GetOptions{})
	known := g.lastOwner.Load()
	switch {
	case apierrors.IsNotFound(err):
		return nil, registration.ErrOwnerGone
	case apierrors.IsForbidden(err) && known != nil: // a right was taken away, and others may be left to make the repair with
		return known, nil
	case err != nil:
		return nil, fmt.Errorf("read the owner of the webhook configuration, clusterrole %q: %w", name, err)
	}
	owner := &metav1.OwnerReference{
		APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "ClusterRole", Name: role.Name, UID: role.UID,
	}
	g.lastOwner.Store(owner)
	return owner, nil
}
