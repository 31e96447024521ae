// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package floors holds the tests that keep the module's packages on their floors: each may import those on lower floors
// only, and the lower a package stands, the less of the outside world it may know. A forbidden import is reported with its
// reason. It has no code of its own.
package floors
