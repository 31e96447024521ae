// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package siege

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/pkg/webhook"
)

// Attack is what clients do at the same time, again and again. Each client goes on after an error: the guard may cut it off.
type Attack struct {
	Name    string
	Clients int
	// Pause is the time between two tries of one client.
	Pause time.Duration
	// throughAPI says that the API server makes the calls, and not the attacker.
	throughAPI bool

	inTest bool
	once   func(context.Context, *target) error
}

// target is what is attacked.
type target struct {
	address string
	world   *scenario.World
}

// nearly is the size of a body that the guard takes, and that was sent until its last bytes.
const nearly = 10<<20 - 100<<10

// Attacks returns all of them.
func Attacks() []Attack {
	return []Attack{
		{Name: "200 posts of 9.9 MiB, all but the last bytes sent", Clients: 200, inTest: true, once: body(nearly, nearly-64, false)},
		{Name: "200 posts of 9.9 MiB without a length, all but the last bytes sent", Clients: 200, once: body(nearly, nearly-64, true)},
		{Name: "200 posts of 9.9 MiB, sent whole", Clients: 200, once: body(nearly, nearly, false)},
		{Name: "200 posts of 30 MiB", Clients: 200, once: body(30<<20, 30<<20, false)},
		{Name: "2,000 posts of 120 KiB, all but the last bytes sent", Clients: 2000, once: body(120<<10, 120<<10-64, false)},
		{Name: "4 clients create Secrets of 2 MB by dry-run", Clients: 4, throughAPI: true, once: largeSecret},
		{Name: "5,000 connections that send nothing", Clients: 5000, Pause: time.Second, inTest: true, once: silent},
		{Name: "5,000 connections that stay idle after the handshake", Clients: 5000, Pause: 10 * time.Second, once: send("")},
		{
			Name: "5,000 connections that send half a head", Clients: 5000, Pause: 10 * time.Second, inTest: true,
			once: send("POST /guard HTTP/1.1\r\nHost: x\r\n"),
		},
		{
			Name: "5,000 connections that send a head of 2,000 fields", Clients: 5000, Pause: 10 * time.Second,
			once: send("POST /guard HTTP/1.1\r\n" + fields(2000)),
		},
		{Name: "5,000 connections that send half a body", Clients: 5000, Pause: 10 * time.Second, once: body(1000, 500, false)},
		{Name: "5,000 connections kept after a request", Clients: 5000, Pause: 10 * time.Second, once: send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")},
		{Name: "2,000 connections a second that send no TLS", Clients: 200, Pause: 100 * time.Millisecond, once: junk},
	}
}

// childKey is the environment variable that makes the program the attacker.
const childKey = "SIEGE_ATTACK"

// Main is called first by a program that calls Run. In the attacker's process, it attacks, and does not return.
func Main() {
	address, name, isChild := strings.Cut(os.Getenv(childKey), " ")
	if !isChild {
		return
	}
	for _, attack := range Attacks() {
		if attack.Name == name {
			attack.run(context.Background(), &target{address: address})
		}
	}
	os.Exit(1)
}

// child attacks from another process with a lower CPU priority: a real attacker uses another machine.
func (a Attack) child(ctx context.Context, address string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	command := exec.CommandContext(ctx, "nice", "-n", "19", self)
	command.Env = append(os.Environ(), childKey+"="+address+" "+a.Name)
	command.Stderr = os.Stderr
	if err := command.Run(); err != nil {
		return fmt.Errorf("attack: %w", err)
	}
	return nil
}

// run attacks until ctx ends.
func (a Attack) run(ctx context.Context, t *target) {
	var clients sync.WaitGroup
	for i := range a.Clients {
		clients.Go(func() {
			pause(ctx, a.Pause*time.Duration(i)/time.Duration(a.Clients))
			for ctx.Err() == nil {
				_ = a.once(ctx, t) // the guard has the right to cut an attacker off
				pause(ctx, max(a.Pause, time.Millisecond))
			}
		})
	}
	clients.Wait()
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// dial opens a TCP connection that ends with ctx.
func (t *target) dial(ctx context.Context) (net.Conn, func(), error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", t.address)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	return conn, func() { stop(); _ = conn.Close() }, nil
}

// shake is dial with a TLS handshake.
func (t *target) shake(ctx context.Context) (*tls.Conn, func(), error) {
	conn, end, err := t.dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the attacker cares for no name
	if err := secure.HandshakeContext(ctx); err != nil {
		end()
		return nil, nil, err
	}
	return secure, end, nil
}

// untilClosed reads until the guard closes the connection.
func untilClosed(conn io.Reader) error {
	_, err := io.Copy(io.Discard, conn)
	return err
}

func silent(ctx context.Context, t *target) error {
	conn, end, err := t.dial(ctx)
	if err != nil {
		return err
	}
	defer end()
	return untilClosed(conn)
}

func junk(ctx context.Context, t *target) error {
	conn, end, err := t.dial(ctx)
	if err != nil {
		return err
	}
	defer end()
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\n\r\n")
	return err
}

// send shakes hands, sends text, and waits.
func send(text string) func(context.Context, *target) error {
	return func(ctx context.Context, t *target) error {
		conn, end, err := t.shake(ctx)
		if err != nil {
			return err
		}
		defer end()
		if _, err := io.WriteString(conn, text); err != nil {
			return err
		}
		return untilClosed(conn)
	}
}

func fields(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%x:\n", i)
	}
	return b.String()
}

// body posts a made-up review of size bytes, of which it sends some.
func body(size, sent int, chunked bool) func(context.Context, *target) error {
	review := madeUp(size)
	length := fmt.Sprintf("Content-Length: %d", size)
	if chunked {
		length = "Transfer-Encoding: chunked"
	}
	head := "POST " + webhook.Path + "?timeout=5s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + length + "\r\n\r\n"
	if chunked {
		head += fmt.Sprintf("%x\r\n", size)
	}
	return func(ctx context.Context, t *target) error {
		conn, end, err := t.shake(ctx)
		if err != nil {
			return err
		}
		defer end()
		answered := make(chan error, 1)
		go func() { answered <- untilClosed(conn) }()
		_, err = io.WriteString(conn, head)
		for rest := review[:sent]; err == nil && rest != ""; {
			n := min(len(rest), 64<<10)
			_, err = io.WriteString(conn, rest[:n])
			rest = rest[n:]
		}
		if err != nil {
			return err
		}
		if sent == size && !chunked {
			pause(ctx, 200*time.Millisecond)
			return nil
		}
		return <-answered
	}
}

// madeUp is a review that says that eve deletes the reserved ClusterRole.
func madeUp(size int) string {
	head := `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"00000000-0000-4000-8000-000000000000",` +
		`"kind":{"group":"rbac.authorization.k8s.io","version":"v1","kind":"ClusterRole"},` +
		`"resource":{"group":"rbac.authorization.k8s.io","version":"v1","resource":"clusterroles"},` +
		`"name":"apigw-ingress-clusterrole","operation":"DELETE","userInfo":{"username":"eve"},"object":null,"dryRun":true,` +
		`"oldObject":{"metadata":{"name":"apigw-ingress-clusterrole"},"x":"`
	const tail = `"}}}`
	return head + strings.Repeat("x", size-len(head)-len(tail)) + tail
}

// largeSecret creates a Secret under the reserved prefix by a dry-run.
func largeSecret(ctx context.Context, t *target) error {
	var labels strings.Builder
	for i := range 14_000 {
		fmt.Fprintf(&labels, `"l%06d%s":"%s",`, i, strings.Repeat("k", 50), strings.Repeat("v", 60))
	}
	manifest := `{"apiVersion":"v1","kind":"Secret","metadata":{"namespace":"kube-system","name":"apigw-ingress-token-large",` +
		`"annotations":{"a":"` +
		strings.Repeat("<", 250<<10) + `"},"labels":{` + strings.TrimSuffix(labels.String(), ",") + `}}}`
	_, err := t.world.Guarded.Do(ctx, scenario.Write{
		Method: "POST", Path: "/api/v1/namespaces/kube-system/secrets", ContentType: scenario.JSON, Body: []byte(manifest),
		As: scenario.Identity{User: "admin", Groups: []string{"system:masters"}},
	}.DryRun())
	return err
}
