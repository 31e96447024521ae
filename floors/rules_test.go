// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package floors

const module = "github.com/apigw-guardian/apigw-guardian"

// building lists every package below pkg, and certs, lowest floor first. A package imports, of this module, packages of
// lower floors only. A new package is put as low as its imports allow.
var building = []floor{
	{
		packages: []string{"pkg/rawjson"},
		reason:   "it reads bytes, and knows nothing of Kubernetes or of this product",
	},
	{
		packages: []string{"pkg/apis/guardian", "pkg/apis/guardian/crds"},
		reason:   "names and generated files are data",
	},
	{
		packages: []string{"pkg/apis/guardian/v1alpha1"},
		reason:   "the custom resources need the name of their group",
	},
	{
		packages: []string{"pkg/probe", "pkg/reserved"},
		reason:   "what is stored, reserved, asked and proved are data, independent of each other; what uses them brings them together",
	},
	{
		packages: []string{"pkg/policy"},
		reason:   "the decision follows from a request and the reserved set alone, so that a test can state every case of it",
	},
	{
		packages: []string{"pkg/audit"},
		reason:   "a record is the fact of a decision; what stores, counts and shows records stands above it",
	},
	{
		packages: []string{
			"pkg/audit/export",
			"pkg/audit/apilog",
			"pkg/audit/terminal",
		},
		reason: "how records look to other programs, and to people, and how they compare with the API server's log, follows from the facts alone",
	},
	{
		packages: []string{
			"certs",
			"pkg/audit/web",
			"pkg/facts",
			"pkg/audit/recorder",
			"pkg/audit/store",
			"pkg/registration",
			"pkg/webhook",
		},
		reason: "the edges meet in cmd, which wires them: none needs another to be tested or replaced",
	},
	{
		packages: []string{"pkg/live", "pkg/server"},
		reason:   "live compares objects with what facts reads, and server serves the handler of webhook",
	},
	{
		packages: []string{"pkg/authorize", "pkg/verify"},
		reason:   "both read the cluster through live; authorize writes what verify attacks, and neither needs the other",
	},
	{
		packages: []string{"pkg/status"},
		reason:   "one report has the platform checks of authorize and the attacks of verify",
	},
}

// outside lists what stands beside the building: programs, and what only tests use.
var outside = []string{"cmd", "e2e", "corpus", "floors"}

// rules say what packages may know of the world outside this module.
var rules = []rule{
	{
		packages: []string{"pkg/rawjson"},
		only:     []string{},
		reason:   "it reads bytes: the standard library is enough",
	},
	{
		packages: []string{"pkg/reserved"},
		only:     []string{"k8s.io/api/...", "k8s.io/apimachinery/...", "sigs.k8s.io/json", "sigs.k8s.io/yaml"},
		reason:   "the reserved set is data: it needs the API's types, and the decoders that Kubernetes reads its YAML with",
	},
	{
		packages: []string{"pkg/policy"},
		only:     []string{"k8s.io/api/...", "k8s.io/apimachinery/...", "k8s.io/component-helpers/auth/rbac/validation"},
		reason:   "the decision compares API types; RBAC rules are compared by Kubernetes' own function, and not by one that may differ",
	},
	{
		packages: []string{"pkg/probe"},
		only:     []string{"k8s.io/api/..."},
		reason:   "a proof is a signature of the standard library: what signs and what verifies read the same few lines",
	},
	{
		packages: []string{"pkg/apis/guardian/v1alpha1"},
		only:     []string{"k8s.io/api/...", "k8s.io/apimachinery/..."},
		reason:   "whoever reads the guard's custom resources imports this package, and should get nothing else with it",
	},
	{
		packages: []string{"pkg/audit"},
		only:     []string{"k8s.io/api/...", "k8s.io/apimachinery/..."},
		reason:   "a record is data: who stores it is not its business",
	},
	{
		packages: []string{"pkg/audit/export"},
		only:     []string{"k8s.io/api/...", "k8s.io/apimachinery/..."},
		reason:   "the formats are JSON and CSV: the standard library writes them",
	},
	{
		packages: []string{"pkg/audit/terminal"},
		only:     []string{"k8s.io/api/...", "k8s.io/apimachinery/...", "golang.org/x/text/width"},
		reason:   "a screen needs to know how wide a letter is; what terminal it is, and whether it shows colours, is told",
	},
	{
		packages: []string{"pkg/audit/apilog"},
		only:     []string{"k8s.io/api/...", "k8s.io/apimachinery/..."},
		never:    []string{"context", "log/...", "os/..."},
		reason:   "what a log says follows from its bytes: it opens no file and asks nobody, and takes no weight of the API server's own types",
	},
	{
		packages: []string{
			"pkg/apis/guardian/v1alpha1",
			"pkg/audit",
			"pkg/audit/export",
			"pkg/audit/apilog",
			"pkg/audit/terminal",
			"pkg/policy",
			"pkg/rawjson",
			"pkg/reserved",
		},
		never:   []string{"k8s.io/client-go/...", "sigs.k8s.io/controller-runtime/..."},
		through: true,
		reason:  "the core asks nobody: with a client in reach, a decision could come to depend on a call that hangs or fails",
	},
	{
		packages: []string{"pkg/rawjson", "pkg/policy"},
		never:    []string{"context", "log/...", "math/rand/...", "net", "os/...", "time"},
		reason:   "the core has no clock, context, logger, file or chance: the same request gets the same answer, today and in a replay",
	},
	{
		packages: []string{"pkg/reserved"},
		never:    []string{"context", "log/...", "math/rand/...", "net/...", "os/exec", "time"},
		reason:   "it reads files once, at the start, and is data from then on",
	},
	{
		packages: []string{"pkg/webhook", "pkg/server"},
		never: []string{
			"k8s.io/client-go/...", "sigs.k8s.io/controller-runtime/pkg/cache/...", "sigs.k8s.io/controller-runtime/pkg/client/...",
			"sigs.k8s.io/controller-runtime/pkg/manager/...",
		},
		through: true,
		reason:  "answering needs no call to the API server, no cache and no leader, so that the guard answers while those are down",
	},
	{
		packages: []string{"pkg/webhook"},
		never:    []string{"sigs.k8s.io/controller-runtime/..."},
		through:  true,
		reason:   "the handler is an http.Handler: its tests and benchmarks run it without a manager",
	},
	{
		packages: []string{"pkg/audit/web"},
		only:     []string{"k8s.io/api/...", "k8s.io/apimachinery/..."},
		reason:   "a page is told of records, and serves them with the standard library: what it cannot reach, no request can make it ask",
	},
	{
		packages: []string{"pkg/audit/web"},
		never:    []string{"k8s.io/client-go/...", "sigs.k8s.io/controller-runtime/..."},
		through:  true,
		reason:   "a browser speaks to it: it holds no credential of the cluster",
	},
	{
		packages: []string{"cmd/apigw-guardian"},
		never: []string{
			"testing/...", "k8s.io/kubernetes/...", "k8s.io/client-go/kubernetes/fake", "github.com/chromedp/...",
			module + "/corpus/...", module + "/e2e/...",
		},
		through: true,
		reason:  "the binary carries no test code, and no code of the control plane that it guards",
	},
}

// badNames are names of packages that say where code was put, and not what it is about.
var badNames = []string{"util", "utils", "helper", "helpers", "common", "shared", "base", "types", "misc", "core", "lib"}
