// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	// readyTimeout bounds the start of each component. The API server needs 4 s on two idle cores, and much longer
	// beside a build.
	readyTimeout = 2 * time.Minute
	// readyPoll is how often a component that starts is asked whether it is ready.
	readyPoll = 50 * time.Millisecond
	// probeTimeout bounds one such question.
	probeTimeout = 5 * time.Second
	// stopGrace is how long a component may take to end by itself. The API server and etcd do not while a client watches,
	// and neither loses an answered write when it is killed.
	stopGrace = 2 * time.Second

	// serviceRange is the range of ClusterIPs, and apiServiceAddress the first in it, which the API server takes for
	// itself. Nothing routes them here.
	serviceRange      = "10.96.0.0/16"
	apiServiceAddress = "10.96.0.1"
)

// auditPolicy logs every write once, when it is answered.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  verbs: [create, update, patch, delete, deletecollection]
- level: None
`

// StartEtcd starts etcd with the data that it had, on the port that it had, and waits until it answers. A running one
// is stopped first.
func (c *Cluster) StartEtcd(ctx context.Context) error {
	return c.start(ctx, &c.etcd, c.etcdLaunch)
}

// StopEtcd ends etcd and waits until it is gone. Its data stays.
func (c *Cluster) StopEtcd() { c.stop(&c.etcd) }

// StartAPIServer starts kube-apiserver on the port that it had, with the flags added to its own (the last of a name
// counts), and waits until it is ready, for which it needs etcd. A running one is stopped first.
func (c *Cluster) StartAPIServer(ctx context.Context, flags ...string) error {
	return c.start(ctx, &c.apiServer, func() (launch, error) { return c.apiServerLaunch(flags) })
}

// StopAPIServer ends kube-apiserver and waits until it is gone.
func (c *Cluster) StopAPIServer() { c.stop(&c.apiServer) }

// StartControllerManager starts kube-controller-manager with the flags added to its own (the last of a name counts: a
// further --root-ca-file replaces the first), and waits until its controllers have started, for which it needs the API
// server. A running one is stopped first.
func (c *Cluster) StartControllerManager(ctx context.Context, flags ...string) error {
	return c.start(ctx, &c.controllerManager, func() (launch, error) { return c.controllerLaunch(flags) })
}

// StopControllerManager ends kube-controller-manager and waits until it is gone.
func (c *Cluster) StopControllerManager() { c.stop(&c.controllerManager) }

// A launch is one start of a component.
type launch struct {
	program string
	flags   []string
	ready   func(ctx context.Context) error // nil once it is ready
	log     string                          // the name of the log; empty for the program's
	path    string                          // of the program; empty for one of the cluster's own
	env     []string                        // added to the environment
}

func (c *Cluster) etcdLaunch() (launch, error) {
	client, err := c.etcdProber()
	if err != nil {
		return launch{}, err
	}
	url := "https://" + c.hostPort(c.etcdPort) + "/health"
	return launch{
		program: "etcd",
		flags:   c.etcdFlags(),
		ready:   func(ctx context.Context) error { return probeOK(ctx, client, url) },
	}, nil
}

func (c *Cluster) apiServerLaunch(flags []string) (launch, error) {
	admin := c.AdminConfig()
	client, err := rest.HTTPClientFor(admin)
	if err != nil {
		return launch{}, fmt.Errorf("make a client of the API server: %w", err)
	}
	return launch{
		program: "kube-apiserver",
		flags:   slices.Concat(c.apiServerFlags(), c.config.APIServerFlags, flags),
		ready:   func(ctx context.Context) error { return probeOK(ctx, client, admin.Host+"/readyz") },
	}, nil
}

func (c *Cluster) controllerLaunch(flags []string) (launch, error) {
	health, healthErr := rest.HTTPClientFor(c.anonymousConfig())
	clients, clientsErr := kubernetes.NewForConfig(c.AdminConfig())
	if err := errors.Join(healthErr, clientsErr); err != nil {
		return launch{}, fmt.Errorf("make the clients that probe the controller manager: %w", err)
	}
	url := "https://" + c.hostPort(c.controllerPort) + "/healthz?verbose"
	ready := func(ctx context.Context) error {
		answer, err := probe(ctx, health, url)
		if err != nil {
			return err
		}
		// The controller manager is healthy before it has controllers, then lists each ("[+]namespace-controller ok").
		if !strings.Contains(answer, "-controller ok") {
			return errors.New("the controller manager has not started its controllers")
		}
		_, err = clients.CoreV1().ServiceAccounts(metav1.NamespaceSystem).Get(ctx, "default", metav1.GetOptions{})
		return err
	}
	return launch{
		program: "kube-controller-manager",
		flags:   slices.Concat(c.controllerFlags(), c.config.ControllerManagerFlags, flags),
		ready:   ready,
	}, nil
}

// start puts a new process of a component into its slot. A process that does not get ready is ended.
func (c *Cluster) start(ctx context.Context, slot **process, prepare func() (launch, error)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return ErrStopped
	}
	l, err := prepare()
	if err != nil {
		return err
	}
	(*slot).stop(stopGrace)
	started, err := c.run(l)
	if err != nil {
		return err
	}
	*slot = started
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("it took more than %v", readyTimeout))
	defer cancel()
	if err := started.awaitReady(ctx, l.ready); err != nil {
		started.stop(0)
		return err
	}
	return nil
}

func (c *Cluster) stop(slot **process) {
	c.mu.Lock()
	defer c.mu.Unlock()
	(*slot).stop(stopGrace)
}

// run starts a program whose output is appended to its log.
func (c *Cluster) run(l launch) (*process, error) {
	path := filepath.Join(c.dir, "logs", cmp.Or(l.log, l.program)+".log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", l.program, err)
	}
	defer func() { _ = log.Close() }() // the child has its own
	before, err := log.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the size of the log of %s: %w", l.program, err)
	}
	command := c.command(cmp.Or(l.path, c.programs[l.program]), l.flags...)
	command.Dir, command.Env = c.dir, append(c.environment(), l.env...)
	command.Stdout, command.Stderr = log, log
	started, err := startProcess(l.program, command)
	if err != nil {
		return nil, err
	}
	started.logPath, started.logStart = path, before.Size()
	return started, nil
}

// environment is that of every child: nothing of the caller's that could change what a program does (ETCD_*,
// KUBECONFIG, proxies), and a home directory that ends with the cluster. A guard built with -cover needs GOCOVERDIR.
func (c *Cluster) environment() []string {
	home := filepath.Join(c.dir, "home")
	environment := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home}
	if dir := os.Getenv("GOCOVERDIR"); dir != "" {
		environment = append(environment, "GOCOVERDIR="+dir)
	}
	return environment
}

// probeOK asks a URL and wants status 200.
func probeOK(ctx context.Context, client *http.Client, url string) error {
	_, err := probe(ctx, client, url)
	return err
}

// probe asks a URL, wants status 200 and returns the answer.
func probe(ctx context.Context, client *http.Client, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", fmt.Errorf("make a probe: %w", err)
	}
	response, err := client.Do(request)
	if err != nil {
		return "", fmt.Errorf("probe: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return "", fmt.Errorf("probe %s: %w", url, err)
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("probe %s: %s: %s", url, response.Status, answer)
	}
	return string(answer), nil
}

// etcdProber is a client of etcd. It accepts nothing but an etcd of this cluster: without that, one of another testbed
// on a port that was lost to it would pass for ours.
func (c *Cluster) etcdProber() (*http.Client, error) {
	certificate, err := tls.LoadX509KeyPair(c.identity.etcdClient.certFile, c.identity.etcdClient.keyFile)
	if err != nil {
		return nil, fmt.Errorf("read the certificate of etcd's client: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(c.identity.authority.certificate)
	return &http.Client{Transport: &http.Transport{
		DialContext:       c.config.Place.Dial,
		DisableKeepAlives: true, // no connection may outlive the probes
		TLSClientConfig:   &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}},
	}}, nil
}

// awaitReady returns nil once ready does while the process lives.
func (p *process) awaitReady(ctx context.Context, ready func(context.Context) error) error {
	ticker := time.NewTicker(readyPoll)
	defer ticker.Stop()
	for {
		err := ready(ctx)
		if err == nil && !p.ended() {
			return nil
		}
		select {
		case <-p.done:
			return p.failure(errors.New("ended before it was ready: " + p.command.ProcessState.String()))
		case <-ctx.Done():
			return p.failure(fmt.Errorf("is not ready: %w; last: %w", context.Cause(ctx), err))
		case <-ticker.C:
		}
	}
}

func (c *Cluster) etcdDir() string         { return filepath.Join(c.dir, "etcd") }
func (c *Cluster) usersFile() string       { return filepath.Join(c.dir, "pki", "users.csv") }
func (c *Cluster) auditPolicyFile() string { return filepath.Join(c.dir, "audit-policy.yaml") }
func (c *Cluster) controllerKubeconfig() string {
	return filepath.Join(c.dir, "controller-manager.kubeconfig")
}

func (c *Cluster) etcdFlags() []string {
	client, peer := "https://"+c.hostPort(c.etcdPort), "http://"+c.hostPort(c.etcdPeerPort)
	serving := c.identity.serving
	flags := []string{
		"--name=testbed",
		"--data-dir=" + c.etcdDir(),
		"--listen-client-urls=" + client,
		"--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer,
		"--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=testbed=" + peer,
		"--cert-file=" + serving.certFile,
		"--key-file=" + serving.keyFile,
		"--trusted-ca-file=" + c.RootCAFile(),
		"--client-cert-auth",
	}
	if !c.config.Durable {
		flags = append(flags, "--unsafe-no-fsync")
	}
	return flags
}

// apiServerFlags and controllerFlags keep to flags that releases 1.28 to 1.37 share.
func (c *Cluster) apiServerFlags() []string {
	serving, etcd, key := c.identity.serving, c.identity.etcdClient, c.identity.serviceAccountKey
	return append(c.placeFlags(),
		"--secure-port="+strconv.Itoa(c.apiPort),
		"--tls-cert-file="+serving.certFile,
		"--tls-private-key-file="+serving.keyFile,
		"--client-ca-file="+c.RootCAFile(),
		"--token-auth-file="+c.usersFile(),
		"--authorization-mode=Node,RBAC",
		"--etcd-servers=https://"+c.hostPort(c.etcdPort),
		"--etcd-cafile="+c.RootCAFile(),
		"--etcd-certfile="+etcd.certFile,
		"--etcd-keyfile="+etcd.keyFile,
		"--service-cluster-ip-range="+serviceRange,
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+key,
		"--service-account-signing-key-file="+key,
		"--audit-policy-file="+c.auditPolicyFile(),
		"--audit-log-path="+c.AuditLog(),
		"--audit-log-maxsize=10000", // megabytes: one file, so that no event is out of a test's sight
	)
}

// placeFlags are the API server's flags that depend on the cluster's place.
func (c *Cluster) placeFlags() []string {
	address := c.config.Place.address()
	flags := []string{"--bind-address=" + address, "--advertise-address=" + address}
	if c.config.Place.isLoopback() {
		// The reconciler would refuse to publish a loopback address, over and over.
		return append(flags, "--endpoint-reconciler-type=none")
	}
	client := c.identity.kubeletClient
	return append(flags,
		"--kubelet-client-certificate="+client.certFile,
		"--kubelet-client-key="+client.keyFile,
		"--kubelet-certificate-authority="+c.RootCAFile(),
		"--kubelet-preferred-address-types=InternalIP")
}

func (c *Cluster) controllerFlags() []string {
	serving, ca := c.identity.serving, c.identity.authority.keyPair("ca")
	return []string{
		"--bind-address=" + c.config.Place.address(),
		"--secure-port=" + strconv.Itoa(c.controllerPort),
		"--tls-cert-file=" + serving.certFile,
		"--tls-private-key-file=" + serving.keyFile,
		"--kubeconfig=" + c.controllerKubeconfig(),
		"--leader-elect=false", // there is no other, and waiting for a lease would slow a restart
		"--controllers=*",
		"--use-service-account-credentials",
		"--service-account-private-key-file=" + c.identity.serviceAccountKey,
		"--root-ca-file=" + ca.certFile,
		"--cluster-signing-cert-file=" + ca.certFile,
		"--cluster-signing-key-file=" + ca.keyFile,
		// What tests wait for should come at once.
		"--kube-api-qps=500",
		"--kube-api-burst=1000",
		"--min-resync-period=1m",
		"--namespace-sync-period=10s",
		"--resource-quota-sync-period=10s",
		// The default folder belongs to the system, and is probed.
		"--flex-volume-plugin-dir=" + filepath.Join(c.dir, "home", "flexvolume"),
	}
}
