// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Command demo shows the guard at work on a real Kubernetes API server, with real kubectl: it authorizes API Gateway, tries
// to edit and delete what that reserves, and stays up to try by hand until Ctrl-C. DEMO_STAY=0 ends it by itself, and DEMO_STAY=1 keeps
// it up without a terminal.
//
// Each step says what must come of it. The demo fails when something else does.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/apigw-guardian/apigw-guardian/e2e/program"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

func main() { program.Main("demo", run) }

func run(ctx context.Context) (err error) {
	guardian, err := program.Guardian()
	if err != nil {
		return err
	}
	fmt.Println("Starting a Kubernetes control plane on this machine: etcd, kube-apiserver, kube-controller-manager.")
	cluster, err := testbed.Start(ctx, program.Config())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Stop()) }()
	if err := cluster.InstallCRDs(ctx); err != nil {
		return err
	}
	fmt.Printf("Kubernetes %s is ready. Starting the guard.\n", cluster.Version())
	guard, err := cluster.StartGuard(ctx, guardian)
	if err != nil {
		return err
	}
	defer guard.Stop()
	shell := &shell{cluster: cluster, guardian: guardian}
	for _, step := range steps() {
		if err := shell.play(ctx, step); err != nil {
			return err
		}
	}
	fmt.Printf("\nAll %d steps went as they must.\n", len(steps()))
	if staying() {
		stay(ctx, cluster, guardian)
	}
	return nil
}

// staying reports whether a user wants to try more.
func staying() bool {
	if stay := os.Getenv("DEMO_STAY"); stay != "" {
		return stay != "0"
	}
	info, err := os.Stdin.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func stay(ctx context.Context, cluster *testbed.Cluster, guardian string) {
	fmt.Printf(`
The cluster stays up until Ctrl-C. In another terminal:

  export KUBECONFIG=%s
  %s status
  %s delete clusterrole apigw-ingress-clusterrole

`, cluster.Kubeconfig(), guardian, cluster.KubectlPath())
	<-ctx.Done()
}
