// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"

	"k8s.io/client-go/rest"
)

// StartUnguarded starts a second kube-apiserver on the same etcd. It calls no validating webhook and evaluates no policy, so that tests
// can write states
// that the guard denies. It ends with the cluster.
func (c *Cluster) StartUnguarded(ctx context.Context) error {
	client, err := rest.HTTPClientFor(c.AdminConfig())
	if err != nil {
		return fmt.Errorf("make a client of the API server: %w", err)
	}
	if c.unguardedPort != 0 { // a restart uses the same port
		return c.startUnguarded(ctx, client)
	}
	return withFreshPorts(1, func(ports []int) error {
		c.unguardedPort = ports[0]
		return c.startUnguarded(ctx, client)
	})
}

func (c *Cluster) startUnguarded(ctx context.Context, client *http.Client) error {
	return c.start(ctx, &c.unguarded, func() (launch, error) {
		l, err := c.apiServerLaunch([]string{
			"--secure-port=" + strconv.Itoa(c.unguardedPort),
			"--disable-admission-plugins=ValidatingAdmissionWebhook,ValidatingAdmissionPolicy",
			"--audit-log-path=" + filepath.Join(c.dir, "logs", "audit-unguarded.log"),
		})
		l.log = "kube-apiserver-unguarded"
		l.ready = func(ctx context.Context) error { return probeOK(ctx, client, c.UnguardedConfig().Host+"/readyz") }
		return l, err
	})
}

// StopUnguarded stops the API server that StartUnguarded has started.
func (c *Cluster) StopUnguarded() { c.stop(&c.unguarded) }

// UnguardedConfig is like AdminConfig for the API server that StartUnguarded has started.
func (c *Cluster) UnguardedConfig() *rest.Config {
	config := c.AdminConfig()
	config.Host = "https://" + c.hostPort(c.unguardedPort)
	return config
}
