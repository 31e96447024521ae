// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package matchconditions compares the match conditions of the webhook configuration with the policy, through the API server's
// own CEL library. It contains no other code.
//
// It is a separate module: k8s.io/apiserver and its dependencies must not enter the product's go.mod.
package matchconditions
