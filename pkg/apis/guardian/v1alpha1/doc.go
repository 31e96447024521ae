// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 holds the custom resources of the guard.
//
// +kubebuilder:object:generate=true
// +groupName=guardian.apigw.io
package v1alpha1

//go:generate sh -c "$(../../../../tools/install controller-gen) object:headerFile=boilerplate.txt crd:headerFile=boilerplate.yaml.txt paths=. output:crd:dir=../crds"
//go:generate sh -c "cp ../crds/*.yaml ../../../../charts/apigw-guardian/files/crds/"
