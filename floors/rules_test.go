// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package floors

const module = "github.com/apigw-guardian/apigw-guardian"

// layers lists every package below pkg, and certs, lowest layer first. A package may import packages of this module from lower
// layers only. Add a new package to the lowest layer that its imports allow.
var layers = []layer{
	{
		packages: []string{"pkg/rawjson"},
		reason:   "it parses JSON and needs no other package of the module",
	},
	{
		packages: []string{"pkg/apis/guardian", "pkg/text"},
		reason:   "names are data, and untrusted text is bytes: every other package may import them",
	},
	{
		packages: []string{"pkg/apis/guardian/crds", "pkg/apis/guardian/v1alpha1"},
		reason:   "the types of the custom resources and their definitions need only the names of the product",
	},
	{
		packages: []string{"pkg/probe", "pkg/reserved"},
		reason:   "the reserved set and the proof of a probe are independent of each other",
	},
	{
		packages: []string{"pkg/policy"},
		reason:   "the decision depends on the review, the reserved set and the answer to its lookup only, so a test can state every case",
	},
	{
		packages: []string{"pkg/policies"},
		reason:   "it writes the rules of policy in CEL, with its identities of the control plane; registration uses its match conditions",
	},
	{
		packages: []string{"pkg/audit"},
		reason:   "a record holds an event; the packages that store, count and show records import this one",
	},
	{
		packages: []string{"pkg/client"},
		reason:   "it makes the clients of the custom resources and of the notes, which several packages of the next layers share",
	},
	{
		packages: []string{
			"pkg/audit/export",
			"pkg/audit/apilog",
			"pkg/audit/terminal",
		},
		reason: "formatting records and comparing them with the API server's audit log are independent, and need no client",
	},
	{
		packages: []string{
			"certs",
			"pkg/audit/otlp",
			"pkg/audit/report",
			"pkg/audit/web",
			"pkg/lookup",
			"pkg/audit/recorder",
			"pkg/audit/store",
			"pkg/registration",
			"pkg/tke",
			"pkg/unlock",
			"pkg/webhook",
		},
		reason: "each connects the core to one outside system; guard and cmd wire them, so each can be tested and replaced alone",
	},
	{
		packages: []string{"pkg/live", "pkg/server"},
		reason:   "live compares objects with what lookup reads; the server uses the errors and the body of webhook",
	},
	{
		packages: []string{"pkg/authorize", "pkg/verify"},
		reason:   "both read the cluster through live; authorize writes what verify attacks, and neither needs the other",
	},
	{
		packages: []string{"pkg/drift"},
		reason:   "it restores through authorize and proves through verify; guard runs it, and status shows what it has noted",
	},
	{
		packages: []string{"pkg/guard", "pkg/status"},
		reason:   "guard wires the packages of a replica; status reports the checks of authorize and the attacks of verify",
	},
}

// outside lists the directories that belong to no layer: programs, and packages that only tests use.
var outside = []string{"cmd", "e2e", "corpus", "floors"}

// rules limit imports from outside the module.
var rules = []rule{
	{
		packages: []string{"pkg/rawjson"},
		only:     []string{},
		reason:   "it parses JSON with the standard library",
	},
	{
		packages: []string{"pkg/reserved"},
		only:     []string{"k8s.io/api/...", "k8s.io/apimachinery/...", "sigs.k8s.io/json", "sigs.k8s.io/yaml"},
		reason:   "the reserved set is data: it needs the API types, and the decoders that Kubernetes uses for YAML",
	},
	{
		packages: []string{"pkg/policy"},
		only:     []string{"k8s.io/api/...", "k8s.io/apimachinery/..."},
		reason: "it compares objects, RBAC rules included, with its own code on the JSON of the review; " +
			"a test compares that code with k8s.io/component-helpers, which is too slow for a decision",
	},
	{
		packages: []string{"pkg/probe"},
		only:     []string{"k8s.io/api/..."},
		reason:   "the standard library makes and verifies the signature; the review type is from k8s.io/api",
	},
	{
		packages: []string{"pkg/apis/guardian/v1alpha1"},
		only:     []string{"k8s.io/api/...", "k8s.io/apimachinery/..."},
		reason:   "other programs import this package to read the custom resources, and must not get a client with it",
	},
	{
		packages: []string{"pkg/audit"},
		only:     []string{"k8s.io/api/...", "k8s.io/apimachinery/..."},
		reason:   "a record is data: pkg/audit/store reads and writes it",
	},
	{
		packages: []string{"pkg/audit/export"},
		only:     []string{"k8s.io/api/...", "k8s.io/apimachinery/..."},
		reason:   "the standard library encodes JSON and CSV",
	},
	{
		packages: []string{"pkg/audit/otlp"},
		never:    []string{"k8s.io/client-go/...", "sigs.k8s.io/controller-runtime/..."},
		through:  true,
		reason:   "it sends records to a receiver outside the cluster, and holds no credential of the cluster",
	},
	{
		packages: []string{"pkg/audit/terminal"},
		only:     []string{"k8s.io/apimachinery/...", "golang.org/x/text/width"},
		reason:   "x/text/width gives the width of a character; the caller passes the size and colours of the terminal",
	},
	{
		packages: []string{"pkg/audit/report"},
		only:     []string{"k8s.io/apimachinery/..."},
		never:    []string{"context", "log/...", "os/...", "html/template", "text/template"},
		reason:   "a report is a function of its input; a template would make the linker keep every method of the program",
	},
	{
		packages: []string{"pkg/audit/apilog"},
		only:     []string{"k8s.io/api/...", "k8s.io/apimachinery/..."},
		never:    []string{"context", "log/...", "os/..."},
		reason:   "the caller opens the file; the types of k8s.io/apiserver would add a module, and copy every object of the log",
	},
	{
		packages: []string{
			"pkg/apis/guardian/v1alpha1",
			"pkg/audit",
			"pkg/audit/export",
			"pkg/audit/apilog",
			"pkg/audit/terminal",
			"pkg/audit/report",
			"pkg/policy",
			"pkg/rawjson",
			"pkg/reserved",
		},
		never:   []string{"k8s.io/client-go/...", "sigs.k8s.io/controller-runtime/..."},
		through: true,
		reason:  "these packages have no client, so none of their results can depend on a call that hangs or fails",
	},
	{
		packages: []string{"pkg/rawjson", "pkg/policy"},
		never:    []string{"context", "log/...", "math/rand/...", "net", "os/...", "time"},
		reason:   "no clock, context, logger, file or random number: the same review always gets the same decision",
	},
	{
		packages: []string{"pkg/reserved"},
		never:    []string{"context", "log/...", "math/rand/...", "net/...", "os/exec", "time"},
		reason:   "it reads the reservation files once at start, and is constant after that",
	},
	{
		packages: []string{"pkg/webhook", "pkg/server"},
		never: []string{
			"k8s.io/client-go/...", "sigs.k8s.io/controller-runtime/pkg/cache/...", "sigs.k8s.io/controller-runtime/pkg/client/...",
			"sigs.k8s.io/controller-runtime/pkg/manager/...",
		},
		through: true,
		reason: "they have no client: the handler reaches the API server only through the interfaces for lookups and records, " +
			"so it answers without a cache or a leader",
	},
	{
		packages: []string{"pkg/webhook"},
		never:    []string{"sigs.k8s.io/controller-runtime/..."},
		through:  true,
		reason:   "the handler is an http.Handler: tests and benchmarks run it without a manager",
	},
	{
		packages: []string{"pkg/audit/web"},
		only:     []string{"k8s.io/api/...", "k8s.io/apimachinery/..."},
		reason:   "the standard library serves the page; records come through an interface",
	},
	{
		packages: []string{"pkg/audit/web"},
		never:    []string{"k8s.io/client-go/...", "sigs.k8s.io/controller-runtime/..."},
		through:  true,
		reason:   "it answers requests of a browser, and holds no credential of the cluster",
	},
	{
		packages: []string{"cmd/apigw-guardian"},
		never: []string{
			"testing/...", "k8s.io/kubernetes/...", "k8s.io/client-go/kubernetes/fake", "github.com/chromedp/...",
			module + "/corpus/...", module + "/e2e/...", "github.com/spf13/cobra/doc/...", "google.golang.org/grpc/...",
		},
		through: true,
		reason:  "the binary contains no test code, no code of the control plane, no generator of man pages and no gRPC",
	},
}

// badNames are package names that do not say what the package provides.
var badNames = []string{"util", "utils", "helper", "helpers", "common", "shared", "base", "types", "misc", "core", "lib"}
