// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/recorder"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
)

func TestTheHandlerRecordsAndAsksCallers(t *testing.T) {
	t.Parallel()
	for name, asks := range map[string]bool{"without a client CA": false, "with a client CA": true} {
		g, err := newTestGuard(t, func(o *Options) {
			if asks {
				o.Certificates.ClientCA = filepath.Join(o.Certificates.Dir, "ca.crt")
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		g.options.Registry = prometheus.NewRegistry() // New has made a handler already
		handler, err := g.newHandler()
		if err != nil {
			t.Fatal(err)
		}
		if handler.Recorder != g.recorder || handler.Lookup == nil || handler.Replica == nil || handler.AsksCallers != asks {
			t.Errorf("%s: the handler has %+v", name, handler)
		}
	}
}

// A guard that observes must never be the reason of a refusal, except that of an Unlock: one that it has not judged would count once
// it enforces.
func TestOnlyAGuardThatObservesFailsOpen(t *testing.T) {
	t.Parallel()
	for mode, want := range map[policy.Mode]admissionregistrationv1.FailurePolicyType{
		policy.Enforce: admissionregistrationv1.Fail, policy.Observe: admissionregistrationv1.Ignore,
	} {
		g, err := newTestGuard(t, func(o *Options) { o.Mode = mode })
		if err != nil {
			t.Fatal(err)
		}
		g.certificates = loadedCertificates(&fakeSource{})
		unproven, err := g.wantedConfiguration(t.Context(), nil)
		if err != nil || *unproven.Webhooks[0].FailurePolicy != admissionregistrationv1.Ignore {
			t.Errorf("mode %v, before a review has arrived: got %v and %v, want Ignore", mode, unproven, err)
		}
		g.reached()
		configuration, err := g.wantedConfiguration(t.Context(), nil)
		if err != nil || len(configuration.Webhooks) == 0 {
			t.Fatalf("got %v and %v", configuration, err)
		}
		for _, webhook := range configuration.Webhooks {
			want := want
			if webhook.Name == "unlocks.apigw-guardian.io" || webhook.Name == "auditrecords.apigw-guardian.io" {
				want = admissionregistrationv1.Fail
			}
			if *webhook.FailurePolicy != want {
				t.Errorf("mode %v: webhook %s has %s, want %s", mode, webhook.Name, *webhook.FailurePolicy, want)
			}
		}
	}
}

func TestARepairIsRecordedAsWhatItUndid(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 25, 8, 20, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		repair registration.Repair
		has    []string
		lacks  string
	}{
		"an edit": {
			registration.Repair{Operation: admissionv1.Update, Changed: []string{"webhooks"}, Manager: "kubectl-edit", At: at},
			[]string{audit.RegistrationChanged, `"webhooks"`, "kubectl-edit", "2026-11-25T08:20:00Z"},
			audit.RegistrationDeleted,
		},
		"a deletion": {
			registration.Repair{Operation: admissionv1.Delete},
			[]string{audit.RegistrationDeleted},
			"field manager",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			g, err := newTestGuard(t, func(o *Options) { o.Records.Mode, o.Records.SpoolDir = recorder.Batch, dir })
			if err != nil {
				t.Fatal(err)
			}
			g.repaired(t.Context(), test.repair)
			files, err := filepath.Glob(filepath.Join(dir, "*"))
			if err != nil || len(files) != 1 {
				t.Fatalf("the spool has %q, %v", files, err)
			}
			spooled, err := os.ReadFile(files[0])
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range append(test.has, `"outcome":"Tampered"`, string(test.repair.Operation)) {
				if !strings.Contains(string(spooled), part) {
					t.Errorf("the record lacks %q:\n%s", part, spooled)
				}
			}
			if strings.Contains(string(spooled), test.lacks) {
				t.Errorf("the record has %q:\n%s", test.lacks, spooled)
			}
		})
	}
}
