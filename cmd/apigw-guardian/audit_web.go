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
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/web"
	"github.com/apigw-guardian/apigw-guardian/pkg/guard"
	"github.com/apigw-guardian/apigw-guardian/pkg/unlock"
)

const maxPort = 65535

type webFlags struct {
	port int
	// namespace is the guard's.
	namespace string
	open      bool
}

func newAuditWeb(shared *sharedFlags) *cobra.Command {
	var serving webFlags
	cmd := &cobra.Command{
		Use:   "web",
		Short: "Review the recorded requests in a browser",
		Long: `web serves a page with the audit records on this machine's loopback address, until Ctrl-C. It reads them with your
permissions, and changes nothing. The address has a random token: without it, the page cannot be read.`,
		Example: `  apigw-guardian audit web --open

  # on another machine, through a tunnel
  ssh -L 8087:127.0.0.1:8087 admin-host apigw-guardian audit web --port 8087`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if serving.port < 0 || serving.port > maxPort {
				return fmt.Errorf("%w: --port %d: must be 1-%d, or 0 to pick a free port", errUsage, serving.port, maxPort)
			}
			return runWeb(cmd, shared, serving)
		},
	}
	cmd.Flags().IntVar(&serving.port, "port", 0, "port on 127.0.0.1, or 0 to pick a free one")
	cmd.Flags().StringVarP(&serving.namespace, "namespace", "n", guardian.Namespace, "namespace of the guard")
	cmd.Flags().BoolVar(&serving.open, "open", false, "open the page in the browser")
	return cmd
}

// runWeb serves until the command's context ends. If serving or reading the records fails, it ends both.
func runWeb(cmd *cobra.Command, shared *sharedFlags, serving webFlags) error {
	// The page shows errors of the libraries, so the terminal must not.
	guard.BridgeLogs(slog.New(slog.DiscardHandler))
	config, err := shared.contactedConfig(cmd.Context())
	if err != nil {
		return err
	}
	records, err := store.New(config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(serving.port)))
	if err != nil {
		return fmt.Errorf("serve the page: %w (without --port, a free one is taken)", err)
	}
	defer func() { _ = listener.Close() }() // Serve closes it too
	feed, synced, followed := web.NewFeed(), make(chan struct{}), make(chan error, 1)
	go func() {
		followed <- records.Follow(ctx, store.Follower{
			Changed: feed.Changed, Removed: feed.Removed, Reached: feed.Reached, Synced: func() { close(synced) },
		})
	}()
	go watchGuard(ctx, config, serving.namespace, feed)
	select {
	case err := <-followed:
		if ctx.Err() != nil {
			return nil // Ctrl-C is no failure
		}
		return err
	case <-synced:
	}
	cluster := shared.clusterName(config)
	page := web.New(feed, cluster)
	page.FindResource = func(filter *audit.Filter) {
		if set, err := shared.set(); err == nil && filter.Resource != "" {
			_ = readResource(set, filter) // a kind that is not reserved is searched as a text
		}
	}
	defer announce(cmd, "http://"+listener.Addr().String()+page.Path(), cluster, serving.open)()
	err = web.Serve(ctx, listener, page)
	cancel()
	return errors.Join(err, <-followed)
}

// guardInterval is the time between two looks at the guard.
const guardInterval = 10 * time.Second

// watchGuard tells the feed whether the guard runs, until ctx ends.
func watchGuard(ctx context.Context, config *rest.Config, namespace string, feed *web.Feed) {
	client, err := unlock.NewClient(config, namespace)
	if err != nil {
		feed.Guarded(web.Guard{State: web.GuardUnknown, Text: err.Error()})
		return
	}
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		bounded, cancel := context.WithTimeout(ctx, guardInterval)
		defer cancel()
		replicas, err := client.Alive(bounded)
		feed.Guarded(guardState(replicas, err))
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
