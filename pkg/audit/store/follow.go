// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// Follower hears of records: Changed and Removed one call after the other, Synced and Reached beside them. The records are
// shared and must not be changed.
type Follower struct {
	// Changed is called for a record that is new, or counts more than before; for each record that is there, at first.
	Changed func(record *v1alpha1.AuditRecord)
	// Removed is called with the name of a record that retention, or somebody, has deleted. It may be nil.
	Removed func(name string)
	// Synced is called once, when every record that was there at first has been told. It may be nil.
	Synced func()
	// Reached is called with an error when the records cannot be read any more, at each try, and with nil when they can be
	// again. It may be nil.
	Reached func(err error)
}

// Follow tells the follower of every record, and of each that comes or changes, until ctx ends; a connection that breaks is
// made again. It returns nil when ctx ends, and an error if the records cannot be read at the start: it wraps
// ErrNotInstalled, or is the API server's.
func (s *Store) Follow(ctx context.Context, follower Follower) error {
	probe := &v1alpha1.AuditRecordList{}
	if err := s.client.List(ctx, probe, client.Limit(1)); err != nil {
		return explainRead("list", "audit records", err)
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: s.listWatch(follower),
		ObjectType:    &v1alpha1.AuditRecord{},
		Handler:       handlerOf(follower),
		Transform:     clean,
	})
	if follower.Synced != nil {
		go func() {
			if cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
				follower.Synced()
			}
		}()
	}
	informer.RunWithContext(ctx)
	return nil
}

func (s *Store) listWatch(follower Follower) *cache.ListWatch {
	reached := follower.Reached
	if reached == nil {
		reached = func(error) {}
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list := &v1alpha1.AuditRecordList{}
			err := s.client.List(ctx, list, &client.ListOptions{Raw: &options})
			if err != nil {
				err = explainRead("list", "audit records", err)
			}
			reached(err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			watching, err := s.client.Watch(ctx, &v1alpha1.AuditRecordList{}, &client.ListOptions{Raw: &options})
			if err != nil {
				err = explainRead("watch", "audit records", err)
			}
			reached(err)
			return watching, err
		},
	}
}

// clean makes what was read fit to be shown, before anybody hears of it.
func clean(object any) (any, error) {
	if record, ok := object.(*v1alpha1.AuditRecord); ok {
		audit.Clean(record)
	}
	return object, nil
}

func handlerOf(follower Follower) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { changed(follower, object) },
		UpdateFunc: func(_, object any) { changed(follower, object) },
		DeleteFunc: func(object any) {
			if last, isTombstone := object.(cache.DeletedFinalStateUnknown); isTombstone {
				object = last.Obj
			}
			if record, ok := object.(*v1alpha1.AuditRecord); ok && follower.Removed != nil {
				follower.Removed(record.Name)
			}
		},
	}
}

func changed(follower Follower, object any) {
	if record, ok := object.(*v1alpha1.AuditRecord); ok {
		follower.Changed(record)
	}
}
