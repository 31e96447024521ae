// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package probe proves that a denial came from the guard. A probe is a forbidden dry-run whose object has a random nonce. The replica
// that denies it signs the nonce, and the sender verifies the signature with the keys of the replicas.
//
// A replica makes its key at its start and keeps it in memory. It publishes the public key as an annotation of the webhook
// configuration, which only the guard and cluster administrators may write. A stolen serving certificate or CA signs no probe.
package probe

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

// linePrefix begins the line of a denial's message that has a proof.
const linePrefix = "proof: "

var nonceForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

// Subject is what a proof is about. A proof for one Subject is not valid for another.
type Subject struct {
	Nonce     string
	Operation admissionv1.Operation
	// Resource is group and plural, as schema.GroupResource writes them. Namespace is "" for a cluster-scoped resource.
	Resource, Namespace string
}

// NewNonce returns 128 random bits in the form that IsNonce accepts.
func NewNonce() string {
	var bits [16]byte
	_, _ = rand.Read(bits[:]) // it never fails
	return hex.EncodeToString(bits[:])
}

// IsNonce reports whether s is 32 lower-case hexadecimal digits.
func IsNonce(s string) bool { return nonceForm.MatchString(s) }

// text is what a replica signs. The API server accepts no line break in these names.
func (s Subject) text() []byte {
	return fmt.Appendf(nil, "apigw-guardian probe\n%s\n%s\n%s\n%s", s.Nonce, s.Operation, s.Resource, s.Namespace)
}

// Replica is the identity of one process. NewReplica makes one. Its methods may be called concurrently.
type Replica struct {
	key         ed25519.PrivateKey
	public      ed25519.PublicKey
	id          string
	publication atomic.Pointer[string]
}

// NewReplica makes a key pair. The private key never leaves the Replica.
func NewReplica(now time.Time) *Replica {
	public, private, _ := ed25519.GenerateKey(nil) // crypto/rand never fails
	r := &Replica{key: private, public: public, id: idOf(public)}
	r.Renew(now)
	return r
}

// idOf returns the ID of a key. It is a digest, so that no other key can be published under it.
func idOf(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:8])
}

// KeyAnnotation returns the key of the annotation that publishes this replica.
func (r *Replica) KeyAnnotation() string { return guardian.ReplicaAnnotationPrefix + r.id }

// Publication returns the value of that annotation: the public key, and the time of NewReplica or the last Renew.
func (r *Replica) Publication() string { return *r.publication.Load() }

// Renew sets the time in Publication.
func (r *Replica) Renew(now time.Time) {
	r.publication.Store(new(base64.StdEncoding.EncodeToString(r.public) + " " + now.UTC().Format(time.RFC3339)))
}

// Sign returns the line for a denial's message, without a line break. It does not have the nonce in it.
func (r *Replica) Sign(subject Subject) string {
	return linePrefix + r.id + " " + base64.StdEncoding.EncodeToString(ed25519.Sign(r.key, subject.text()))
}

// Keys are the public keys of replicas by their IDs.
type Keys map[string]ed25519.PublicKey

// KeysOf reads the keys from the annotations of the webhook configuration. It ignores annotations that are not valid keys.
func KeysOf(annotations map[string]string) Keys {
	keys := Keys{}
	for name, value := range annotations {
		id, found := strings.CutPrefix(name, guardian.ReplicaAnnotationPrefix)
		encoded, _, _ := strings.Cut(value, " ")
		key, err := base64.StdEncoding.DecodeString(encoded)
		if found && err == nil && len(key) == ed25519.PublicKeySize && idOf(key) == id {
			keys[id] = key
		}
	}
	return keys
}

// PublishedAt returns the time in the value of an annotation; zero if it has none.
func PublishedAt(value string) time.Time {
	_, text, _ := strings.Cut(value, " ")
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}
	}
	return at
}

// Prove reports whether a line of the message is a proof for the subject by one of the replicas.
func (k Keys) Prove(message string, subject Subject) bool {
	for line := range strings.Lines(message) {
		proof, found := strings.CutPrefix(strings.TrimSuffix(line, "\n"), linePrefix)
		id, encoded, _ := strings.Cut(proof, " ")
		key, known := k[id]
		signature, err := base64.StdEncoding.DecodeString(encoded)
		if found && known && err == nil && ed25519.Verify(key, subject.text(), signature) {
			return true
		}
	}
	return false
}
