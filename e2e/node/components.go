// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"bytes"
	"context"
	"crypto/x509/pkix"
	"embed"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"text/template"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

const (
	// readyTimeout bounds the time from kubelet's start to the node's readiness, 8 s on two idle cores.
	readyTimeout = 2 * time.Minute
	readyPoll    = 100 * time.Millisecond

	schedulerPort = "10259"         // the defaults of Kubernetes: nothing else is in the network
	apiService    = "10.96.0.1:443" // the first address of package testbed's range: the API server itself
	kubeletHealth = "127.0.0.1:10248"
)

//go:embed config
var configFiles embed.FS

// settings is what the files of directory config are filled with.
type settings struct {
	Name, Dir, Address, PodRange, NodeName string
	PauseImage, CNIPlugins                 string
	Shim, ShimSockets                      string
	CA, KubeletCertificate, KubeletKey     string
	ProxyKubeconfig                        string
}

// writeConfig writes the kubeconfigs and configuration files of the components that this package starts.
func (n *Node) writeConfig() error {
	if err := os.MkdirAll(n.path("config", "cni"), 0o700); err != nil {
		return fmt.Errorf("make a directory of the node: %w", err)
	}
	kubelet, err := n.writeKubeconfig("kubelet", pkix.Name{CommonName: "system:node:" + Name, Organization: []string{"system:nodes"}})
	if err != nil {
		return err
	}
	for _, name := range []string{"kube-scheduler", "kube-proxy"} {
		if _, err := n.writeKubeconfig(name, pkix.Name{CommonName: "system:" + name}); err != nil {
			return err
		}
	}
	filled := settings{
		Name: n.claim.Name, Dir: n.claim.Dir, Address: nodeAddress, PodRange: podRange, NodeName: Name,
		PauseImage: pauseImage, CNIPlugins: cniPlugins,
		Shim: n.programs["containerd-shim-runc-v2"], ShimSockets: n.claim.shimSockets(),
		CA: n.RootCAFile(), KubeletCertificate: kubelet.CertFile, KubeletKey: kubelet.KeyFile,
		ProxyKubeconfig: n.kubeconfig("kube-proxy"),
	}
	return errors.Join(
		n.writeSettings("containerd.toml", "containerd.toml", filled),
		n.writeSettings("cni.conflist", "cni/cni.conflist", filled),
		n.writeSettings("kubelet.yaml", "kubelet.yaml", filled),
		n.writeSettings("kube-proxy.yaml", "kube-proxy.yaml", filled))
}

// writeKubeconfig makes a component known to the API server under the subject.
func (n *Node) writeKubeconfig(name string, subject pkix.Name) (*rest.Config, error) {
	config, err := n.CertificateConfig(name, subject)
	if err != nil {
		return nil, err
	}
	return config, testbed.WriteKubeconfig(n.kubeconfig(name), config)
}

func (n *Node) writeSettings(source, target string, filled settings) error {
	parsed, err := template.ParseFS(configFiles, "config/"+source)
	if err != nil {
		return fmt.Errorf("read a configuration file: %w", err)
	}
	var content bytes.Buffer
	if err := parsed.Execute(&content, filled); err != nil {
		return fmt.Errorf("fill in a configuration file: %w", err)
	}
	if err := os.WriteFile(n.path("config", target), content.Bytes(), 0o600); err != nil {
		return fmt.Errorf("write a configuration file: %w", err)
	}
	return nil
}

func (n *Node) startContainerd(ctx context.Context) error {
	return n.start(ctx, testbed.Program{
		Name: "containerd",
		Args: []string{"--config=" + n.path("config", "containerd.toml")},
		Ready: func(ctx context.Context) error {
			connection, err := (&net.Dialer{}).DialContext(ctx, "unix", n.containerdSocket())
			if err != nil {
				return err
			}
			return connection.Close()
		},
	})
}

func (n *Node) startScheduler(ctx context.Context) error {
	client, err := rest.HTTPClientFor(rest.AnonymousClientConfig(n.AdminConfig()))
	if err != nil {
		return fmt.Errorf("make the client that probes the scheduler: %w", err)
	}
	serving, err := n.CertificateConfig("kube-scheduler-serving", pkix.Name{CommonName: "kube-scheduler"})
	if err != nil {
		return err
	}
	kubeconfig := n.kubeconfig("kube-scheduler")
	return n.start(ctx, testbed.Program{
		Name: "kube-scheduler",
		Args: []string{
			"--kubeconfig=" + kubeconfig,
			"--authentication-kubeconfig=" + kubeconfig,
			"--authorization-kubeconfig=" + kubeconfig,
			"--bind-address=" + nodeAddress,
			"--secure-port=" + schedulerPort,
			"--tls-cert-file=" + serving.CertFile,
			"--tls-private-key-file=" + serving.KeyFile,
			"--leader-elect=false",
		},
		Ready: func(ctx context.Context) error {
			return probe(ctx, client, "https://"+net.JoinHostPort(nodeAddress, schedulerPort)+"/healthz")
		},
	})
}

func (n *Node) startProxy(ctx context.Context) error {
	return n.start(ctx, testbed.Program{
		Name: "kube-proxy",
		Args: []string{"--config=" + n.path("config", "kube-proxy.yaml")},
		Ready: func(ctx context.Context) error { // it reports itself healthy before its rules exist
			connection, err := n.claim.namespace().dial(ctx, "tcp", apiService)
			if err != nil {
				return err
			}
			return connection.Close()
		},
	})
}

// StartKubelet starts kubelet and waits until it is healthy. A running one is stopped first; Pods outlive it.
func (n *Node) StartKubelet(ctx context.Context) error {
	return n.start(ctx, testbed.Program{
		Name: "kubelet",
		Args: []string{
			"--config=" + n.path("config", "kubelet.yaml"),
			"--kubeconfig=" + n.kubeconfig("kubelet"),
			"--hostname-override=" + Name,
			"--node-ip=" + nodeAddress,
			"--root-dir=" + n.path("kubelet"),
			"--cert-dir=" + n.path("kubelet", "pki"),
		},
		Ready: func(ctx context.Context) error {
			return probe(ctx, n.HTTPClient(), "http://"+kubeletHealth+"/healthz")
		},
	})
}

// StopKubelet ends kubelet and waits until it is gone. Its Pods go on.
func (n *Node) StopKubelet() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.processes["kubelet"].Stop()
}

// start starts one of the programs by its name, in place of one that runs.
func (n *Node) start(ctx context.Context, program testbed.Program) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopped {
		return testbed.ErrStopped
	}
	n.processes[program.Name].Stop()
	program.Path = n.programs[program.Name]
	program.Env = []string{"PATH=" + searchPath()}
	process, err := n.StartProgram(ctx, program)
	if err != nil {
		return err
	}
	n.processes[program.Name] = process
	return nil
}

// awaitReady waits until the node is Ready, and the taint is off that keeps Pods from a node which is not.
func (n *Node) awaitReady(ctx context.Context) error {
	clients, err := kubernetes.NewForConfig(n.AdminConfig())
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	state := errors.New("no answer")
	err = wait.PollUntilContextTimeout(ctx, readyPoll, readyTimeout, true, func(ctx context.Context) (bool, error) {
		node, err := clients.CoreV1().Nodes().Get(ctx, Name, metav1.GetOptions{})
		if err != nil {
			state = err
			return false, nil //nolint:nilerr // the error is returned when the time is over
		}
		state = unreadiness(node)
		return state == nil, nil
	})
	if err == nil {
		return nil
	}
	log, logErr := n.Logs("kubelet")
	return errors.Join(fmt.Errorf("the node is not ready: %w; last: %w; the end of kubelet's log:\n%s",
		err, state, log[max(0, len(log)-6<<10):]), logErr)
}

// unreadiness says why a node may not be given Pods; nil if it may.
func unreadiness(node *corev1.Node) error {
	if len(node.Spec.Taints) > 0 {
		return fmt.Errorf("it is tainted: %s", node.Spec.Taints[0].Key)
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
			return nil
		}
	}
	return errors.New("it does not say that it is ready")
}

// HTTPClient is a client that reaches addresses inside the network namespace: ClusterIPs and Pods among them. URLs must name
// an IP address. It keeps no connection.
func (n *Node) HTTPClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext:       n.claim.namespace().dial,
		DisableKeepAlives: true,
	}}
}

// probe wants status 200 from a URL.
func probe(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("make a probe: %w", err)
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("probe %s: %s", url, response.Status)
	}
	return nil
}

// path is a file in the node's directory.
func (n *Node) path(parts ...string) string {
	return filepath.Join(n.claim.Dir, filepath.Join(parts...))
}

func (n *Node) kubeconfig(name string) string { return n.path("config", name+".kubeconfig") }

func (n *Node) containerdSocket() string { return n.path("containerd", "containerd.sock") }
