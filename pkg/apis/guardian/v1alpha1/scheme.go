// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

// Group is the API group of all custom resources of the guard, and Version its version here.
const (
	Group   = guardian.Group
	Version = "v1alpha1"
)

// GroupVersion returns the group and version of this package.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: Group, Version: Version}
}

// AddToScheme makes the types of this package known to a scheme. It never fails; the error is what callers expect.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion(), &AuditRecord{}, &AuditRecordList{}, &Unlock{}, &UnlockList{})
	metav1.AddToGroupVersion(scheme, GroupVersion())
	return nil
}
