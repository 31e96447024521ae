// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package authorize gives the owner of a reservation what it needs in a cluster: it looks whether that can be done
// (Preflight), applies the reserved manifests and proves the credential (Authorize), and tells afterwards whether all is
// as it should be (Status) and whether the guard really stands before it (Verify).
//
// All of it derives from the reserved set. Nothing here knows a reserved name.
package authorize

import (
	"errors"
	"fmt"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/lookup"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// DefaultWait is how long a token and its permissions are waited for.
const DefaultWait = 60 * time.Second

// ErrIncomplete says that an Authorizer lacks something it cannot work without.
var ErrIncomplete = errors.New("authorizer is incomplete")

// Cluster is how the cluster is reached. All fields but Records and Namespace are needed.
type Cluster struct {
	Client  kubernetes.Interface
	Dynamic dynamic.Interface
	// Config is where a reserved token is tried out: its address and its CA. Its credentials are not used for that.
	Config *rest.Config
	// Records are what Status counts; nil leaves it unknown.
	Records Records
	// Namespace is the guard's. There Authorize leaves which token Secrets are in use, for the guard to read; empty leaves
	// nothing anywhere.
	Namespace string
}

// Connect makes the clients of a cluster. The config is copied; where it sets no rate limit, a higher one than client-go's
// own is used, as one run may ask a hundred short questions.
func Connect(config *rest.Config) (Cluster, error) {
	config = rest.CopyConfig(config)
	if config.QPS == 0 && config.RateLimiter == nil {
		config.QPS, config.Burst = 100, 200
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return Cluster{}, fmt.Errorf("make a client of the API server: %w", err)
	}
	dynamicClient, err := dynamic.NewForConfig(config)
	if err != nil {
		return Cluster{}, fmt.Errorf("make a client of the API server: %w", err)
	}
	records, err := store.New(config)
	if err != nil {
		return Cluster{}, err
	}
	return Cluster{Client: client, Dynamic: dynamicClient, Config: config, Records: records}, nil
}

// Authorizer works on one reserved set in one cluster. It holds no state: it is safe for concurrent use, though two
// Authorize at a time get in each other's way.
type Authorizer struct {
	set     *reserved.Set
	cluster Cluster
	// connect makes the client that tries out a token.
	connect func(*rest.Config) (kubernetes.Interface, error)
}

// New returns an Authorizer; the error is ErrIncomplete.
func New(set *reserved.Set, cluster Cluster) (*Authorizer, error) {
	if set == nil || cluster.Client == nil || cluster.Dynamic == nil || cluster.Config == nil {
		return nil, fmt.Errorf("it needs a reserved set, both clients and a client configuration: %w", ErrIncomplete)
	}
	connect := func(config *rest.Config) (kubernetes.Interface, error) { return kubernetes.NewForConfig(config) }
	return &Authorizer{set: set, cluster: cluster, connect: connect}, nil
}

// lookups reads what the guard looks up, so that both come to the same answer.
func (a *Authorizer) lookups() lookup.Reader {
	return lookup.Reader{Client: a.cluster.Client, Config: a.cluster.Config, Namespace: a.cluster.Namespace}
}

// Options are the choices of one run. The zero Options enforce private network access, repair nothing, wait DefaultWait
// and report to nobody.
type Options struct {
	PrivateNetwork NetworkMode
	// Repair puts right what differs from its manifest. Without it, a difference stops the run.
	Repair bool
	// Wait bounds, for each token, how long it and its permissions are waited for; 0 stands for DefaultWait.
	Wait time.Duration
	// Report is called with each line as it happens, from the calling goroutine; nil for nobody.
	Report func(Line)
	// Checked is called with the preflight's checks, before anything is written; nil for nobody.
	Checked func(Checks)
}

func (o Options) wait() time.Duration {
	if o.Wait == 0 {
		return DefaultWait
	}
	return o.Wait
}

func (o Options) checked(checks Checks) {
	if o.Checked != nil {
		o.Checked(checks)
	}
}

func (o Options) report(line Line) {
	if o.Report != nil {
		o.Report(line)
	}
}

// NetworkMode says what becomes of private network access that is off.
type NetworkMode string

// Modes. The zero NetworkMode enforces.
const (
	// NetworkEnforce fails the check.
	NetworkEnforce NetworkMode = "enforce"
	// NetworkWarn makes it Unknown, with the remedy.
	NetworkWarn NetworkMode = "warn"
	// NetworkSkip does not look.
	NetworkSkip NetworkMode = "skip"
)

// ErrUnknownMode says that a text names no NetworkMode.
var ErrUnknownMode = errors.New("not enforce, warn or skip")

// ParseNetworkMode reads a mode as people write it; the error is ErrUnknownMode.
func ParseNetworkMode(text string) (NetworkMode, error) {
	switch mode := NetworkMode(text); mode {
	case NetworkEnforce, NetworkWarn, NetworkSkip:
		return mode, nil
	default:
		return "", fmt.Errorf("private network mode %q: %w", text, ErrUnknownMode)
	}
}
