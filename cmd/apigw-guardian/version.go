// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// version and commit are set by the linker; see the Makefile.
var (
	version = "dev"
	commit  = "unknown"
)

type versionInfo struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Go      string `json:"go"`
}

func newVersion() *cobra.Command {
	output := outputFlag{}
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print version, commit and Go version",
		Example: "  apigw-guardian version -o json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			info := versionInfo{Version: version, Commit: commit, Go: runtime.Version()}
			return output.print(cmd.OutOrStdout(), info, func(p *printer) {
				p.line("apigw-guardian " + fullVersion())
			})
		},
	}
	output.addTo(cmd)
	return cmd
}

func fullVersion() string {
	return fmt.Sprintf("%s (commit %s, %s)", version, commit, runtime.Version())
}
