// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package matchconditions compares the match conditions of the webhook configuration with the policy, through the API server's
// own CEL library. It has no code of its own.
//
// It is a module of its own: k8s.io/apiserver and what it depends on must not enter the go.mod of the product.
package matchconditions
