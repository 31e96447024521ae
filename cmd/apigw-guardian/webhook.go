// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
	"github.com/apigw-guardian/apigw-guardian/pkg/server"
	"github.com/apigw-guardian/apigw-guardian/pkg/webhook"
)

// webhookFlags are the flags of the server.
type webhookFlags struct {
	listen, probeListen, metricsListen string
	url, service                       string
	namespace                          string
	mode                               string
	drainPeriod                        time.Duration
	leaderElect                        bool
	ownerClusterRole                   string
	controllerManagers                 []string
	messageHint                        string
	logLevel                           string
	recording                          recordingFlags
	certificates                       certificateFlags
}

func newWebhook(shared *sharedFlags) *cobra.Command {
	flags := &webhookFlags{}
	cmd := &cobra.Command{
		Use:   "webhook",
		Short: "Guard the reserved resources: serve the admission webhook",
		Long: `webhook serves the admission webhook. Once it answers, it registers itself with the API server, and puts the
registration back whenever somebody deletes or edits it.

On SIGTERM it turns not ready, goes on serving for the drain period, and ends when every answer is out.`,
		Example: `  # in a cluster, behind a Service
  apigw-guardian webhook --service apigw-guardian/apigw-guardian:443

  # on a workstation, with an API server on the same machine
  apigw-guardian webhook --listen 127.0.0.1:9443 --url https://127.0.0.1:9443`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := flags.settings(cmd.ErrOrStderr())
			if err != nil {
				return fmt.Errorf("%w: %w", errUsage, err)
			}
			limitMemory()
			g, err := newGuard(shared, settings)
			if err != nil {
				return err
			}
			return g.run(cmd.Context())
		},
	}
	flags.addTo(cmd.Flags())
	return cmd
}

func (f *webhookFlags) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&f.listen, "listen", ":9443", "address that serves the webhook over TLS")
	flags.StringVar(&f.probeListen, "probe-listen", ":8081", "address of /healthz and /readyz; 0 for none")
	flags.StringVar(&f.metricsListen, "metrics-listen", ":8080", "address of /metrics; 0 for none")
	flags.StringVar(&f.url, "url", "", "how the API server reaches the webhook: https://HOST:PORT (or give --service)")
	flags.StringVar(&f.service, "service", "", "how the API server reaches the webhook: NAMESPACE/NAME:PORT (or give --url)")
	flags.StringVar(&f.namespace, "namespace", guardian.WebhookConfiguration,
		"namespace of the Secret that holds the certificate authority; it is created if it does not exist")
	flags.StringVar(&f.mode, "mode", string(policy.Enforce),
		"enforce: deny writes to reserved resources; observe: let them pass with a warning")
	flags.DurationVar(&f.drainPeriod, "drain-period", server.DefaultDrainPeriod,
		"how long to go on serving after SIGTERM, until every API server has noticed")
	flags.BoolVar(&f.leaderElect, "leader-elect", false,
		"with several replicas: let only one of them keep the registration, so that two versions do not undo each other's")
	flags.StringVar(&f.ownerClusterRole, "owner-clusterrole", "",
		"name of the ClusterRole that owns the registration: with it, the registration goes, and is not put back")
	flags.StringSliceVar(&f.controllerManagers, "controller-manager-user", []string{policy.DefaultControllerManager},
		"exact user name of the kube-controller-manager that fills token Secrets; cloud distributions rename it")
	flags.StringVar(&f.messageHint, "message-hint", "",
		"second line of each denial, such as the page that says how to request a change (default none)")
	flags.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	f.recording.addTo(flags)
	f.certificates.addTo(flags)
}

// settings are the flags, checked.
type settings struct {
	flags    webhookFlags
	endpoint registration.Endpoint
	mode     policy.Mode
	log      *slog.Logger
}

func (f *webhookFlags) settings(stderr io.Writer) (*settings, error) {
	endpoint, err := f.endpoint()
	if err != nil {
		return nil, err
	}
	mode := policy.Mode(f.mode)
	if mode != policy.Enforce && mode != policy.Observe {
		return nil, fmt.Errorf("--mode %q: give enforce or observe", f.mode)
	}
	if f.drainPeriod < 0 {
		return nil, fmt.Errorf("--drain-period %s: give no time, or some", f.drainPeriod)
	}
	if !isOneLine(f.messageHint) {
		return nil, fmt.Errorf("--message-hint %q: must be one printable line of at most %d bytes", f.messageHint, maxHint)
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, fmt.Errorf("--log-level %q: give debug, info, warn or error", f.logLevel)
	}
	if err := f.recording.check(); err != nil {
		return nil, err
	}
	if err := f.certificates.check(); err != nil {
		return nil, err
	}
	log := slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: level}))
	return &settings{flags: *f, endpoint: endpoint, mode: mode, log: log}, nil
}

// maxHint bounds the hint: it is part of every denial.
const maxHint = 512

func isOneLine(text string) bool {
	return len(text) <= maxHint && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

func (f *webhookFlags) endpoint() (registration.Endpoint, error) {
	switch {
	case f.url != "" && f.service != "":
		return registration.Endpoint{}, fmt.Errorf("--url and --service are both given: the API server takes one way")
	case f.url != "":
		return registration.URLEndpoint(f.url, webhook.Path)
	case f.service != "":
		return registration.ServiceEndpoint(f.service, webhook.Path)
	default:
		return registration.Endpoint{}, fmt.Errorf("how does the API server reach the webhook? Give --service or --url")
	}
}
