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

// A Config is the configuration of a cluster. The zero value means [DefaultKubernetesVersion] in a temporary directory.
type Config struct {
	// Version is the Kubernetes release of kube-apiserver and kube-controller-manager, such as "1.37.2" or "v1.37.2". Empty means
	// [DefaultKubernetesVersion]. 1.28 to 1.37 are known to work.
	Version string
	// Builder builds the programs.
	Builder Builder
	// Dir is the directory of all files of the cluster. It must be empty, is created if it is absent, and remains after Stop.
	// Empty means a new temporary directory, which Stop removes.
	Dir string
	// Keep makes Stop keep the temporary directory with its logs.
	Keep bool
	// Durable makes etcd sync every write to disk, as in production. Without it, tests are faster.
	Durable bool
	// APIServerFlags are additional flags of kube-apiserver. They override those of this package.
	APIServerFlags []string
	// ControllerManagerFlags are additional flags of kube-controller-manager. They override those of this package.
	ControllerManagerFlags []string
	// Place is the network in which the components run. The zero value is loopback of this machine.
	Place Place
}

// A Cluster is a running control plane. It is safe for concurrent use. Methods that start and stop components wait for each other.
type Cluster struct {
	config   Config
	version  string
	dir      string
	programs map[string]string
	identity identity

	// The ports do not change after Start.
	etcdPort, etcdPeerPort, apiPort, controllerPort int
	unguardedPort                                   int

	mu                                 sync.Mutex // guards the fields below
	etcd, apiServer, controllerManager *process
	unguarded                          *process
	stopped                            bool
}

// identity has the credentials of the components of a cluster.
type identity struct {
	authority         *authority
	serving           keyPair // of every component that listens
	etcdClient        keyPair
	controllerManager keyPair
	kubeletClient     keyPair
	serviceAccountKey string // file
	adminToken        string
}

// Start builds the missing programs and starts a control plane. It returns once the API server is ready, the controllers have
// started, and the namespace kube-system has its default ServiceAccount. ctx limits only the start. The caller must call Stop. On
// Linux the processes also end with this program. The error of a component contains the end of its log. After an error, no process
// runs, and no file remains unless Config.Keep is set.
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

// Stop ends all processes, waits for them, and removes the temporary directory unless Config.Keep is set. It may be called more than
// once.
func (c *Cluster) Stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	// In this order, no component logs errors about an absent server.
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

// Version returns the Kubernetes release of the cluster, for example "v1.37.2".
func (c *Cluster) Version() string { return c.version }

// Dir returns the directory of all files of the cluster: kubeconfigs, pki, logs (one file per component) and etcd's data.
func (c *Cluster) Dir() string { return c.dir }

// Kubeconfig returns the path of a kubeconfig of the user "admin" in group system:masters.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.dir, "admin.kubeconfig") }

// AuditLog returns the path of the API server's audit log. It has one JSON event per line for every write, at level Metadata, and
// none for reads. An event is in the file before the client gets the answer.
func (c *Cluster) AuditLog() string { return filepath.Join(c.dir, "logs", "audit.log") }

// RootCAFile returns the path of the authority's certificate, which the controller manager writes to token Secrets.
func (c *Cluster) RootCAFile() string { return c.identity.authority.keyPair("ca").certFile }

// ServiceAccountKeyFile returns the path of the private key, in PEM, that signs the tokens of ServiceAccounts.
func (c *Cluster) ServiceAccountKeyFile() string { return c.identity.serviceAccountKey }

// AdminConfig returns a new client configuration of the user "admin" in the group system:masters, without a client-side rate limit.
func (c *Cluster) AdminConfig() *rest.Config { return c.TokenConfig(c.identity.adminToken) }

// ConfigFor returns a client configuration of a user in these groups. The API server adds system:authenticated. The admin
// impersonates the user, so audit events name both.
func (c *Cluster) ConfigFor(user string, groups ...string) *rest.Config {
	config := c.AdminConfig()
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: groups}
	return config
}

// TokenConfig returns a client configuration that authenticates with the token, for example a ServiceAccount's.
func (c *Cluster) TokenConfig(token string) *rest.Config {
	config := c.anonymousConfig()
	config.BearerToken = token
	return config
}

// anonymousConfig returns a client configuration without a credential.
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
	opened, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open the directory of the testbed: %w", err)
	}
	defer func() { _ = opened.Close() }()
	if _, err := opened.Readdirnames(1); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the directory %s of the testbed is not empty; empty it or name another", dir)
	}
	return nil
}

// startAll writes the files of the cluster and starts its components on unused ports.
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

// writeFiles writes the files that the components need at their start.
func (c *Cluster) writeFiles() error {
	for _, name := range []string{"pki", "logs", "home"} {
		if err := os.Mkdir(filepath.Join(c.dir, name), 0o700); err != nil {
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
