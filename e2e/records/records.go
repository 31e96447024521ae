// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package records puts audit records into a cluster, for tests and benchmarks of their review.
package records

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/client-go/rest"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// writers is how many records are written at a time.
const writers = 16

// Fill stores so many records, as the guard does, one a minute and the last of them now: by 200 users, on five resources.
func Fill(ctx context.Context, config *rest.Config, count int) error {
	now := time.Now()
	all := make([]*v1alpha1.AuditRecord, count)
	for i := range all {
		all[i] = numbered(i, now.Add(-time.Duration(count-1-i)*time.Minute))
	}
	return Store(ctx, config, all...)
}

// Store stores the records as the guard does.
func Store(ctx context.Context, config *rest.Config, records ...*v1alpha1.AuditRecord) error {
	store, err := store.New(config)
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	failures := make([]error, writers)
	for writer := range writers {
		group.Go(func() {
			for i := writer; i < len(records) && failures[writer] == nil; i += writers {
				_, failures[writer] = store.Merge(ctx, records[i], nil)
			}
		})
	}
	group.Wait()
	return errors.Join(failures...)
}

func numbered(i int, at time.Time) *v1alpha1.AuditRecord {
	fact := audit.Event{
		Time:       at,
		RequestUID: fmt.Sprintf("9b1deb4d-3b7d-4bad-9bdd-%012d", i),
		Outcome:    v1alpha1.Denied,
		Operation:  reserved.Operations()[i%3],
		Object: v1alpha1.ObjectReference{
			Resource: "secrets", Namespace: "kube-system", Name: fmt.Sprintf("apigw-ingress-token-%d", i%5),
		},
		Reason:  string(policy.ReservedUpdate),
		Message: fmt.Sprintf("Secret \"apigw-ingress-token-%d\" is reserved by API Gateway and must not be updated.", i%5),
		Changed: []string{"data.token", fmt.Sprintf("metadata.labels.n%d", i)},
		User: v1alpha1.User{
			Name: fmt.Sprintf("system:serviceaccount:team-%d:deployer", i%200), UID: "6e8bc430-9c3a-11d9-9669-0800200c9a66",
			Groups: []string{"system:serviceaccounts", fmt.Sprintf("system:serviceaccounts:team-%d", i%200), "system:authenticated"},
		},
		Caller: v1alpha1.CallerVerified,
		Source: v1alpha1.SourceGuard,
	}
	return Of(&fact, int64(1+i%50))
}

// Of is the record of an event that one replica has counted count times.
func Of(fact *audit.Event, count int64) *v1alpha1.AuditRecord {
	return fact.Record("apigw-guardian-0.fill", count)
}
