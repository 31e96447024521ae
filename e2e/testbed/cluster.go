// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"context"
	"crypto/rand"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"

	"k8s.io/client-go/rest"
)

// A Config says what cluster to start. The zero value is a cluster of [DefaultKubernetesVersion] in a temporary directory.
type Config struct {
	// Version is the Kubernetes release of kube-apiserver and kube-controller-manager, written like "1.37.2" or
	// "v1.37.2". Empty means [DefaultKubernetesVersion]. 1.28 to 1.37 are known to work.
	Version string
	// Builder provides the programs.
	Builder Builder
	// Dir is the directory for everything that the cluster writes. It is created if it is absent, must be empty, and
	// stays after Stop. Empty means a new temporary directory, which Stop removes.
	Dir string
	// Keep makes Stop leave the temporary directory, with its logs, where it is.
	Keep bool
	// Durable makes etcd sync every write to disk, as in production. Tests of behaviour are faster without.
	Durable bool
	// APIServerFlags are added to the flags of every start of kube-apiserver, and override those of this package.
	APIServerFlags []string
	// ControllerManagerFlags are added to the flags of every start of kube-controller-manager, and override likewise.
	ControllerManagerFlags []string
	// Place is where the components run. The zero value is loopback of this machine.
	Place Place
}

// A Cluster is a running control plane. Its methods may be called by several goroutines; those that start and stop
// components wait for each other.
type Cluster struct {
	config   Config
	version  string
	dir      string
	programs map[string]string
	identity identity

	// The ports are fixed once Start has returned.
	etcdPort, etcdPeerPort, apiPort, controllerPort int
	unguardedPort                                   int

	mu                                 sync.Mutex // guards what follows
	etcd, apiServer, controllerManager *process
	unguarded                          *process
	stopped                            bool
}

// identity is what the components of a cluster know each other by.
type identity struct {
	authority         *authority
	serving           keyPair // of every component that listens
	etcdClient        keyPair
	controllerManager keyPair
	kubeletClient     keyPair
	serviceAccountKey string // file
	adminToken        string
}

// Start builds what is missing in the cache, starts a control plane, and returns once the API server is ready, the
// controllers have started, and the namespace kube-system has its default ServiceAccount. ctx bounds the start
// only; the caller must call Stop on the returned cluster. On Linux the processes also end when this program does.
// An error of a component shows the end of its log; nothing is left running or, unless Config.Keep, on disk.
func Start(ctx context.Context, config Config) (*Cluster, error) {
	c := &Cluster{config: config}
	if err := c.build(ctx); err != nil {
		return nil, err
	}
	if err := c.createDir(); err != nil {
		return nil, err
	}
	if err := c.startAll(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start a cluster of Kubernetes %s: %w", c.version, err), c.Stop())
	}
	return c, nil
}

// Stop ends every process, waits until they are gone, and removes the temporary directory unless Config.Keep says to leave
// it. It may be called more than once. The error tells what could not be removed.
func (c *Cluster) Stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	// The order spares the logs the complaints of components whose server is gone.
	for _, p := range []*process{c.controllerManager, c.unguarded, c.apiServer, c.etcd} {
		p.stop(stopGrace)
	}
	if c.config.Dir != "" || c.config.Keep {
		return nil
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return fmt.Errorf("remove the directory of the testbed: %w", err)
	}
	return nil
}

// Version is the Kubernetes release of the cluster, for example "v1.37.2".
func (c *Cluster) Version() string { return c.version }

// Dir is the directory that holds all that the cluster writes: kubeconfigs, pki, logs (one file per component), etcd's data.
func (c *Cluster) Dir() string { return c.dir }

// Kubeconfig is the path of a kubeconfig of the user "admin" in group system:masters.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.dir, "admin.kubeconfig") }

// AuditLog is the path of the API server's audit log: one JSON event per line for every write, at level Metadata. An
// event is in the file before the writer gets its answer. Reads are not logged.
func (c *Cluster) AuditLog() string { return filepath.Join(c.dir, "logs", "audit.log") }

// RootCAFile is the path of the authority's certificate, which the controller manager puts into token Secrets.
func (c *Cluster) RootCAFile() string { return c.identity.authority.keyPair("ca").certFile }

// ServiceAccountKeyFile is the path of the private key, in PEM, that signs the tokens of ServiceAccounts.
func (c *Cluster) ServiceAccountKeyFile() string { return c.identity.serviceAccountKey }

// AdminConfig is a client configuration of the user "admin" in group system:masters, without a rate limit on the
// client's side. Each call returns a new one.
func (c *Cluster) AdminConfig() *rest.Config { return c.TokenConfig(c.identity.adminToken) }

// ConfigFor is a client configuration of any user in exactly these groups, and in system:authenticated, which the API
// server adds. It impersonates through the admin, so audit events name both.
func (c *Cluster) ConfigFor(user string, groups ...string) *rest.Config {
	config := c.AdminConfig()
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: groups}
	return config
}

// TokenConfig is a client configuration that authenticates with the token, for example a ServiceAccount's.
func (c *Cluster) TokenConfig(token string) *rest.Config {
	config := c.anonymousConfig()
	config.BearerToken = token
	return config
}

// anonymousConfig reaches the API server and has no credential yet.
func (c *Cluster) anonymousConfig() *rest.Config {
	return &rest.Config{
		Host:            "https://" + c.hostPort(c.apiPort),
		TLSClientConfig: rest.TLSClientConfig{CAFile: c.RootCAFile()},
		Dial:            c.config.Place.Dial,
		QPS:             -1,
	}
}

// build sets the version and the programs.
func (c *Cluster) build(ctx context.Context) error {
	tools := []Tool{Etcd(), Kubectl()}
	for _, name := range []string{"kube-apiserver", "kube-controller-manager"} {
		tool, err := KubernetesTool(name, c.config.Version)
		if err != nil {
			return err
		}
		c.version = tool.Release.Version
		tools = append(tools, tool)
	}
	programs, err := c.config.Builder.Build(ctx, tools...)
	c.programs = programs
	return err
}

func (c *Cluster) createDir() error {
	if c.config.Dir == "" {
		dir, err := os.MkdirTemp("", "apigw-guardian-testbed-")
		if err != nil {
			return fmt.Errorf("create the directory of the testbed: %w", err)
		}
		c.dir = dir
		return nil
	}
	dir, err := filepath.Abs(c.config.Dir)
	if err != nil {
		return fmt.Errorf("find the directory of the testbed: %w", err)
	}
	c.dir = dir
	return requireEmptyDir(dir)
}

func requireEmptyDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create the directory of the testbed: %w", err)
	}
	folder, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open the directory of the testbed: %w", err)
	}
	defer func() { _ = folder.Close() }()
	if _, err := folder.Readdirnames(1); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the directory %s of the testbed is not empty; empty it or name another", dir)
	}
	return nil
}

// startAll prepares the files of the cluster and starts its components, each on ports that are its own.
func (c *Cluster) startAll(ctx context.Context) error {
	if err := c.writeFiles(); err != nil {
		return err
	}
	err := withFreshPorts(2, func(ports []int) error {
		c.etcdPort, c.etcdPeerPort = ports[0], ports[1]
		return errors.Join(os.RemoveAll(c.etcdDir()), c.StartEtcd(ctx))
	})
	if err != nil {
		return err
	}
	err = withFreshPorts(1, func(ports []int) error {
		c.apiPort = ports[0]
		return c.StartAPIServer(ctx)
	})
	if err != nil {
		return err
	}
	if err := c.writeKubeconfigs(); err != nil {
		return err
	}
	return withFreshPorts(1, func(ports []int) error {
		c.controllerPort = ports[0]
		return c.StartControllerManager(ctx)
	})
}

// writeFiles makes what the components need before they start.
func (c *Cluster) writeFiles() error {
	for _, folder := range []string{"pki", "logs", "home"} {
		if err := os.Mkdir(filepath.Join(c.dir, folder), 0o700); err != nil {
			return fmt.Errorf("create a directory of the testbed: %w", err)
		}
	}
	made, err := newIdentity(filepath.Join(c.dir, "pki"), c.config.Place.addresses())
	if err != nil {
		return err
	}
	c.identity = made
	users := fmt.Sprintf("%s,admin,admin,\"system:masters\"\n", made.adminToken)
	files := map[string]string{c.usersFile(): users, c.auditPolicyFile(): auditPolicy}
	for path, content := range files {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return fmt.Errorf("write a file of the testbed: %w", err)
		}
	}
	return nil
}

func newIdentity(dir string, addresses []net.IP) (identity, error) {
	authority, err := newAuthority(dir, addresses...)
	if err != nil {
		return identity{}, err
	}
	made := identity{
		authority:         authority,
		serviceAccountKey: filepath.Join(dir, "service-account.key"),
		adminToken:        rand.Text(),
	}
	if err := newSigningKey(made.serviceAccountKey); err != nil {
		return identity{}, err
	}
	issues := []struct {
		pair    *keyPair
		name    string
		subject pkix.Name
	}{
		{&made.serving, "serving", pkix.Name{CommonName: "testbed-serving"}},
		{&made.etcdClient, "etcd-client", pkix.Name{CommonName: "testbed-etcd-client"}},
		{&made.controllerManager, "kube-controller-manager", pkix.Name{CommonName: "system:kube-controller-manager"}},
		{&made.kubeletClient, "kubelet-client", pkix.Name{CommonName: "testbed-kubelet-client", Organization: []string{"system:masters"}}},
	}
	for _, issue := range issues {
		if *issue.pair, err = authority.issue(issue.name, issue.subject); err != nil {
			return identity{}, err
		}
	}
	return made, nil
}

func (c *Cluster) writeKubeconfigs() error {
	controller := c.anonymousConfig()
	controller.CertFile = c.identity.controllerManager.certFile
	controller.KeyFile = c.identity.controllerManager.keyFile
	return errors.Join(
		WriteKubeconfig(c.Kubeconfig(), c.AdminConfig()),
		WriteKubeconfig(c.controllerKubeconfig(), controller))
}
