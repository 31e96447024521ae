package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	c, err := testbed.Start(ctx, testbed.Config{Dir: os.Args[1], APIServerFlags: os.Args[2:]})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if err := c.InstallCRDs(ctx); err != nil {
		fmt.Println(err)
	}
	if err := c.StartUnguarded(ctx); err != nil {
		fmt.Println(err)
	}
	_ = testbed.WriteKubeconfig(os.Args[1]+"/unguarded.kubeconfig", c.UnguardedConfig())
	fmt.Println("ready", c.Kubeconfig(), c.KubectlPath())
	<-ctx.Done()
	fmt.Println(c.Stop())
}
