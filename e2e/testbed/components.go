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
	// readyTimeout is the max time of a component's start. The API server needs 4 s on two idle cores, and much longer during a
	// build.
	readyTimeout = 2 * time.Minute
	// readyPoll is the interval between readiness probes of a component.
	readyPoll = 50 * time.Millisecond
	// probeTimeout is the max time of one probe.
	probeTimeout = 5 * time.Second
	// stopGrace is the time after which a component is killed. The API server and etcd do not end while a client watches, and a kill
	// loses no answered write.
	stopGrace = 2 * time.Second

	// serviceRange is the range of ClusterIPs. apiServiceAddress is its first address, which the API server uses. No route leads to
	// them.
	serviceRange      = "10.96.0.0/16"
	apiServiceAddress = "10.96.0.1"
)

// auditPolicy logs every write once, at its answer.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  verbs: [create, update, patch, delete, deletecollection]
- level: None
`

// StartEtcd starts or restarts etcd with the same data and port, and waits until it is ready.
func (c *Cluster) StartEtcd(ctx context.Context) error {
	return c.start(ctx, &c.etcd, c.etcdLaunch)
}

// StopEtcd ends etcd and waits for its end. Its data remains.
func (c *Cluster) StopEtcd() { c.stop(&c.etcd) }

// StartAPIServer starts or restarts kube-apiserver on the same port, and waits until it is ready, which requires etcd. The flags
// override those of the cluster.
func (c *Cluster) StartAPIServer(ctx context.Context, flags ...string) error {
	return c.start(ctx, &c.apiServer, func() (launch, error) { return c.apiServerLaunch(flags) })
}

// StopAPIServer ends kube-apiserver and waits for its end.
func (c *Cluster) StopAPIServer() { c.stop(&c.apiServer) }

// StartControllerManager starts or restarts kube-controller-manager, and waits until its controllers have started, which requires
// the API server. The flags override those of the cluster.
func (c *Cluster) StartControllerManager(ctx context.Context, flags ...string) error {
	return c.start(ctx, &c.controllerManager, func() (launch, error) { return c.controllerLaunch(flags) })
}

// StopControllerManager ends kube-controller-manager and waits for its end.
func (c *Cluster) StopControllerManager() { c.stop(&c.controllerManager) }

// A launch is one start of a component.
type launch struct {
	program string
	flags   []string
	ready   func(ctx context.Context) error // nil once it is ready
	log     string                          // the name of the log; empty means the program's name
	path    string                          // of the program; empty means a program of the cluster
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
		// The controller manager is healthy before its controllers start. Later it lists each ("[+]namespace-controller ok").
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

// start replaces the process of a component and waits until it is ready. It ends a process that does not become ready.
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

// run starts a program and appends its output to its log.
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

// environment returns the environment of all processes. It leaves out the caller's variables that could change a program (ETCD_*,
// KUBECONFIG, proxies), and has a home directory in the cluster's directory. A guard built with -cover needs GOCOVERDIR.
func (c *Cluster) environment() []string {
	home := filepath.Join(c.dir, "home")
	environment := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home}
	if dir := os.Getenv("GOCOVERDIR"); dir != "" {
		environment = append(environment, "GOCOVERDIR="+dir)
	}
	return environment
}

// probeOK returns an error unless a GET of the URL has status 200.
func probeOK(ctx context.Context, client *http.Client, url string) error {
	_, err := probe(ctx, client, url)
	return err
}

// probe returns the answer of a GET of the URL, and an error unless its status is 200.
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

// etcdProber returns a client that accepts only the etcd of this cluster. It must refuse an etcd of another testbed that has taken
// the port.
func (c *Cluster) etcdProber() (*http.Client, error) {
	certificate, err := tls.LoadX509KeyPair(c.identity.etcdClient.certFile, c.identity.etcdClient.keyFile)
	if err != nil {
		return nil, fmt.Errorf("read the certificate of etcd's client: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(c.identity.authority.certificate)
	return &http.Client{Transport: &http.Transport{
		DialContext:       c.config.Place.Dial,
		DisableKeepAlives: true, // close each connection after its probe
		TLSClientConfig:   &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}},
	}}, nil
}

// awaitReady waits until ready returns nil. It returns an error if the process ends before.
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

// apiServerFlags and controllerFlags use only flags that releases 1.28 to 1.37 have.
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
		"--audit-log-maxsize=10000", // in megabytes: no rotation, because tests read one file
	)
}

// placeFlags returns the API server's flags that depend on the cluster's place.
func (c *Cluster) placeFlags() []string {
	address := c.config.Place.address()
	flags := []string{"--bind-address=" + address, "--advertise-address=" + address}
	if c.config.Place.isLoopback() {
		// The reconciler refuses to publish a loopback address, and would retry for ever.
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
		"--leader-elect=false", // it is the only one, and waiting for a lease would slow down a restart
		"--controllers=*",
		"--use-service-account-credentials",
		"--service-account-private-key-file=" + c.identity.serviceAccountKey,
		"--root-ca-file=" + ca.certFile,
		"--cluster-signing-cert-file=" + ca.certFile,
		"--cluster-signing-key-file=" + ca.keyFile,
		// Tests wait for these controllers.
		"--kube-api-qps=500",
		"--kube-api-burst=1000",
		"--min-resync-period=1m",
		"--namespace-sync-period=10s",
		"--resource-quota-sync-period=10s",
		// The controller manager reads the default directory, which belongs to the system.
		"--flex-volume-plugin-dir=" + filepath.Join(c.dir, "home", "flexvolume"),
	}
}
