// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package unlock

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	guardianclient "github.com/apigw-guardian/apigw-guardian/pkg/client"
)

const (
	// patience is how long the replicas have to see an Unlock.
	patience = 10 * time.Second
	// pollInterval is the time between two looks at their answers.
	pollInterval = 200 * time.Millisecond
	// aliveFor is how long after its last note a replica counts as alive: some intervals.
	aliveFor = 4 * presenceInterval
)

// ErrUnconfirmed says that some replica of the guard has not confirmed the state of an Unlock in time. The Unlock is stored.
var ErrUnconfirmed = errors.New("not every replica of the guard has confirmed it")

// Client opens, approves and closes unlocks with the permissions of its user. Make one by NewClient.
type Client struct {
	clients

	namespace string
}

// clients call the API server about unlocks. Their clock is that of its answers.
type clients struct {
	unlocks client.Client
	client  kubernetes.Interface
	clock   guardianclient.Clock
}

// connect does not call the API server.
func (c *clients) connect(config *rest.Config) (err error) {
	config = rest.CopyConfig(config)
	config.QPS = -1 // the intervals bound the requests, and the limiter fails requests shortly before the end of a context
	config.Wrap(c.clock.Wrap)
	if c.unlocks, err = guardianclient.New(config); err != nil {
		return err
	}
	if c.client, err = kubernetes.NewForConfig(config); err != nil {
		return fmt.Errorf("make a client of the API server: %w", err)
	}
	return nil
}

// NewClient returns a Client for the guard in the namespace. It does not call the API server.
func NewClient(config *rest.Config, namespace string) (*Client, error) {
	c := &Client{namespace: namespace}
	return c, c.connect(config)
}

// Open creates an Unlock that ends after the time, by the clock of the API server. It sets RequestedBy and ExpiresAt.
func (c *Client) Open(ctx context.Context, spec v1alpha1.UnlockSpec, duration time.Duration) (*v1alpha1.Unlock, error) {
	user, err := guardianclient.UserName(ctx, c.client)
	if err != nil {
		return nil, err
	}
	spec.RequestedBy, spec.ExpiresAt = user, metav1.NewTime(c.clock.Server().Add(duration).Truncate(time.Second))
	unlock := &v1alpha1.Unlock{ObjectMeta: metav1.ObjectMeta{GenerateName: "unlock-"}, Spec: spec}
	if err := c.unlocks.Create(ctx, unlock, client.FieldOwner(guardian.FieldManager)); err != nil {
		return nil, explain("create an unlock", err)
	}
	return unlock, nil
}

// Approve approves an Unlock in the name of the caller.
func (c *Client) Approve(ctx context.Context, name string) (*v1alpha1.Unlock, error) {
	user, err := guardianclient.UserName(ctx, c.client)
	if err != nil {
		return nil, err
	}
	patch, _ := json.Marshal(map[string]any{"status": map[string]any{"approvedBy": user}}) // these types always marshal
	unlock := named(name)
	if err := c.unlocks.Status().Patch(ctx, unlock, client.RawPatch(types.MergePatchType, patch)); err != nil {
		return nil, explain(fmt.Sprintf("approve unlock %q", name), err)
	}
	return unlock, nil
}

// Close ends an Unlock.
func (c *Client) Close(ctx context.Context, name string) (*v1alpha1.Unlock, error) {
	unlock, patch := named(name), []byte(`{"spec":{"closed":true}}`)
	if err := c.unlocks.Patch(ctx, unlock, client.RawPatch(types.MergePatchType, patch)); err != nil {
		return nil, explain(fmt.Sprintf("close unlock %q", name), err)
	}
	return unlock, nil
}

// Get returns one Unlock by its name. The error of an absent one satisfies apierrors.IsNotFound.
func (c *Client) Get(ctx context.Context, name string) (*v1alpha1.Unlock, error) {
	unlock := named(name)
	if err := c.unlocks.Get(ctx, client.ObjectKeyFromObject(unlock), unlock); err != nil {
		return nil, explain(fmt.Sprintf("read unlock %q", name), err)
	}
	return unlock, nil
}

// List returns all unlocks, in order of their creation.
func (c *Client) List(ctx context.Context) ([]v1alpha1.Unlock, error) {
	list := &v1alpha1.UnlockList{}
	if err := c.unlocks.List(ctx, list); err != nil {
		return nil, explain("list unlocks", err)
	}
	slices.SortStableFunc(list.Items, func(a, b v1alpha1.Unlock) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	return list.Items, nil
}

// Await returns the Unlock once every running replica of the guard sees it in one of the states, or ErrUnconfirmed with the names of
// those that do not after 10 s.
func (c *Client) Await(ctx context.Context, name string, states ...v1alpha1.UnlockState) (*v1alpha1.Unlock, error) {
	var unlock *v1alpha1.Unlock
	var missing []string
	err := wait.PollUntilContextTimeout(ctx, pollInterval, patience, true, func(ctx context.Context) (bool, error) {
		live, err := c.Get(ctx, name)
		if err != nil {
			return false, cmp.Or(ctx.Err(), err) // an error at the end of the time is that of a request that was cut off
		}
		replicas, err := c.replicas(ctx, absence)
		if err != nil {
			return false, cmp.Or(ctx.Err(), err)
		}
		unlock, missing = live, unconfirmed(live.Status.Replicas, replicas, states)
		return len(missing) == 0, nil
	})
	if wait.Interrupted(err) && ctx.Err() == nil {
		return unlock, fmt.Errorf("unlock %q: %w after %s: %s", name, ErrUnconfirmed, patience, strings.Join(missing, ", "))
	}
	return unlock, err
}

// unconfirmed describes the replicas that do not see an Unlock in one of the states.
func unconfirmed(seen map[string]v1alpha1.UnlockState, replicas []string, states []v1alpha1.UnlockState) []string {
	if len(replicas) == 0 {
		return []string{"no replica is running"}
	}
	var missing []string
	for _, replica := range replicas {
		switch state, found := seen[replica]; {
		case !found:
			missing = append(missing, replica+" has not seen it")
		case !slices.Contains(states, state):
			missing = append(missing, fmt.Sprintf("%s sees it as %s", replica, state))
		}
	}
	return missing
}

// replicas returns the replicas of the guard with a note that is more recent than the age.
func (c *Client) replicas(ctx context.Context, age time.Duration) ([]string, error) {
	notes, err := notesOf(c.client, c.namespace).Read(ctx)
	if err != nil || notes == nil {
		return nil, err
	}
	return running(notes.Data, c.clock.Server().Add(-age)), nil
}

// Alive returns how many replicas of the guard have lately noted that they run. Its error says which right the user lacks.
func (c *Client) Alive(ctx context.Context) (int, error) {
	replicas, err := c.replicas(ctx, aliveFor)
	return len(replicas), err
}

func named(name string) *v1alpha1.Unlock {
	return &v1alpha1.Unlock{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

// explain says what to do about errors that the API server does not explain.
func explain(what string, err error) error {
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("%s: not found: list them with: kubectl get unlocks: %w", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
