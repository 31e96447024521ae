// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/probe"
)

const (
	// renewCAs is the age at which a running replica publishes its CAs again, and forgetCAs that at which those of a replica that was
	// killed no longer count. A replica that ends removes them at once.
	renewCAs  = 30 * time.Minute
	forgetCAs = 90 * time.Minute
	// maxPublished bounds the CAs of one replica, in bytes, and maxPublishers the replicas that count, the newest first.
	maxPublished  = 16 << 10
	maxPublishers = 8
)

// PublishedCAs returns, in PEM, the CAs with which the replicas of the webhook configuration serve. A client that may annotate the
// webhook configuration may also edit its caBundle, so these annotations grant nothing more. It ignores those that are too old, that are
// from the future, or that cannot be parsed, and CAs that have expired.
func PublishedCAs(annotations map[string]string, now time.Time) []byte {
	var bundle []byte
	for _, name := range publishers(annotations, now) {
		encoded, _, _ := strings.Cut(annotations[name], " ")
		der, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil || len(der) > maxPublished {
			continue
		}
		certificates, _ := x509.ParseCertificates(der)
		for _, c := range certificates {
			if now.Before(c.NotAfter) {
				bundle = append(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
			}
		}
	}
	return bundle
}

// publishers returns the annotations that count, in the order of their names.
func publishers(annotations map[string]string, now time.Time) []string {
	names := slices.DeleteFunc(slices.Collect(maps.Keys(annotations)), func(name string) bool {
		age := now.Sub(probe.PublishedAt(annotations[name]))
		return !strings.HasPrefix(name, guardian.CAAnnotationPrefix) || age > forgetCAs || age < -time.Minute
	})
	slices.SortFunc(names, func(a, b string) int {
		return probe.PublishedAt(annotations[b]).Compare(probe.PublishedAt(annotations[a]))
	})
	names = names[:min(len(names), maxPublishers)]
	slices.Sort(names) // so that a new time does not change the bundle
	return names
}

// publication returns the value of an annotation.
func publication(bundle []byte, now time.Time) string {
	var der []byte
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		der = append(der, block.Bytes...)
	}
	return base64.StdEncoding.EncodeToString(der) + " " + now.UTC().Format(time.RFC3339)
}

// isPublished reports whether the value says the bundle, and is not due for renewal.
func isPublished(value string, bundle []byte, now time.Time) bool {
	encoded, _, _ := strings.Cut(value, " ")
	wanted, _, _ := strings.Cut(publication(bundle, now), " ")
	return encoded == wanted && now.Sub(probe.PublishedAt(value)) < renewCAs
}

// Union returns the certificates of all bundles in their order, without duplicates.
func Union(bundles ...[]byte) []byte { return Without(bytes.Join(bundles, []byte("\n")), nil) }

// Without returns the certificates of a bundle in their order, without duplicates and without those of the other bundle.
func Without(bundle, other []byte) []byte {
	var kept []byte
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		one := pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})
		if !bytes.Contains(kept, one) && !bytes.Contains(other, one) {
			kept = append(kept, one...)
		}
	}
	return kept
}
