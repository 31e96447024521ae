// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/apigw-guardian/apigw-guardian/certs"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/otlp"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/recorder"
	"github.com/apigw-guardian/apigw-guardian/pkg/drift"
	"github.com/apigw-guardian/apigw-guardian/pkg/guard"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
	"github.com/apigw-guardian/apigw-guardian/pkg/server"
	"github.com/apigw-guardian/apigw-guardian/pkg/tke"
	"github.com/apigw-guardian/apigw-guardian/pkg/webhook"
)

// The values of --certs and of --client-auth.
const (
	certsBuiltin      = "builtin"
	certsFiles        = "files"
	clientAuthRequire = "require"
	clientAuthRequest = "request"
)

// minSpool is the smallest volume of a spool.
const minSpool = 1 << 20

// webhookFlags are the flags of the server. Those that need no conversion are in options.
type webhookFlags struct {
	options           guard.Options
	url, service      string
	certs, clientAuth string
	logLevel          string
}

func newWebhook(shared *sharedFlags) *cobra.Command {
	flags := &webhookFlags{}
	cmd := &cobra.Command{
		Use:   "webhook",
		Short: "Guard the reserved resources: serve the admission webhook",
		Long: `webhook serves the admission webhook. Once it answers, it applies its webhook configuration, and repairs it whenever
another client deletes or edits it.

On SIGTERM it turns not ready, keeps serving for the drain period, and ends when every request has its answer.`,
		Example: `  # in a cluster, behind a Service
  apigw-guardian webhook --service apigw-guardian/apigw-guardian:443

  # on a workstation, with an API server on the same machine
  apigw-guardian webhook --listen 127.0.0.1:9443 --url https://127.0.0.1:9443`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return flags.run(cmd, shared) },
	}
	flags.addTo(cmd)
	return cmd
}

func newController(shared *sharedFlags) *cobra.Command {
	flags := &webhookFlags{options: guard.Options{Controller: true, SideDoors: policy.Off}}
	cmd := &cobra.Command{
		Use:   "controller",
		Short: "Look after the reserved resources while policies in the API server protect them",
		Long: `controller does what the leader of the webhook does, and serves no review: it restores a reserved resource that differs from
its manifest, proves that forbidden writes are denied, and publishes Reservations. Run one replica, with the policies of
"apigw-guardian policy". It honours no Unlock, as the policies do not.`,
		Example: "  apigw-guardian controller --drift heal",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return flags.run(cmd, shared) },
	}
	flags.addLeaderTo(cmd)
	return cmd
}

func (f *webhookFlags) run(cmd *cobra.Command, shared *sharedFlags) error {
	if err := f.check(cmd.ErrOrStderr()); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	guard.LimitMemory()
	guard.BridgeLogs(f.options.Log)
	var err error
	if f.options.Set, err = shared.set(); err != nil {
		return err
	}
	if err := f.checkExemptions(); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	config, err := shared.restConfig()
	if err != nil {
		return err
	}
	g, err := guard.New(config, f.options)
	if err != nil {
		return err
	}
	f.options.Log.Info("starting", slog.String("version", version), slog.String("mode", string(f.options.Mode)),
		slog.Int("reserved", len(f.options.Set.Resources())))
	return g.Run(cmd.Context())
}

func (f *webhookFlags) addTo(cmd *cobra.Command) {
	o, flags := &f.options, cmd.Flags()
	flags.StringVar(&o.Listen, "listen", ":9443", "address of the webhook, served over TLS")
	flags.StringVar(&f.url, "url", "", "address at which the API server calls the webhook: https://HOST:PORT (or set --service)")
	flags.StringVar(&f.service, "service", "", "Service at which the API server calls the webhook: NAMESPACE/NAME:PORT (or set --url)")
	choiceOf(&o.SideDoors, policy.Observe, policy.Enforce, policy.Off).addTo(cmd, "side-doors",
		"writes to other objects that use a reserved ServiceAccount or role: enforce denies them; observe allows them with a warning and a "+
			"record; off does not judge them")
	flags.DurationVar(&o.DrainPeriod, "drain-period", server.DefaultDrainPeriod, "time to keep serving after SIGTERM")
	flags.BoolVar(&o.LeaderElect, "leader-elect", false,
		"elect one of several replicas to apply the webhook configuration, so that two versions do not undo each other's changes")
	flags.StringSliceVar(&o.ControllerManagers, "controller-manager-user", []string{policy.DefaultControllerManager},
		"exact user names of the kube-controller-manager that fills token Secrets; cloud distributions rename it")
	flags.StringVar(&o.MessageHint, "message-hint", policy.DefaultHint,
		"second line of each denial, such as the page that says how to request a change; {unlock} becomes the unlock command; empty for none")
	flags.DurationVar(&o.Unlocks.MaxDuration.Duration, "unlock-max-duration", time.Hour,
		"max time from the creation of an unlock to its end; 0 allows no unlock")
	flags.BoolVar(&o.Unlocks.RequireApproval, "unlock-require-approval", false,
		"honour an unlock only after a user other than its requester has approved it")
	f.addLeaderTo(cmd)
	f.addCertificatesTo(cmd)
}

// addLeaderTo adds the flags of what a leader does, with or without the webhook.
func (f *webhookFlags) addLeaderTo(cmd *cobra.Command) {
	o, flags := &f.options, cmd.Flags()
	flags.StringVar(&o.ProbeListen, "probe-listen", ":8081", "address of /healthz and /readyz; 0 for none")
	flags.StringVar(&o.MetricsListen, "metrics-listen", ":8080", "address of /metrics; 0 for none")
	flags.StringVar(&o.Namespace, "namespace", guardian.Namespace, "namespace of the CA and the ConfigMaps of the guard")
	choiceOf(&o.Mode, policy.Enforce, policy.Observe).addTo(cmd, "mode",
		"enforce denies writes to reserved resources; observe allows them with a warning")
	flags.StringVar(&o.OwnerClusterRole, "owner-clusterrole", "",
		"ClusterRole that owns what the guard creates for the cluster, which is deleted with it; if it is deleted while the guard runs on, the "+
			"ClusterRole NAME-registration takes over (default none)")
	flags.BoolVar(&o.ApplyCRDs, "apply-crds", false,
		"apply the CustomResourceDefinitions of audit records, reservations and unlocks whenever this replica becomes the leader")
	choiceOf(&o.Drift.Mode, drift.ReportOnly, drift.Off, drift.Heal, drift.Authorize).addTo(cmd, "drift",
		"what the leader does about a reserved resource that differs from its manifest: off, report, heal (restore it), or authorize (also "+
			"create a set that was never authorized); with --mode observe, it only reports")
	flags.DurationVar(&o.Drift.ProofInterval, "proof-interval", 30*time.Second,
		"time between two forbidden writes, server dry-runs, by which the leader proves that they are denied; 0 for none")
	choiceOf(&f.logLevel, "info", "debug", "warn", "error").addTo(cmd, "log-level", "debug, info, warn or error")
	addNetworkTo(flags, &o.Network)
	addRecordsTo(cmd, &o.Records)
	addPushTo(flags, &o.Push)
}

func addNetworkTo(flags *pflag.FlagSet, network *guard.Network) {
	addCloudTo(flags, &network.Client)
	flags.DurationVar(&network.Interval, "tencent-cloud-interval", 10*time.Minute, "time between two calls of the TKE API")
}

func addCloudTo(flags *pflag.FlagSet, cloud *tke.Client) {
	flags.StringVar(&cloud.Credentials, "tencent-cloud-credentials", "", "directory of the files secretId and secretKey, with which it asks "+
		"Tencent Cloud whether private network access is enabled (default none: it does not ask)")
	flags.StringVar(&cloud.Region, "tencent-cloud-region", "", "region of the TKE cluster, such as ap-guangzhou")
	flags.StringVar(&cloud.Cluster, "tencent-cloud-cluster", "", "ID of the TKE cluster, such as cls-abcd1234")
	flags.StringVar(&cloud.Endpoint, "tencent-cloud-endpoint", tke.DefaultEndpoint, "host of the TKE API")
}

func addPushTo(flags *pflag.FlagSet, push *otlp.Options) {
	flags.StringVar(&push.Endpoint, "otlp-endpoint", "",
		"URL of an OpenTelemetry receiver, to which the leader sends records as logs over OTLP/HTTP: https://HOST:PORT (default none)")
	flags.StringVar(&push.Dir, "otlp-dir", "",
		"directory of files for --otlp-endpoint: headers (lines of NAME: VALUE), ca.crt, and tls.crt with tls.key; each is optional")
	flags.StringVar(&push.Origin.Cluster, "otlp-cluster-name", "", "with --otlp-endpoint: value of k8s.cluster.name in each log")
}

func addRecordsTo(cmd *cobra.Command, records *guard.Records) {
	flags := cmd.Flags()
	choiceOf(&records.Mode, recorder.Modes()...).addTo(cmd, "audit-mode",
		"blocking answers once the record is in the API server, durable once it is on the disk of --spool-dir, "+
			"batch once it is written there")
	flags.StringVar(&records.SpoolDir, "spool-dir", "",
		"directory of this replica alone for records while the API server is unavailable (default none: only the log has them)")
	flags.StringSliceVar(&records.ExtraKeys, "audit-user-extra", []string{audit.AllExtra},
		"keys of userInfo.extra that records keep; * for all that do not look like a credential; empty for none")
	records.SpoolVolume.Quantity = resource.MustParse("64Mi")
	flags.Var(&records.SpoolVolume, "spool-size",
		"size of the volume of --spool-dir; records fill half of it, as a compaction needs room")
	flags.DurationVar(&records.Retention.Age, "audit-retention", 90*24*time.Hour, "time to keep a record after its last write")
	flags.Int64Var(&records.Retention.Max, "audit-max-records", 10_000,
		"max number of records; those of the users and hours with the most records are deleted first")
}

func (f *webhookFlags) addCertificatesTo(cmd *cobra.Command) {
	c, flags := &f.options.Certificates, cmd.Flags()
	choiceOf(&f.certs, certsBuiltin, certsFiles).addTo(cmd, "certs",
		"builtin serves with a built-in CA that rotates; files serves with the certificate in --cert-dir")
	flags.StringVar(&c.Dir, "cert-dir", "", "with --certs files: directory of tls.crt, tls.key and ca.crt, read again when they change")
	flags.DurationVar(&c.CALifetime, "ca-lifetime", certs.DefaultCALifetime,
		"with --certs builtin: lifetime of a CA, which is rotated after two thirds")
	flags.DurationVar(&c.LeafLifetime, "leaf-lifetime", certs.DefaultLeafLifetime,
		"with --certs builtin: lifetime of a serving certificate, which is renewed after two thirds")
	flags.StringVar(&c.ClientCA, "client-ca", "",
		"file of the CAs that verify callers, read again when it changes (default none: every caller is answered)")
	choiceOf(&f.clientAuth, clientAuthRequire, clientAuthRequest).addTo(cmd, "client-auth",
		"with --client-ca: require refuses callers without a certificate; request answers them and records that they are not verified")
}

// check completes the options. Its errors name the flag.
func (f *webhookFlags) check(stderr io.Writer) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return err
	}
	f.options.Log = slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: level}))
	f.options.Registry = metrics.Registry
	f.options.Push.Origin.Version = version
	f.options.Certificates.ClientCertOptional = f.clientAuth == clientAuthRequest
	common := cmp.Or(f.checkLeader(), checkNetwork(f.options.Network), checkPush(f.options.Push), f.checkRecords())
	if f.options.Controller {
		return common
	}
	var err error
	f.options.Endpoint, err = f.endpoint()
	return cmp.Or(err, f.checkServing(), common, f.checkCertificates())
}

// checkExemptions refuses to heal where nothing records that an exemption allowed a write: the controller would revert it.
func (f *webhookFlags) checkExemptions() error {
	heals := f.options.Drift.Mode == drift.Heal || f.options.Drift.Mode == drift.Authorize
	if !f.options.Controller || !heals {
		return nil
	}
	for _, reservation := range f.options.Set.Reservations() {
		if len(reservation.Exemptions) > 0 {
			return fmt.Errorf("--drift %s: reservation %q has exemptions, and a policy records no use of one: set --drift report",
				f.options.Drift.Mode, reservation.Name)
		}
	}
	return nil
}

func (f *webhookFlags) checkLeader() error {
	if f.options.Drift.ProofInterval < 0 {
		return fmt.Errorf("--proof-interval %s: must not be negative", f.options.Drift.ProofInterval)
	}
	return nil
}

// maxHint bounds the hint: it is part of every denial.
const maxHint = 512

func (f *webhookFlags) checkServing() error {
	o := f.options
	isOneLine := len(o.MessageHint) <= maxHint && !strings.ContainsFunc(o.MessageHint, func(r rune) bool { return !unicode.IsPrint(r) })
	switch {
	case o.Listen == "":
		return errors.New("--listen: must not be empty")
	case o.Unlocks.MaxDuration.Duration < 0:
		return fmt.Errorf("--unlock-max-duration %s: must not be negative", o.Unlocks.MaxDuration.Duration)
	case o.DrainPeriod < 0:
		return fmt.Errorf("--drain-period %s: must not be negative", o.DrainPeriod)
	case !isOneLine:
		return fmt.Errorf("--message-hint %q: must be one printable line of at most %d bytes", o.MessageHint, maxHint)
	}
	return nil
}

func checkNetwork(network guard.Network) error {
	if network.Credentials != "" && network.Interval < time.Minute {
		return fmt.Errorf("--tencent-cloud-interval %s: must be at least 1m", network.Interval)
	}
	return checkCloud(network.Client)
}

func checkCloud(cloud tke.Client) error {
	switch {
	case cloud.Credentials == "" && cloud.Region+cloud.Cluster != "":
		return errors.New("--tencent-cloud-region and --tencent-cloud-cluster: set --tencent-cloud-credentials to the directory of an API key")
	case cloud.Credentials == "":
	case cloud.Region == "":
		return errors.New("--tencent-cloud-credentials: set --tencent-cloud-region to the region of the cluster")
	case cloud.Cluster == "":
		return errors.New("--tencent-cloud-credentials: set --tencent-cloud-cluster to the ID of the cluster")
	}
	return nil
}

func checkPush(push otlp.Options) error {
	if push.Endpoint == "" {
		if push.Dir != "" || push.Origin.Cluster != "" {
			return errors.New("--otlp-dir and --otlp-cluster-name: set --otlp-endpoint too")
		}
		return nil
	}
	if _, err := otlp.Endpoint(push.Endpoint); err != nil {
		return fmt.Errorf("--otlp-endpoint %q: %w", push.Endpoint, err)
	}
	return nil
}

func (f *webhookFlags) checkRecords() error {
	records := f.options.Records
	switch {
	case records.Mode.NeedsSpool() && records.SpoolDir == "":
		return fmt.Errorf("--audit-mode %s: set --spool-dir, as an answer waits until its record is in the spool", records.Mode)
	case records.SpoolVolume.Value() < minSpool:
		return fmt.Errorf("--spool-size %s: must be at least 1Mi", records.SpoolVolume.String())
	case records.Retention.Age <= 0:
		return fmt.Errorf("--audit-retention %s: must be above zero", records.Retention.Age)
	case records.Retention.Max <= 0:
		return fmt.Errorf("--audit-max-records %d: must be above zero", records.Retention.Max)
	}
	return nil
}

func (f *webhookFlags) checkCertificates() error {
	c := f.options.Certificates
	switch {
	case f.certs == certsFiles && c.Dir == "":
		return errors.New("--certs files: set --cert-dir, the directory of tls.crt, tls.key and ca.crt")
	case f.certs == certsBuiltin && c.Dir != "":
		return errors.New("--cert-dir: set --certs files too, as the built-in CA reads no files")
	case f.clientAuth == clientAuthRequest && c.ClientCA == "":
		return errors.New("--client-auth request: set --client-ca, the file of the CAs that verify callers")
	case c.CALifetime < certs.MinLifetime:
		return fmt.Errorf("--ca-lifetime %s: must be at least %s", c.CALifetime, certs.MinLifetime)
	case c.LeafLifetime < certs.MinLifetime:
		return fmt.Errorf("--leaf-lifetime %s: must be at least %s", c.LeafLifetime, certs.MinLifetime)
	case c.LeafLifetime > c.CALifetime:
		return fmt.Errorf("--leaf-lifetime %s: must not be above --ca-lifetime %s, as a certificate never outlives its CA",
			c.LeafLifetime, c.CALifetime)
	}
	return nil
}

func (f *webhookFlags) endpoint() (registration.Endpoint, error) {
	switch {
	case f.url != "" && f.service != "":
		return registration.Endpoint{}, errors.New("--url and --service are both given: set one of them")
	case f.url != "":
		return registration.URLEndpoint(f.url, webhook.Path)
	case f.service != "":
		return registration.ServiceEndpoint(f.service, webhook.Path)
	default:
		return registration.Endpoint{}, errors.New("set --service or --url, the address at which the API server calls the webhook")
	}
}
