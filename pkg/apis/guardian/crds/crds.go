// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package crds holds the definitions of the guard's custom resources, as generated from their Go types. The chart installs
// a copy of them.
package crds

import "embed"

//go:generate sh -c "mkdir -p ../../../../charts/apigw-guardian/files/crds && cp *.yaml ../../../../charts/apigw-guardian/files/crds/"

//go:embed *.yaml
var files embed.FS

// Files returns one file for each custom resource.
func Files() embed.FS { return files }
