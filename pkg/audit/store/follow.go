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

// Follower receives records. All functions are required. Changed and Removed are called one after the other, Synced and
// Reached concurrently with them. The records are shared and must not be changed.
type Follower struct {
	// Changed is called with each record at first, and then with each that is new or counts more.
	Changed func(record *v1alpha1.AuditRecord)
	// Removed is called with the name of a deleted record.
	Removed func(name string)
	// Synced is called once, after Changed was called with the records that existed at first.
	Synced func()
	// Reached is called after each call of the API server, with its error or nil.
	Reached func(err error)
}

// Follow reports every record and each change until ctx ends, and reconnects. It returns nil then, or an error of the first read.
func (s *Store) Follow(ctx context.Context, follower Follower) error {
	if err := s.client.List(ctx, &v1alpha1.AuditRecordList{}, client.Limit(1)); err != nil {
		return explainRead("list", "audit records", err)
	}
	changed := func(object any) {
		if record, ok := object.(*v1alpha1.AuditRecord); ok {
			follower.Changed(record)
		}
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: s.listWatch(follower.Reached),
		ObjectType:    &v1alpha1.AuditRecord{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    changed,
			UpdateFunc: func(_, object any) { changed(object) },
			DeleteFunc: func(object any) {
				if name, err := cache.DeletionHandlingMetaNamespaceKeyFunc(object); err == nil {
					follower.Removed(name)
				}
			},
		},
		Transform: func(object any) (any, error) {
			if record, ok := object.(*v1alpha1.AuditRecord); ok {
				audit.Clean(record)
			}
			return object, nil
		},
	})
	go func() {
		if cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			follower.Synced()
		}
	}()
	informer.RunWithContext(ctx)
	return nil
}

func (s *Store) listWatch(reached func(error)) *cache.ListWatch {
	report := func(verb string, err error) error {
		if err != nil {
			err = explainRead(verb, "audit records", err)
		}
		reached(err)
		return err
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list := &v1alpha1.AuditRecordList{}
			return list, report("list", s.client.List(ctx, list, &client.ListOptions{Raw: &options}))
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			watching, err := s.client.Watch(ctx, &v1alpha1.AuditRecordList{}, &client.ListOptions{Raw: &options})
			return watching, report("watch", err)
		},
	}
}
