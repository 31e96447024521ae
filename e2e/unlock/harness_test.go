// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package unlock proves on a real API server that an Unlock allows what it says and nothing else. The guard runs as a user of its
// own, and everybody else has every right that RBAC can grant.
package unlock

import (
	"context"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
)

// Two beds run in parallel, because most tests wait for the end of an Unlock or of an outage.
func TestMain(m *testing.M) {
	harness.Main(m, 2, harness.WithWorld)
}

const (
	// guardUser is the user of the guards.
	guardUser = "guard-of-these-tests"
	reason    = "a test changes it on purpose"
)

// proxy passes connections on to the API server until it is cut.
type proxy struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	isCut bool
	open  []net.Conn
}

func startProxy(t *testing.T) *proxy {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	p := &proxy{listener: listener, target: strings.TrimPrefix(harness.Of(t).Cluster.AdminConfig().Host, "https://")}
	t.Cleanup(func() {
		_ = listener.Close()
		p.cut()
	})
	go p.serve()
	return p
}

func (p *proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		go p.splice(client)
	}
}

func (p *proxy) splice(client net.Conn) {
	defer func() { _ = client.Close() }()
	p.mu.Lock()
	if p.isCut {
		p.mu.Unlock()
		return
	}
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		p.mu.Unlock()
		return
	}
	p.open = append(p.open, client, server)
	p.mu.Unlock()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	_, _ = io.Copy(client, server)
	_ = server.Close()
}

// cut closes all connections, and every new one.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isCut = true
	for _, connection := range p.open {
		_ = connection.Close()
	}
	p.open = nil
}

func (p *proxy) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isCut = false
}

// replica is a guard that reaches the API server through a proxy.
type replica struct {
	*proxy
	t     *testing.T
	front *testbed.Front
	flags []string
	guard *testbed.Guard
	// name is how the guard calls itself.
	name string
}

// certificates tells the files of the guards' certificates apart: two beds run side by side.
var certificates atomic.Int64

// startReplicas starts guards behind one front, and waits until reviews reach them. What the test changes is put right at its end.
func startReplicas(t *testing.T, count int, flags ...string) []*replica {
	t.Helper()
	return startReplicasAt(t, make([]time.Duration, count), flags...)
}

// startReplicasAt starts guards of which each sees the API server's clock ahead of its own by an offset.
func startReplicasAt(t *testing.T, ahead []time.Duration, flags ...string) []*replica {
	t.Helper()
	front, err := testbed.StartFront()
	must(t, err)
	t.Cleanup(front.Stop)
	t.Cleanup(func() { cleanUp(t) })
	replicas := make([]*replica, len(ahead))
	for i := range replicas {
		r := &replica{t: t, front: front, proxy: startProxy(t)}
		config, err := harness.Of(t).Cluster.CertificateConfig(fmt.Sprint("guard-", certificates.Add(1)), pkix.Name{CommonName: guardUser})
		must(t, err)
		config.Host = "https://" + r.listener.Addr().String()
		if ahead[i] != 0 {
			config = ofOtherTime(t, config, ahead[i])
		}
		kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
		must(t, testbed.WriteKubeconfig(kubeconfig, config))
		r.flags = append([]string{
			"--kubeconfig=" + kubeconfig, "--url=" + front.URL(), "--leader-elect", "--spool-dir=" + filepath.Join(t.TempDir(), "spool"),
		}, flags...)
		replicas[i] = r
		r.start()
		t.Cleanup(r.stop)
	}
	harness.Eventually(t, "a forbidden write is denied", harness.Denies(t, world(t)))
	return replicas
}

// ofOtherTime returns a configuration for a server that answers like the API server, with a clock ahead of it.
func ofOtherTime(t *testing.T, config *rest.Config, ahead time.Duration) *rest.Config {
	t.Helper()
	target, err := url.Parse(config.Host)
	must(t, err)
	transport, err := rest.TransportFor(config)
	must(t, err)
	server := httptest.NewTLSServer(&httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1, // a watch is passed on as it comes
		ModifyResponse: func(response *http.Response) error {
			response.Header.Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
			return nil
		},
	})
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return &rest.Config{Host: server.URL, TLSClientConfig: rest.TLSClientConfig{CAData: authority}}
}

// start starts the guard, and waits until it is ready and has noted that it reads unlocks.
func (r *replica) start() {
	r.t.Helper()
	bed, before := harness.Of(r.t), replicaNames(r.t)
	guard, err := bed.Cluster.LaunchGuard(bed.Program, r.flags...)
	must(r.t, err)
	r.guard = guard
	harness.AwaitReady(r.t, guard)
	r.front.Add(guard)
	harness.Eventually(r.t, "the guard notes that it reads unlocks", func() (bool, any) {
		names := replicaNames(r.t)
		for _, name := range names {
			if !slices.Contains(before, name) {
				r.name = name
				return true, nil
			}
		}
		return false, names
	})
}

// kill ends the guard without a shutdown, like a failing node.
func (r *replica) kill() {
	r.front.Remove(r.guard)
	r.guard.Kill()
}

func (r *replica) stop() {
	r.mend()
	r.front.Remove(r.guard)
	r.guard.Stop()
	harness.ShowLog(r.t, r.guard)
}

// cleanUp removes the webhook configuration, all unlocks and the notes of killed replicas, and puts the world right.
func cleanUp(t *testing.T) {
	t.Helper()
	harness.RemoveRegistration(t)
	ctx := context.WithoutCancel(t.Context())
	deleteUnlocks(t)
	notes := harness.Clients(t).CoreV1().ConfigMaps(guardian.Namespace).Delete(ctx, guardian.Replicas, metav1.DeleteOptions{})
	if err := errors.Join(client.IgnoreNotFound(notes), world(t).Reset(ctx)); err != nil {
		t.Error(err)
	}
}

// deleteUnlocks deletes all unlocks behind the guard's back.
func deleteUnlocks(t *testing.T) {
	t.Helper()
	unguarded, err := dynamic.NewForConfig(harness.Of(t).Cluster.UnguardedConfig())
	if err == nil {
		err = unguarded.Resource(policy.UnlockResource()).
			DeleteCollection(context.WithoutCancel(t.Context()), metav1.DeleteOptions{}, metav1.ListOptions{})
	}
	if err != nil {
		t.Error(err)
	}
}

// replicaNames are the replicas with a note.
func replicaNames(t *testing.T) []string {
	t.Helper()
	notes, err := harness.Clients(t).CoreV1().ConfigMaps(guardian.Namespace).Get(t.Context(), guardian.Replicas, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	names := []string{}
	for name := range notes.Data {
		names = append(names, name)
	}
	return names
}

func world(t *testing.T) *scenario.World {
	t.Helper()
	return harness.Of(t).World
}

// number tells changes apart: two beds run side by side.
var number atomic.Int64

// change is an update of the object that no other one equals.
func change(object *scenario.Object) scenario.Write {
	return scenario.Merge(object, fmt.Sprintf(`{"metadata":{"labels":{"change":"%d"}}}`, number.Add(1)))
}

// do sends a write as a user.
func do(t *testing.T, user string, write scenario.Write) scenario.Answer {
	t.Helper()
	write.As = scenario.Identity{User: user}
	answer, err := world(t).Guarded.Do(t.Context(), write)
	must(t, err)
	return answer
}

func requireAllowed(t *testing.T, user string, write scenario.Write) {
	t.Helper()
	if answer := do(t, user, write); answer.Code >= http.StatusBadRequest {
		t.Errorf("%s by %s: got %d, want success: %s", write.Path, user, answer.Code, answer.Body)
	}
}

// requireDenied returns the message of the denial.
func requireDenied(t *testing.T, user string, write scenario.Write) string {
	t.Helper()
	answer := do(t, user, write)
	if answer.Code != http.StatusForbidden || !strings.Contains(answer.Status().Message, "is reserved by API Gateway") {
		t.Errorf("%s by %s: got %d, want a denial: %s", write.Path, user, answer.Code, answer.Body)
	}
	return answer.Status().Message
}

// as runs the program as a user.
func as(t *testing.T, user string, args ...string) harness.Ran {
	t.Helper()
	return harness.RunAs(t, harness.Kubeconfig(t, user), args...)
}

// open opens an Unlock for the user.
func open(t *testing.T, user string, args ...string) *v1alpha1.Unlock {
	t.Helper()
	unlock := &v1alpha1.Unlock{}
	as(t, user, append([]string{"unlock", "--reason", reason, "-o", "json"}, args...)...).Require(t, 0).Into(t, unlock)
	return unlock
}

// awaitEnd waits until an Unlock has ended by the clock of the API server.
func awaitEnd(unlock *v1alpha1.Unlock) { time.Sleep(time.Until(unlock.Spec.ExpiresAt.Time)) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
