// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Argocd does with a rendered chart what an Application of Argo CD does, in the cluster of $KUBECONFIG:
//
//	argocd sync FILE NAMESPACE     a sync: hooks, phases, waves and health by Argo CD's own engine
//	argocd diff FILE NAMESPACE     prints each object that is out of sync, by the default diff and by the server-side diff
//	argocd delete FILE NAMESPACE   a cascading deletion, with PreDelete hooks
//
// The engine is the one that Argo CD imports. Its application controller is not: that needs a repository server and Redis. Deletion is
// written here after its controller/hook.go and controller/appcontroller.go (v3.6.1).
//
// It has a separate module: the engine requires a newer Go, and k8s.io/kubernetes.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/argoproj/argo-cd/gitops-engine/v3/pkg/cache"
	"github.com/argoproj/argo-cd/gitops-engine/v3/pkg/diff"
	"github.com/argoproj/argo-cd/gitops-engine/v3/pkg/health"
	"github.com/argoproj/argo-cd/gitops-engine/v3/pkg/sync"
	"github.com/argoproj/argo-cd/gitops-engine/v3/pkg/sync/common"
	"github.com/argoproj/argo-cd/gitops-engine/v3/pkg/sync/hook"
	"github.com/argoproj/argo-cd/gitops-engine/v3/pkg/utils/kube"
	"github.com/argoproj/argo-cd/gitops-engine/v3/pkg/utils/tracing"
	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// tracking is the annotation by which Argo CD finds what it manages, by default since 3.0.
	tracking = "argocd.argoproj.io/tracking-id"
	manager  = "argocd-controller"
	// helmHook is an annotation of helm. Argo CD runs the value pre-delete at the deletion of an Application, since 3.3.
	helmHook = "helm.sh/hook"
	// timeout is for each command, as a sync waits for health.
	timeout = 5 * time.Minute
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "argocd:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	commands := map[string]func(*application, context.Context) error{
		"sync": (*application).sync, "diff": (*application).diff, "delete": (*application).delete,
	}
	if len(args) != 3 || commands[args[0]] == nil {
		return errors.New("usage: argocd sync|diff|delete FILE NAMESPACE")
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	app, err := open(args[1], args[2])
	if err != nil {
		return err
	}
	return commands[args[0]](app, ctx)
}

type application struct {
	config    *rest.Config
	kubectl   *kube.KubectlCmd
	cache     cache.ClusterCache
	namespace string
	targets   []*unstructured.Unstructured
}

// open reads the rendered objects and marks each as an object of the application.
func open(file, namespace string) (*application, error) {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = 50, 100
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	targets, err := kube.SplitYAML(data)
	if err != nil {
		return nil, err
	}
	for _, target := range targets {
		annotations := target.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[tracking] = trackingID(kube.GetResourceKey(target))
		target.SetAnnotations(annotations)
	}
	live := cache.NewClusterCache(config, cache.SetLogr(logr.Discard()), cache.SetPopulateResourceInfoHandler(
		func(object *unstructured.Unstructured, _ bool) (info any, cacheManifest bool) {
			id := object.GetAnnotations()[tracking]
			return id, id != ""
		}))
	if err := live.EnsureSynced(); err != nil {
		return nil, err
	}
	return &application{
		config: config, cache: live, namespace: namespace, targets: targets,
		kubectl: &kube.KubectlCmd{Log: logr.Discard(), Tracer: tracing.NopTracer{}},
	}, nil
}

// trackingID has the form of Argo CD: APPLICATION:GROUP/KIND:NAMESPACE/NAME. Controllers copy annotations, so another object may have it.
func trackingID(key kube.ResourceKey) string {
	return fmt.Sprintf("guardian:%s/%s:%s/%s", key.Group, key.Kind, key.Namespace, key.Name)
}

func isManaged(r *cache.Resource) bool { return r.Info == trackingID(r.ResourceKey()) }

// sync makes another context of the sync every second, as the application controller does: a context knows only the live objects that it
// was made with.
func (a *application) sync(ctx context.Context) error {
	phase, message, results, started := common.OperationRunning, "", []common.ResourceSyncResult(nil), metav1.Now()
	for !phase.Completed() {
		live, err := a.cache.GetManagedLiveObjs(a.targets, isManaged)
		if err != nil {
			return err
		}
		state := sync.Reconcile(a.targets, live, a.namespace, a.cache)
		step, cleanup, err := sync.NewSyncContext("revision", state, a.config, a.config, a.kubectl, a.namespace,
			sync.WithPrune(true), sync.WithLogr(logr.Discard()), sync.WithInitialState(phase, message, results, started))
		if err != nil {
			return err
		}
		step.Sync(ctx)
		phase, message, results = step.GetState()
		cleanup()
		if err := pause(ctx); err != nil {
			return fmt.Errorf("%s: %s: %w", phase, message, err)
		}
	}
	for _, result := range results {
		fmt.Println(result.SyncPhase, result.ResourceKey.String(), result.Status, result.HookPhase)
	}
	if phase != common.OperationSucceeded {
		return fmt.Errorf("%s: %s", phase, message)
	}
	return nil
}

// diff prints the objects that differ, and those that a sync would prune. Hooks are in no diff.
func (a *application) diff(ctx context.Context) error {
	live, err := a.cache.GetManagedLiveObjs(a.targets, isManaged)
	if err != nil {
		return err
	}
	state := sync.Reconcile(a.targets, live, a.namespace, a.cache)
	operations, cleanup, err := a.kubectl.ManageServerSideDiffDryRuns(a.config)
	if err != nil {
		return err
	}
	defer cleanup()
	options := []diff.Option{diff.WithLogr(logr.Discard()), diff.WithGVKParser(a.cache.GetGVKParser()), diff.WithManager(manager)}
	runner := diff.NewK8sServerSideDryRunner(operations)
	serverSide := append(slices.Clone(options), diff.WithServerSideDiff(true), diff.WithServerSideDryRunner(runner))
	for name, options := range map[string][]diff.Option{"default": options, "server-side": serverSide} {
		found, err := diff.DiffArray(ctx, state.Target, state.Live, options...)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for i, result := range found.Diffs {
			target, live := state.Target[i], state.Live[i]
			switch {
			case target == nil && !hook.IsHook(live):
				fmt.Println(name, live.GetKind(), live.GetName(), "is not in the chart")
			case target != nil && result.Modified:
				fmt.Println(name, target.GetKind(), target.GetName(), "differs")
				fmt.Printf("- %s\n+ %s\n", result.NormalizedLive, result.PredictedLive)
			}
		}
	}
	return nil
}

// delete runs the PreDelete hooks, and then deletes each live object of the application. A failed hook keeps all of them.
func (a *application) delete(ctx context.Context) error {
	if err := a.preDelete(ctx); err != nil {
		return err
	}
	policy := metav1.DeletePropagationForeground
	foreground := metav1.DeleteOptions{PropagationPolicy: &policy}
	for {
		live, err := a.cache.GetManagedLiveObjs(nil, isManaged)
		if err != nil || len(live) == 0 {
			return err
		}
		for key, object := range live {
			if object.GetDeletionTimestamp() != nil {
				continue
			}
			err := a.kubectl.DeleteResource(ctx, a.config, object.GroupVersionKind(), key.Name, key.Namespace, foreground)
			if err != nil && !apierrors.IsNotFound(err) {
				return err
			}
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("%d objects are left: %w", len(live), err)
		}
	}
}

// preDelete creates all PreDelete hooks, in the random order of a map, and waits until each is healthy. Argo CD deletes a failed hook and
// tries again at the next reconciliation; here it is an error.
func (a *application) preDelete(ctx context.Context) error {
	hooks := map[kube.ResourceKey]*unstructured.Unstructured{}
	for _, target := range a.targets {
		if slices.Contains(hookTypes(target), "pre-delete") {
			hooks[kube.GetResourceKey(target)] = target
		}
	}
	for key, target := range hooks {
		_, err := a.kubectl.CreateResource(ctx, a.config, target.GroupVersionKind(), key.Name, key.Namespace, target, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create the hook %s: %w", key.String(), err)
		}
	}
	for key, target := range hooks {
		for {
			live, err := a.kubectl.GetResource(ctx, a.config, target.GroupVersionKind(), key.Name, key.Namespace)
			if err != nil {
				return err
			}
			status, err := health.GetResourceHealth(live, nil)
			if err != nil {
				return err
			}
			if status == nil || status.Status == health.HealthStatusHealthy {
				break
			}
			if status.Status == health.HealthStatusDegraded {
				return fmt.Errorf("the hook %s failed: %s", key.String(), status.Message)
			}
			if err := pause(ctx); err != nil {
				return fmt.Errorf("the hook %s is %s: %w", key.String(), status.Status, err)
			}
		}
	}
	return nil
}

func hookTypes(object *unstructured.Unstructured) []string {
	var types []string
	for part := range strings.SplitSeq(object.GetAnnotations()[helmHook], ",") {
		types = append(types, strings.TrimSpace(part))
	}
	return types
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Second):
		return nil
	}
}
