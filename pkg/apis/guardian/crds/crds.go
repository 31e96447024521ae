// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package crds holds the definitions of the guard's custom resources, as generated from their Go types. The leader
// applies them, and the chart has a copy.
package crds

import "embed"

//go:embed *.yaml
var files embed.FS

// Files returns one file for each custom resource.
func Files() embed.FS { return files }
