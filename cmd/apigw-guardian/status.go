// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/apigw-guardian/apigw-guardian/pkg/authorize"
)

func newStatus(shared *sharedFlags) *cobra.Command {
	output := outputFlag{format: formatTable}
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell whether API Gateway is authorized and what it reserves is protected",
		Long: `status looks at the reserved resources and tries a forbidden write to each, as a server dry-run; it changes nothing.
It exits 3 unless all are authorized and protected, and denials can be recorded as far as the caller may know.`,
		Example: `  apigw-guardian status
  apigw-guardian status -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			authorizer, owners, err := shared.authorizer("")
			if err != nil {
				return err
			}
			status, err := authorizer.Status(cmd.Context())
			if err != nil {
				return err
			}
			err = output.print(cmd.OutOrStdout(), status, func(p *printer) { printStatus(p, status, owners) })
			if err == nil && !(status.Authorized && status.Protected && isRecorded(status)) {
				return errNotAsItShould
			}
			return err
		},
	}
	output.addTo(cmd)
	return cmd
}

func printStatus(p *printer, status authorize.Status, owners string) {
	if status.Authorized {
		p.line("Authorized " + owners)
	} else {
		p.line("Not authorized: " + owners)
	}
	if status.Protected {
		p.line("Protected")
	} else {
		p.line("Not protected")
	}
	if !isRecorded(status) {
		p.line("Not recorded")
	}
	for _, reason := range status.Reasons {
		p.line("  " + reason)
	}
	for _, drift := range status.Drift {
		p.line(fmt.Sprintf("Drift: %s: %s", drift.Resource, strings.Join(drift.Paths, ", ")))
	}
	p.line(fmt.Sprintf("Private network access: %s (%s)", status.PrivateNetwork, status.PrivateNetworkSentence))
	p.line("Denials in the last 24 h: " + denials(status))
	printCertificates(p, status.Certificates)
}

// isRecorded is false only where it is known.
func isRecorded(status authorize.Status) bool { return status.Recorded == nil || *status.Recorded }

func printCertificates(p *printer, certificates authorize.Certificates) {
	if certificates.NotAfter != nil {
		p.line("Certificate authority: until " + certificates.NotAfter.Format(time.RFC3339))
	}
	for _, problem := range certificates.Problems {
		p.line("  " + problem)
	}
}

func denials(status authorize.Status) string {
	if status.Denials24h == nil {
		return "not known (" + status.DenialsSentence + ")"
	}
	return strconv.FormatInt(*status.Denials24h, 10)
}
