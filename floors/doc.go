// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package floors holds the tests that limit the imports of each package of the module, and the tests of the documents. A
// package imports packages of lower layers only. A forbidden import is reported with the reason of the rule.
package floors
