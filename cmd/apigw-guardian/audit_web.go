// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/web"
	"github.com/apigw-guardian/apigw-guardian/pkg/guard"
)

// maxPort is the highest TCP port.
const maxPort = 65535

func newAuditWeb(shared *sharedFlags) *cobra.Command {
	var port int
	var open bool
	cmd := &cobra.Command{
		Use:   "web",
		Short: "Review the denied requests in a browser",
		Long: `web serves a page with the audit records on this machine's loopback address, until Ctrl-C. It reads them with the rights
of whoever runs it, and changes nothing. The address holds a random token: who does not know it sees nothing.`,
		Example: `  apigw-guardian audit web --open

  # on another machine, through a tunnel
  ssh -L 8087:127.0.0.1:8087 admin-host apigw-guardian audit web --port 8087`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if port < 0 || port > maxPort {
				return fmt.Errorf("%w: --port %d: give a port of 1 to %d, or 0 for any that is free", errUsage, port, maxPort)
			}
			review, err := newWebReview(shared)
			if err != nil {
				return err
			}
			review.port, review.out, review.warnings = port, cmd.OutOrStdout(), cmd.ErrOrStderr()
			if open {
				review.open = openBrowser
			}
			return review.run(cmd.Context())
		},
	}
	cmd.Flags().IntVar(&port, "port", 0, "port of 127.0.0.1 to serve on; 0 for any that is free")
	cmd.Flags().BoolVar(&open, "open", false, "open the page in the browser")
	return cmd
}

// webReview is one run of audit web.
type webReview struct {
	store         *store.Store
	cluster       string
	port          int
	out, warnings io.Writer
	// open shows the address in a browser; nil where nobody has asked for it. What it returns is called at the end.
	open func(ctx context.Context, address string) (tidy func(), err error)
}

func newWebReview(shared *sharedFlags) (*webReview, error) {
	// The page itself says what goes wrong from now on; the libraries would say it in the terminal, again and again.
	guard.BridgeLogs(slog.New(slog.DiscardHandler))
	config, err := shared.restConfig()
	if err != nil {
		return nil, err
	}
	store, err := store.New(config)
	if err != nil {
		return nil, err
	}
	return &webReview{store: store, cluster: shared.clusterName(config)}, nil
}

// run serves until ctx ends; whatever ends first ends the rest.
func (r *webReview) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(r.port)))
	if err != nil {
		return fmt.Errorf("serve the page: %w (without --port, a free one is taken)", err)
	}
	defer func() { _ = listener.Close() }() // Serve closes it too
	feed := web.NewFeed()
	synced := make(chan struct{})
	followed := make(chan error, 1)
	go func() {
		followed <- r.store.Follow(ctx, store.Follower{
			Changed: feed.Changed, Removed: feed.Removed, Reached: feed.Reached, Synced: func() { close(synced) },
		})
	}()
	select {
	case err := <-followed:
		if ctx.Err() != nil {
			return nil // somebody has ended the reading, which is no failure
		}
		return err
	case <-synced:
	}
	err = r.serve(ctx, listener, feed)
	cancel()
	return errors.Join(err, <-followed)
}

// serve tells the reader the address, and answers there.
func (r *webReview) serve(ctx context.Context, listener net.Listener, feed *web.Feed) error {
	page := web.New(feed, r.cluster)
	address := "http://" + listener.Addr().String() + page.Path()
	fmt.Fprintf(r.out, "The denied requests of %s:\n\n  %s\n\nWhoever knows this address reads them with your rights. Ctrl-C ends it.\n",
		r.cluster, address)
	if r.open != nil {
		tidy, err := r.open(ctx, address)
		if err != nil {
			fmt.Fprintf(r.warnings, "No browser could be opened (%v): open the address yourself.\n", err)
		}
		defer tidy()
	}
	return web.Serve(ctx, listener, page)
}
