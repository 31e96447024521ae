// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

var errBroken = errors.New("broken")

// following is a Follow that runs in a synctest bubble.
type following struct {
	*Store
	// said has what it told, in order; of Reached only the changes.
	said chan string
	// fails says that the API server cannot be reached.
	fails    atomic.Bool
	watching watch.Interface
	end      context.CancelFunc
	ended    chan error
}

func follow(t *testing.T, records ...client.Object) *following {
	t.Helper()
	f := &following{said: make(chan string, 100), ended: make(chan error, 1)}
	f.Store = newStore(t, interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			if f.fails.Load() {
				return errBroken
			}
			return c.List(ctx, list, options...)
		},
		Watch: f.watch,
	}, records...)
	ctx, cancel := context.WithCancel(t.Context())
	f.end = cancel
	t.Cleanup(cancel)
	reached := ""
	go func() {
		f.ended <- f.Follow(ctx, Follower{
			Changed: func(r *v1alpha1.AuditRecord) {
				f.said <- fmt.Sprintf("changed %s to %d", r.Spec.User.Name, r.Spec.Count)
			},
			Removed: func(name string) { f.said <- "removed " + name },
			Synced:  func() { f.said <- "synced" },
			Reached: func(err error) {
				now := "reached"
				if errors.Is(err, errBroken) {
					now = "lost"
				}
				if now != reached {
					reached = now
					f.said <- now
				}
			},
		})
	}()
	return f
}

func (f *following) watch(
	ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption,
) (watch.Interface, error) {
	var all client.ListOptions
	all.ApplyOptions(options)
	switch {
	case f.fails.Load():
		return nil, errBroken
	case all.Raw.SendInitialEvents != nil: // the fake cannot; an API server without WatchList answers this
		return nil, apierrors.NewInvalid(schema.GroupKind{}, "", nil)
	}
	var err error
	f.watching, err = c.Watch(ctx, list, options...)
	return f.watching, err
}

func (f *following) expect(t *testing.T, want ...string) {
	t.Helper()
	time.Sleep(time.Second) // Synced polls
	synctest.Wait()
	var got []string
	for len(f.said) > 0 {
		got = append(got, <-f.said)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestFollowTellsEachChangeUntilItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, denied("jane", 2))
		f.expect(t, "reached", "changed jane to 2", "synced")
		foreign := denied("eve", 1)
		foreign.Spec.User.Name = "eve\x1b[31m"
		if err := f.client.Create(t.Context(), foreign); err != nil {
			t.Fatal(err)
		}
		f.expect(t, "changed eve\uFFFD[31m to 1") // printable
		foreign.Spec.Count = 3
		if err := f.client.Update(t.Context(), foreign); err != nil {
			t.Fatal(err)
		}
		f.expect(t, "changed eve\uFFFD[31m to 3")
		if err := f.client.Delete(t.Context(), foreign); err != nil {
			t.Fatal(err)
		}
		f.expect(t, "removed "+foreign.Name)
		f.end()
		if err := <-f.ended; err != nil {
			t.Errorf("got %v at the end, want nil", err)
		}
		f.expect(t)
	})
}

func TestFollowConnectsAgain(t *testing.T) {
	// The library's handler sleeps by the clock of the process, which is years ahead of a bubble's.
	handlers := slices.Clone(utilruntime.ErrorHandlers)
	defer copy(utilruntime.ErrorHandlers, handlers)
	for i := range handlers {
		utilruntime.ErrorHandlers[i] = func(context.Context, error, string, ...any) {}
	}
	synctest.Test(t, func(t *testing.T) {
		f := follow(t)
		f.expect(t, "reached", "synced")
		f.fails.Store(true)
		f.watching.Stop()
		time.Sleep(time.Minute)
		f.expect(t, "lost")
		if err := f.client.Create(t.Context(), denied("jane", 1)); err != nil {
			t.Fatal(err)
		}
		f.fails.Store(false)
		time.Sleep(time.Hour)
		f.expect(t, "reached", "changed jane to 1")
		f.end()
		<-f.ended
	})
}

func TestFollowReturnsTheFirstError(t *testing.T) {
	s := newStore(t, interceptor.Funcs{List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error {
		return errBroken
	}})
	if err := s.Follow(t.Context(), Follower{}); !errors.Is(err, errBroken) {
		t.Errorf("got %v, want %v", err, errBroken)
	}
}
