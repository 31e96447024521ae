// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"html"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/web"
	"github.com/apigw-guardian/apigw-guardian/pkg/guard"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
	"github.com/apigw-guardian/apigw-guardian/pkg/unlock"
)

const maxPort = 65535

type webFlags struct {
	shared *sharedFlags
	port   int
	// namespace is the guard's.
	namespace string
	open      bool
}

// silenceLibraries keeps the errors of the libraries from the terminal: the page shows them. Their logger is the process's, and a test
// runs the command more than once.
var silenceLibraries = sync.OnceFunc(func() { guard.BridgeLogs(slog.New(slog.DiscardHandler)) }) //nolint:gochecknoglobals // see above

func newAuditWeb(shared *sharedFlags) *cobra.Command {
	serving, several := webFlags{shared: shared}, fleet{}
	cmd := &cobra.Command{
		Use:   "web",
		Short: "Review the recorded requests in a browser",
		Long: `web serves a page with the audit records on this machine's loopback address, until Ctrl-C. It reads them with your
permissions, and changes nothing. The address has a random token: without it, the page cannot be read. With --contexts or
--all-contexts, the page has the records of several clusters. A cluster that cannot be read is named there, and tried again.`,
		Example: `  apigw-guardian audit web --open
  apigw-guardian audit web --contexts prod-1,prod-2

  # on another machine, through a tunnel
  ssh -L 8087:127.0.0.1:8087 admin-host apigw-guardian audit web --port 8087`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if serving.port < 0 || serving.port > maxPort {
				return fmt.Errorf("%w: --port %d: must be 1-%d, or 0 to pick a free port", errUsage, serving.port, maxPort)
			}
			silenceLibraries()
			if several.isSet() {
				return serving.runFleet(cmd, &several)
			}
			return serving.run(cmd)
		},
	}
	cmd.Flags().IntVar(&serving.port, "port", 0, "port on 127.0.0.1, or 0 to pick a free one")
	cmd.Flags().StringVarP(&serving.namespace, "namespace", "n", guardian.Namespace, "namespace of the guard")
	cmd.Flags().BoolVar(&serving.open, "open", false, "open the page in the browser")
	several.addTo(cmd, shared, nil, fleetLimit)
	return cmd
}

// run serves until the command's context ends. If serving or reading the records fails, it ends both.
func (f webFlags) run(cmd *cobra.Command) error {
	config, err := f.shared.restConfig()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	listener, err := f.listen(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }() // Serve closes it too
	feed, synced, followed := web.NewFeed(), make(chan struct{}), make(chan error, 1)
	go func() { followed <- f.follow(ctx, feed.Source(0), func() { close(synced) }) }()
	select {
	case err := <-followed:
		if ctx.Err() != nil {
			return nil // Ctrl-C is no failure
		}
		return err
	case <-synced:
	}
	err = f.serve(ctx, cmd, listener, web.New(feed, f.shared.clusterName(config)))
	cancel()
	return errors.Join(err, <-followed)
}

// runFleet serves the records of several contexts until the command's context ends. It is an error if none can be read at first.
func (f webFlags) runFleet(cmd *cobra.Command, several *fleet) error {
	names, err := several.names()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	listener, err := f.listen(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }() // Serve closes it too
	feed := web.NewFeed(names...)
	problems := make([]string, len(names))
	var group sync.WaitGroup
	for i, name := range names {
		group.Go(func() {
			one := f
			one.shared = f.shared.of(name)
			if err := one.followFor(ctx, several, feed.Source(i)); err != nil {
				problems[i] = text.Printable(strings.ReplaceAll(err.Error(), "\n", " "), maxProblem)
			}
		})
	}
	group.Wait()
	if ctx.Err() != nil {
		return nil // Ctrl-C is no failure
	}
	failed := 0
	for i, problem := range problems {
		if problem != "" {
			failed++
			say(cmd.ErrOrStderr(), names[i]+"  Error: "+problem)
		}
	}
	if failed == len(names) {
		return fmt.Errorf("%d of %d contexts could not be read", failed, len(names))
	}
	title := strings.Join(names, ", ")
	if len(names) > maxNamed {
		title = fmt.Sprintf("%d clusters", len(names))
	}
	return f.serve(ctx, cmd, listener, web.New(feed, title))
}

const (
	// maxNamed is how many clusters the title of the page names.
	maxNamed = 4
	// followInterval is the time between two attempts to read a cluster.
	followInterval = 10 * time.Second
)

// followFor follows a context until ctx ends, and starts again if that fails. It returns when the records are read at first, with an
// error if they are not within the limit.
func (f webFlags) followFor(ctx context.Context, several *fleet, source web.Source) error {
	first := make(chan error, 1)
	tell := func(err error) {
		select {
		case first <- err:
		default: // only the first counts
		}
	}
	go wait.UntilWithContext(ctx, func(ctx context.Context) {
		bounded, cancel := context.WithCancel(ctx)
		defer cancel() // ends the look at the guard
		if err := f.follow(bounded, source, func() { tell(nil) }); err != nil && ctx.Err() == nil {
			source.Reached(err)
			tell(err)
		}
	}, followInterval)
	select {
	case err := <-first:
		return err
	case <-time.After(several.limit):
		err := several.late()
		source.Reached(err)
		return err
	case <-ctx.Done():
		return nil
	}
}

func (f webFlags) listen(ctx context.Context) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(f.port)))
	if err != nil {
		return nil, fmt.Errorf("serve the page: %w (without --port, a free one is taken)", err)
	}
	return listener, nil
}

// follow tells the source of the records of a cluster, and of its guard, until ctx ends. It calls synced when the first are there.
func (f webFlags) follow(ctx context.Context, source web.Source, synced func()) error {
	config, err := f.shared.contactedConfig(ctx)
	if err != nil {
		return err
	}
	records, err := store.New(config)
	if err != nil {
		return err
	}
	go watchGuard(ctx, config, f.namespace, source)
	return records.Follow(ctx, store.Follower{
		Changed: source.Changed, Removed: source.Removed, Reached: source.Reached, Synced: synced,
	})
}

func (f webFlags) serve(ctx context.Context, cmd *cobra.Command, listener net.Listener, page *web.Page) error {
	page.FindResource = func(filter *audit.Filter) {
		if set, err := f.shared.set(); err == nil && filter.Resource != "" {
			_ = readResource(set, filter) // a kind that is not reserved is searched as a text
		}
	}
	defer announce(cmd, "http://"+listener.Addr().String()+page.Path(), page.Cluster(), f.open)()
	return web.Serve(ctx, listener, page)
}

// guardInterval is the time between two looks at the guard.
const guardInterval = 10 * time.Second

// watchGuard tells the feed whether the guard runs, until ctx ends.
func watchGuard(ctx context.Context, config *rest.Config, namespace string, source web.Source) {
	client, err := unlock.NewClient(config, namespace)
	if err != nil {
		source.Guarded(web.Guard{State: web.GuardUnknown, Text: err.Error()})
		return
	}
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		bounded, cancel := context.WithTimeout(ctx, guardInterval)
		defer cancel()
		replicas, err := client.Alive(bounded)
		source.Guarded(guardState(replicas, err))
	}, guardInterval)
}

func guardState(replicas int, err error) web.Guard {
	switch {
	case err != nil:
		return web.Guard{State: web.GuardUnknown, Text: "Whether the guard runs is not known: " + err.Error()}
	case replicas == 0:
		return web.Guard{State: web.GuardDown, Text: "No replica of the guard runs: no request is recorded now. See apigw-guardian status"}
	default:
		return web.Guard{State: web.GuardUp, Text: fmt.Sprintf("Replicas that run: %d", replicas)}
	}
}

// announce prints the address, and opens it in a browser on request. The function that it returns removes what it has created.
func announce(cmd *cobra.Command, address, cluster string, open bool) func() {
	fmt.Fprintf(cmd.OutOrStdout(),
		"The recorded requests of %s:\n\n  %s\n\nAnyone with this address reads them with your permissions. Press Ctrl-C to end.\n",
		cluster, address)
	if !open {
		return func() {}
	}
	tidy, err := openBrowser(cmd.Context(), address)
	if err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "No browser could be opened (%v): open the address yourself.\n", err)
	}
	return tidy
}

// openBrowser shows a secret address. Every user of the machine can read a command line, so the browser opens a private file
// that redirects there. tidy, never nil, removes the file.
func openBrowser(ctx context.Context, address string) (tidy func(), err error) {
	dir, err := os.MkdirTemp("", "apigw-guardian-web-")
	if err != nil {
		return func() {}, fmt.Errorf("make a directory for the browser: %w", err)
	}
	tidy = func() { _ = os.RemoveAll(dir) }
	file := filepath.Join(dir, "review.html")
	if err := os.WriteFile(file, redirectTo(address), 0o600); err != nil {
		return tidy, fmt.Errorf("write a page for the browser: %w", err)
	}
	name, args := browserCommand(runtime.GOOS, file)
	// The browser outlives this program.
	command := exec.CommandContext(context.WithoutCancel(ctx), name, args...)
	if err := command.Start(); err != nil {
		return tidy, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { _ = command.Wait() }()
	return tidy, nil
}

func redirectTo(address string) []byte {
	return fmt.Appendf(nil, `<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0;url=%[1]s"><title>Recorded requests</title><a href="%[1]s">Show the recorded requests</a>
`, html.EscapeString(address))
}

func browserCommand(system, file string) (string, []string) {
	switch system {
	case "darwin":
		return "open", []string{file}
	case "windows":
		return "rundll32", []string{"url.dll,FileProtocolHandler", file}
	default:
		return "xdg-open", []string{file}
	}
}
