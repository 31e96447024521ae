// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package live

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/apigw-guardian/apigw-guardian/corpus/shop"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

func TestWhenTheLegacyTokenCleanerDisablesAToken(t *testing.T) {
	t.Parallel()
	day := func(text string) time.Time {
		at, err := time.Parse(time.DateOnly, text)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	for name, test := range map[string]struct {
		edit   func(*corev1.Secret, *corev1.ServiceAccount)
		since  string
		now    string
		reason string
		due    string
	}{
		"never used, a year after tracking began": {since: "2025-11-27", now: "2026-11-28", reason: CleanupDue, due: "2026-11-28"},
		"30 days ahead":                       {since: "2025-11-27", now: "2026-10-29", reason: CleanupDue, due: "2026-11-28"},
		"31 days ahead":                       {since: "2025-11-27", now: "2026-10-28"},
		"used since then":                     {since: "2024-01-01", now: "2026-11-28", edit: used("2026-11-01")},
		"used a year ago":                     {since: "2024-01-01", now: "2026-11-28", edit: used("2025-12-01"), reason: CleanupDue, due: "2026-12-02"},
		"a date that the cleaner cannot read": {since: "2024-01-01", now: "2026-11-28", edit: used("yesterday")},
		"created by hand, so not listed": {since: "2024-01-01", now: "2026-11-28", edit: func(_ *corev1.Secret, a *corev1.ServiceAccount) {
			a.Secrets = nil
		}},
		"created lately": {since: "2024-01-01", now: "2026-11-28", edit: func(s *corev1.Secret, _ *corev1.ServiceAccount) {
			s.CreationTimestamp = metav1.NewTime(day("2026-01-01"))
		}},
		"uses are not noted": {since: "", now: "2026-11-28"},
		"labelled": {since: "2024-01-01", now: "2026-11-28", edit: func(s *corev1.Secret, _ *corev1.ServiceAccount) {
			s.Labels = map[string]string{invalidSinceLabel: "2026-11-01"}
		}, reason: CleanupDone},
	} {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "apigw-ingress-token-x7k2p", CreationTimestamp: metav1.NewTime(day("2022-01-01"))}}
		account := &corev1.ServiceAccount{Secrets: []corev1.ObjectReference{{Name: secret.Name}}}
		if test.edit != nil {
			test.edit(secret, account)
		}
		var tracking *corev1.ConfigMap
		if test.since != "" {
			tracking = &corev1.ConfigMap{Data: map[string]string{trackingKey: test.since}}
		}
		got, due := tracked{secret, account, tracking}.cleanup("s", day(test.now)), ""
		if !got.Due.IsZero() {
			due = got.Due.Format(time.DateOnly)
		}
		if got.Reason != test.reason || due != test.due || (got.Message == "") != (test.reason == "") {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func used(day string) func(*corev1.Secret, *corev1.ServiceAccount) {
	return func(s *corev1.Secret, _ *corev1.ServiceAccount) {
		s.Labels = map[string]string{reserved.LastUsedLabel: day}
	}
}

func TestTokenCleanupLooksAtTheSecretInUse(t *testing.T) {
	t.Parallel()
	const older = "clerk-token-x7k2p"
	now := time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC)
	account := shop.Clerk()
	account.Secrets = []corev1.ObjectReference{{Name: older}}
	labelled := olderSecret(older, func(s *corev1.Secret) { s.Labels = map[string]string{invalidSinceLabel: "2026-11-01"} })
	tracking := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: trackingName}, Data: map[string]string{trackingKey: "2024-01-01"},
	}
	for name, test := range map[string]struct {
		objects []runtime.Object
		want    string
	}{
		"nothing there":          {nil, ""},
		"no Secret":              {[]runtime.Object{account, tracking}, ""},
		"unused for a year":      {[]runtime.Object{account, tracking, olderSecret(older, nil)}, CleanupDue},
		"uses are not noted":     {[]runtime.Object{account, olderSecret(older, nil)}, ""},
		"labelled":               {[]runtime.Object{account, tracking, labelled}, CleanupDone},
		"created by an operator": {[]runtime.Object{account, tracking, olderSecret("clerk-token-by-hand", nil)}, ""},
	} {
		c, _ := newFake(t, test.objects)
		i := slices.IndexFunc(c.Set.Resources(), (*reserved.Resource).IsTokenSecret)
		got, err := c.TokenCleanup(t.Context(), c.Set.Resources()[i], now)
		if err != nil || got.Reason != test.want {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}
