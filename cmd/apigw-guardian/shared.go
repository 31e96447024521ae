// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	goflag "flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // kubectl accepts kubeconfigs with an auth-provider
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/jsonpath"
	"k8s.io/klog/v2"
	"sigs.k8s.io/yaml"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/terminal"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// firstContact is the default time limit of a command's first request.
const firstContact = 10 * time.Second

// sharedFlags are those of every command. Kubernetes' own follow kubectl.
type sharedFlags struct {
	loading      *clientcmd.ClientConfigLoadingRules
	overrides    clientcmd.ConfigOverrides
	reservations string
	// timeout is how long requests are repeated that the API server does not answer; stderr returns where that is said.
	timeout time.Duration
	stderr  func() io.Writer
}

func (f *sharedFlags) addTo(flags *pflag.FlagSet) {
	f.loading = clientcmd.NewDefaultClientConfigLoadingRules()
	flags.StringVar(&f.loading.ExplicitPath, "kubeconfig", "",
		"path of the kubeconfig file (default $KUBECONFIG, ~/.kube/config, or the Pod's ServiceAccount)")
	names := clientcmd.RecommendedConfigOverrideFlags("")
	none := clientcmd.FlagInfo{}
	// Commands have a namespace of their own; API servers do not accept passwords.
	names.ContextOverrideFlags.Namespace = none
	names.AuthOverrideFlags.Username, names.AuthOverrideFlags.Password = none, none
	names.ClusterOverrideFlags.APIServer.ShortName = "s"
	names.Timeout.Description = "time limit for each request to the API server, such as 5s; 0 for none, but 10s for the first"
	clientcmd.BindOverrideFlags(&f.overrides, flags, names)
	verbosity := goflag.NewFlagSet("", goflag.ContinueOnError)
	klog.InitFlags(verbosity)
	flags.AddGoFlag(verbosity.Lookup("v")) // -v=6 shows the requests, as in kubectl
	flags.StringVar(&f.reservations, "reservations", "", "directory of further reservation files (default those of the installed chart)")
}

// restConfig returns the client configuration of the kubeconfig and the flags, or of the Pod's ServiceAccount.
func (f *sharedFlags) restConfig() (*rest.Config, error) {
	if text := f.overrides.Timeout; text != "" {
		if limit, err := clientcmd.ParseTimeout(text); err != nil || limit < 0 {
			return nil, fmt.Errorf("--request-timeout %q: must be a duration such as 5s, or 0 for no limit", text)
		}
	}
	config, err := f.clientConfig().ClientConfig()
	if err != nil {
		hint := ": set --kubeconfig or $KUBECONFIG"
		switch {
		case f.overrides.Context.AuthInfo != "":
			hint = ": --user is a user of the kubeconfig; records are filtered by --by-user"
		case clientcmd.IsConfigurationInvalid(err) && !clientcmd.IsEmptyConfig(err):
			hint = "" // the error names the flag or entry
		}
		return nil, fmt.Errorf("load the client configuration: %w%s", err, hint)
	}
	config.UserAgent = guardian.Name
	if f.timeout > 0 {
		config.Wrap(f.retrying())
	}
	return config, nil
}

func (f *sharedFlags) clientConfig() clientcmd.ClientConfig {
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(f.loading, &f.overrides)
}

// cluster connects to the cluster, which must answer in time, and loads the reserved set. namespace is the guard's; "" for none.
func (f *sharedFlags) cluster(ctx context.Context, namespace string) (live.Cluster, error) {
	set, err := f.set()
	if err != nil {
		return live.Cluster{}, err
	}
	return f.connect(ctx, set, namespace)
}

// connect connects to an API server that answers in time. It then replaces a set by the installed one, unless --reservations is given.
func (f *sharedFlags) connect(ctx context.Context, set *reserved.Set, namespace string) (live.Cluster, error) {
	config, err := f.restConfig()
	if err != nil {
		return live.Cluster{}, err
	}
	cluster, err := live.Connect(config, set, namespace)
	if err != nil {
		return live.Cluster{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(config.Timeout, firstContact)+f.timeout)
	defer cancel()
	_, err = cluster.Version(ctx)
	if answer := apierrors.APIStatus(nil); err != nil && !errors.As(err, &answer) { // a refusal is an answer
		return live.Cluster{}, fmt.Errorf("%w: check --server, --context and the network, or raise --request-timeout", err)
	}
	if set != nil && f.reservations == "" {
		cluster.Set, err = installedSet(ctx, cluster)
		return cluster, err
	}
	return cluster, nil
}

// contactedConfig returns the configuration of a client whose API server has answered in time.
func (f *sharedFlags) contactedConfig(ctx context.Context) (*rest.Config, error) {
	cluster, err := f.connect(ctx, nil, "")
	return cluster.Config, err
}

// installedSet returns the set that the chart gives to the guard. It is the built-in one if the chart has made no ConfigMap of
// reservations, or if the caller may not read it.
func installedSet(ctx context.Context, cluster live.Cluster) (*reserved.Set, error) {
	const name = guardian.Name + "-reservations"
	namespace := guardian.Namespace
	if registered, err := cluster.WebhookConfiguration(ctx); err == nil && registered != nil && len(registered.Webhooks) > 0 {
		if service := registered.Webhooks[0].ClientConfig.Service; service != nil {
			namespace = service.Namespace
		}
	}
	files, err := cluster.Client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return cluster.Set, nil //nolint:nilerr // see above
	}
	return checked(reserved.LoadFiles(fmt.Sprintf("configmap %s/%s", namespace, name), files.Data))
}

// clusterName names the cluster: "prod (https://10.0.0.1:6443)"; the address if there is no context, as in a Pod.
func (f *sharedFlags) clusterName(config *rest.Config) string {
	name := f.overrides.CurrentContext
	if raw, err := f.clientConfig().RawConfig(); err == nil && name == "" {
		name = raw.CurrentContext
	}
	if name == "" {
		return config.Host
	}
	return fmt.Sprintf("%s (%s)", name, config.Host)
}

func (f *sharedFlags) set() (*reserved.Set, error) {
	return checked(reserved.Load(f.reservations))
}

// checked returns an error for a set that cannot be loaded, or that needs a webhook configuration that is too large.
func checked(set *reserved.Set, err error) (*reserved.Set, error) {
	if err == nil {
		err = registration.Check(set)
	}
	if err != nil {
		return nil, fmt.Errorf("load the reservations: %w", err)
	}
	return set, nil
}

// ownersOf names the owners of the reservations: "API Gateway and Edge Router".
func ownersOf(set *reserved.Set) string {
	var names []string
	for _, reservation := range set.Reservations() {
		if !slices.Contains(names, reservation.Owner) {
			names = append(names, reservation.Owner)
		}
	}
	return strings.Join(names, " and ")
}

// Output formats.
const (
	formatTable = "table"
	formatJSON  = "json"
	formatYAML  = "yaml"
	formatWide  = "wide"
	formatCSV   = "csv"
	formatName  = "name"

	jsonPathPrefix = "jsonpath="
)

// choice is the value of a flag that takes one of some words, in any case.
type choice[T ~string] struct {
	value *T
	words []T
}

// choiceOf makes the first word the default.
func choiceOf[T ~string](value *T, words ...T) choice[T] {
	*value = words[0]
	return choice[T]{value, words}
}

// addTo adds the flag, and completes it.
func (c choice[T]) addTo(cmd *cobra.Command, flag, usage string) {
	cmd.Flags().Var(c, flag, usage)
	complete(cmd, flag, texts(c.words)...)
}

func (c choice[T]) String() string { return string(*c.value) }
func (c choice[T]) Type() string   { return "string" } // so that the help quotes the default

func (c choice[T]) Set(text string) error {
	at := slices.IndexFunc(c.words, func(word T) bool { return strings.EqualFold(string(word), text) })
	if at < 0 {
		return errors.New("must be " + oneOf(texts(c.words)))
	}
	*c.value = c.words[at]
	return nil
}

type outputFlag struct {
	format string
	// more are the command's formats besides table, json, yaml, jsonpath and custom-columns.
	more []string
	// template prints the fields of a result by jsonpath or custom-columns; nil for the other formats.
	template func(io.Writer, any) error
	// noHeaders leaves the titles of columns out.
	noHeaders bool
}

// addTo makes formatTable the default.
func (f *outputFlag) addTo(cmd *cobra.Command) {
	f.format = formatTable
	cmd.Flags().VarP(f, "output", "o", "output format: "+f.choice())
	complete(cmd, "output", append([]string{formatTable, formatJSON, formatYAML, jsonPathPrefix, columnsPrefix}, f.more...)...)
}

func (f *outputFlag) choice() string {
	return oneOf(slices.Concat([]string{formatTable, formatJSON, formatYAML}, f.more, []string{
		"a template: " + jsonPathPrefix + "{.PATH} or " + columnsPrefix + "HEADER:PATH,...",
	}))
}

func (f *outputFlag) String() string { return f.format }
func (f *outputFlag) Type() string   { return "format" }

func (f *outputFlag) Set(format string) error {
	if template, found := strings.CutPrefix(format, jsonPathPrefix); found {
		if template == "" {
			return errors.New("jsonpath needs a template, such as {.items[*].metadata.name}")
		}
		if !strings.Contains(template, "{") { // as kubectl does
			template = "{." + strings.TrimPrefix(template, ".") + "}"
		}
		path := jsonpath.New("output").AllowMissingKeys(true)
		f.format, f.template = format, path.Execute
		return path.Parse(template)
	}
	if spec, found := strings.CutPrefix(format, columnsPrefix); found {
		columns, err := newColumns(spec)
		if err == nil {
			f.format = format
			f.template = func(w io.Writer, fields any) error {
				if f.noHeaders {
					columns.headers = nil
				}
				return columns.print(w, fields)
			}
		}
		return err
	}
	if !slices.Contains(append(f.more, formatTable, formatJSON, formatYAML), format) {
		return errors.New("must be " + f.choice())
	}
	f.format, f.template = format, nil
	return nil
}

// oneOf names a choice: "table, json or yaml".
func oneOf(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// print writes a result: its fields as JSON, YAML or through a template, or what table prints.
func (f *outputFlag) print(w io.Writer, result any, table func(*printer)) error {
	if f.template == nil && f.format != formatJSON && f.format != formatYAML {
		p := &printer{tabs: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
		table(p)
		return errors.Join(p.err, p.tabs.Flush())
	}
	data, err := json.MarshalIndent(result, "", "  ")
	switch {
	case err != nil:
	case f.template != nil:
		var fields any // so that paths are those of -o json; this reader keeps whole numbers whole
		if err = utiljson.Unmarshal(data, &fields); err == nil {
			return f.template(w, fields)
		}
	case f.format == formatYAML:
		data, err = yaml.JSONToYAML(data)
	default:
		data = append(data, '\n')
	}
	if err == nil {
		_, err = w.Write(data)
	}
	if err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// printer writes lines and aligned rows, and keeps the first error.
type printer struct {
	tabs *tabwriter.Writer
	err  error
}

// line writes text that is not part of a table. Names of objects, such as of bindings, may have characters that control a terminal.
func (p *printer) line(text string) {
	shown := strings.Map(func(r rune) rune {
		if r != '\t' && r != '\n' && !unicode.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, text)
	_, err := fmt.Fprintln(p.tabs, shown)
	p.err = errors.Join(p.err, err)
}

func (p *printer) linef(format string, args ...any) { p.line(fmt.Sprintf(format, args...)) }

// row writes one row of a table; columns align with those of the adjacent rows.
func (p *printer) row(cells ...string) { p.line(strings.Join(cells, "\t")) }

// clock formats a time for people and scripts.
func clock(at interface{ UTC() time.Time }) string { return at.UTC().Format(time.RFC3339) }

// say writes one line. It ignores errors: a command does not fail because its reader has gone.
func say(w io.Writer, line string) { _, _ = fmt.Fprintln(w, line) }

// output is the program's standard output. It remembers that its reader has closed the pipe, which is not a failure.
type output struct {
	writer io.Writer
	closed atomic.Bool
}

func (o *output) Write(data []byte) (int, error) {
	n, err := o.writer.Write(data)
	if errors.Is(err, syscall.EPIPE) {
		o.closed.Store(true)
	}
	return n, err
}

// defaultWidth is for a terminal that does not report its width.
const defaultWidth = 80

func screenOf(w io.Writer) terminal.Screen {
	screen := terminal.Screen{Now: time.Now(), Place: time.Local}
	if out, isOutput := w.(*output); isOutput {
		w = out.writer
	}
	file, isFile := w.(*os.File)
	if !isFile || !term.IsTerminal(int(file.Fd())) {
		return screen
	}
	screen.Width = defaultWidth
	if width, _, err := term.GetSize(int(file.Fd())); err == nil && width > 0 {
		screen.Width = width
	}
	// https://no-color.org
	screen.Colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return screen
}
