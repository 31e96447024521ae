// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// Content types of the patches.
const (
	JSON           = "application/json"
	JSONPatch      = "application/json-patch+json"
	MergePatch     = "application/merge-patch+json"
	StrategicPatch = "application/strategic-merge-patch+json"
	ApplyPatch     = "application/apply-patch+yaml"
)

// Object is a reserved resource of the world.
type Object struct {
	*reserved.Resource
	// Path is the URL path of the object, and Collection that of its kind.
	Path, Collection string
	// Live is the content of the object before a scenario changes it.
	Live *unstructured.Unstructured
}

// World is a cluster with the built-in reservation applied and its token Secret filled.
type World struct {
	// Guarded is a client of the API server that calls the guard. Unguarded is a client of the one that does not.
	Guarded, Unguarded *Client
	Cluster            *testbed.Cluster
	// The four objects of the built-in set.
	Account, Role, Binding, Token *Object

	controllerStopped bool
}

// Start starts a cluster and makes it a world. The caller must stop World.Cluster.
func Start(ctx context.Context, config testbed.Config) (*World, error) {
	cluster, err := testbed.Start(ctx, config)
	if err != nil {
		return nil, err
	}
	if err := cluster.StartUnguarded(ctx); err != nil {
		return nil, errors.Join(err, cluster.Stop())
	}
	world, err := NewWorld(ctx, cluster)
	if err != nil {
		return nil, errors.Join(err, cluster.Stop())
	}
	return world, nil
}

// NewWorld applies the built-in reservation to a cluster after StartUnguarded, and returns its world.
func NewWorld(ctx context.Context, cluster *testbed.Cluster) (*World, error) {
	guarded, errGuarded := NewClient(cluster.AdminConfig())
	unguarded, errUnguarded := NewClient(cluster.UnguardedConfig())
	set, errSet := reserved.BuiltIn()
	if err := errors.Join(errGuarded, errUnguarded, errSet); err != nil {
		return nil, err
	}
	w := &World{Guarded: guarded, Unguarded: unguarded, Cluster: cluster}
	objects := []**Object{&w.Account, &w.Role, &w.Binding, &w.Token}
	for i, resource := range set.Resources() {
		collection := Collection(resource)
		*objects[i] = &Object{Resource: resource, Collection: collection, Path: collection + "/" + resource.Name}
	}
	if err := w.authorizeAll(ctx); err != nil {
		return nil, err
	}
	return w, w.rebuild(ctx)
}

// authorizeAll grants all permissions to every authenticated user, so that only the guard can deny a write.
func (w *World) authorizeAll(ctx context.Context) error {
	const binding = `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"scenario"},` +
		`"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"},` +
		`"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"Group","name":"system:authenticated"}]}`
	_, err := w.Unguarded.must(ctx, Apply(other(w.Binding, "scenario"), binding), http.StatusOK, http.StatusCreated)
	return err
}

// Collection returns the URL path of all objects of a resource's kind in its namespace.
func Collection(resource *reserved.Resource) string {
	prefix := "/api/" + resource.GVR.Version
	if resource.GVR.Group != "" {
		prefix = "/apis/" + resource.GVR.Group + "/" + resource.GVR.Version
	}
	if resource.Namespace != "" {
		prefix += "/namespaces/" + resource.Namespace
	}
	return prefix + "/" + resource.GVR.Resource
}

// Objects returns the four objects in the order in which they are applied.
func (w *World) Objects() []*Object { return []*Object{w.Account, w.Role, w.Binding, w.Token} }

func (w *World) stopController() {
	w.Cluster.StopControllerManager()
	w.controllerStopped = true
}

// Reset restores the original world if any object has changed.
func (w *World) Reset(ctx context.Context) error {
	if w.controllerStopped {
		if err := w.Cluster.StartControllerManager(ctx); err != nil {
			return err
		}
		w.controllerStopped = false
	}
	for _, object := range w.Objects() {
		live, err := w.Read(ctx, object)
		if err != nil {
			return err
		}
		if live == nil || live.GetResourceVersion() != object.Live.GetResourceVersion() {
			return w.rebuild(ctx)
		}
	}
	return nil
}

// Play prepares the world for a scenario.
func (w *World) Play(ctx context.Context, s Scenario) error {
	if s.Prepare == nil {
		return nil
	}
	if err := s.Prepare(ctx, w); err != nil {
		return fmt.Errorf("prepare %s: %w", s.Name, err)
	}
	return w.sync(ctx)
}

// sync waits until the watch cache of the guarded API server has the writes to the unguarded one. An update starts from the
// cached object, so admission would otherwise compare with an outdated one.
func (w *World) sync(ctx context.Context) error {
	for _, object := range w.Objects() {
		err := wait.PollUntilContextTimeout(ctx, 5*time.Millisecond, settleTimeout, true, func(ctx context.Context) (bool, error) {
			stored, err := w.Read(ctx, object)
			if err != nil {
				return false, err
			}
			cached, err := read(ctx, w.Guarded, object, "0")
			if err != nil || cached == nil || stored == nil {
				return cached == nil && stored == nil, err
			}
			return cached.GetResourceVersion() == stored.GetResourceVersion(), nil
		})
		if err != nil {
			return fmt.Errorf("wait for the API server to see %s: %w", object, err)
		}
	}
	return nil
}

// Read returns the stored object; nil if it is absent.
func (w *World) Read(ctx context.Context, object *Object) (*unstructured.Unstructured, error) {
	return read(ctx, w.Unguarded, object, "")
}

func read(ctx context.Context, client *Client, object *Object, resourceVersion string) (*unstructured.Unstructured, error) {
	get := Write{Method: http.MethodGet, Path: object.Path, Query: map[string][]string{"resourceVersion": {resourceVersion}}}
	answer, err := client.must(ctx, get, http.StatusOK, http.StatusNotFound)
	if err != nil || answer.Code == http.StatusNotFound {
		return nil, err
	}
	live := &unstructured.Unstructured{}
	return live, live.UnmarshalJSON(answer.Body)
}

// rebuild deletes the four objects and applies them again: the account gets a new UID, and its Secret a new token.
func (w *World) rebuild(ctx context.Context) error {
	objects := w.Objects()
	for _, object := range slices.Backward(objects) {
		if err := w.remove(ctx, object); err != nil {
			return err
		}
	}
	for _, object := range objects {
		apply := Apply(object, string(object.Manifest()))
		if _, err := w.Unguarded.must(ctx, apply, http.StatusOK, http.StatusCreated); err != nil {
			return err
		}
	}
	return w.settle(ctx)
}

// settleTimeout is the max time to wait for the controller manager, which usually takes less than 100 ms.
const settleTimeout = 30 * time.Second

// pokeInterval is the time that settle waits for the controller manager before it changes the Secret again.
const pokeInterval = 3 * time.Second

// settle waits until the token is filled and reads the four objects. The controller manager gives up on a token after ten failures
// in 5 s, which a terminating guard can cause. A change of the Secret makes it try again. Right after its start it deletes the
// Secret if it has not seen the new account yet.
func (w *World) settle(ctx context.Context) error {
	poked := time.Now()
	err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, settleTimeout, true, func(ctx context.Context) (bool, error) {
		token, err := w.Read(ctx, w.Token)
		if err == nil && token == nil && time.Since(poked) > pokeInterval {
			poked = time.Now()
			_, err = w.Unguarded.must(ctx, Apply(w.Token, string(w.Token.Manifest())), http.StatusOK, http.StatusCreated)
		}
		if err != nil || token == nil {
			return false, err
		}
		value, _, err := unstructured.NestedString(token.Object, "data", corev1.ServiceAccountTokenKey)
		if value == "" && time.Since(poked) > pokeInterval {
			poked = time.Now()
			return false, errors.Join(err, w.poke(ctx))
		}
		return value != "", err
	})
	if err != nil {
		return fmt.Errorf("wait for the controller manager to fill the token: %w", err)
	}
	for _, object := range w.Objects() {
		if object.Live, err = w.Read(ctx, object); err != nil {
			return err
		}
	}
	return w.sync(ctx)
}

// poke changes the token Secret and reverts the change.
func (w *World) poke(ctx context.Context) error {
	for _, patch := range []string{`{"metadata":{"labels":{"poke":"yes"}}}`, `{"metadata":{"labels":{"poke":null}}}`} {
		if _, err := w.Unguarded.must(ctx, Merge(w.Token, patch), http.StatusOK); err != nil {
			return err
		}
	}
	return nil
}

func (w *World) remove(ctx context.Context, object *Object) error {
	if err := w.dropFinalizers(ctx, object); err != nil {
		return err
	}
	_, err := w.Unguarded.must(ctx, Delete(object), http.StatusOK, http.StatusAccepted, http.StatusNotFound)
	return err
}

func (w *World) dropFinalizers(ctx context.Context, object *Object) error {
	live, err := w.Read(ctx, object)
	if err != nil || live == nil || len(live.GetFinalizers()) == 0 {
		return err
	}
	_, err = w.Unguarded.must(ctx, Merge(object, `{"metadata":{"finalizers":null}}`), http.StatusOK)
	return err
}

// Merge returns a JSON merge patch of the object.
func Merge(object *Object, patch string) Write {
	return Write{Method: http.MethodPatch, Path: object.Path, ContentType: MergePatch, Body: []byte(patch)}
}

// Patch returns a JSON patch of the object.
func Patch(object *Object, operations string) Write {
	return Write{Method: http.MethodPatch, Path: object.Path, ContentType: JSONPatch, Body: []byte(operations)}
}

// Apply returns a server-side apply of the manifest with force.
func Apply(object *Object, manifest string) Write {
	return Write{
		Method: http.MethodPatch, Path: object.Path, ContentType: ApplyPatch, Body: []byte(manifest),
		Query: map[string][]string{"fieldManager": {"scenario"}, "force": {"true"}},
	}
}

// Delete returns a deletion of the object.
func Delete(object *Object) Write {
	return Write{Method: http.MethodDelete, Path: object.Path, ContentType: JSON}
}

// Create returns the creation of an object of the same kind and namespace.
func Create(object *Object, manifest string) Write {
	return Write{Method: http.MethodPost, Path: object.Collection, ContentType: JSON, Body: []byte(manifest)}
}

// Put returns a replacement of the object by its live content, changed by edit.
func Put(object *Object, edit func(*unstructured.Unstructured)) Write {
	content := object.Live.DeepCopy()
	edit(content)
	body, err := json.Marshal(content.Object)
	if err != nil {
		panic(err) // impossible: the content was read from JSON
	}
	return Write{Method: http.MethodPut, Path: object.Path, ContentType: JSON, Body: body}
}
