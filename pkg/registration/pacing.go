// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"fmt"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

const (
	// freeRepairs is how many repairs in a row follow another client's edit at once. Then there is a pause between two: two controllers
	// that undo each other's writes at full speed fill the audit log of the API server. An edit must not last for a second.
	freeRepairs = 5
	editPause   = 500 * time.Millisecond
	// firstPause doubles up to lastPause after each write that the API server stores with changes: the next one will not last either.
	firstPause = time.Second
	lastPause  = 30 * time.Second
	// lasting is how long a repair must last before the next one counts as the first in a row.
	lasting = time.Minute
	// maxPaths bounds the text of a problem, which is an annotation.
	maxPaths = 8
)

// Partial is part of each problem that leaves reserved resources unprotected.
const Partial = "protection is partial"

// pausedError says that the Repairer writes nothing until a pause is over.
type pausedError struct{ left time.Duration }

func (e *pausedError) Error() string {
	return fmt.Sprintf("the webhook configuration does not stay as the guard writes it: the next attempt is in %s", e.left)
}

// pacing spaces the writes that do not last. It is not safe for concurrent use.
type pacing struct {
	// wrote is the time of the last write, and tried what it wanted; nil before that.
	wrote time.Time
	tried *admissionregistrationv1.ValidatingWebhookConfiguration
	// rewritten counts the writes in a row that the API server stored with changes, and undone the repairs in a row of other clients'
	// edits. A deletion is always repaired at once: without a webhook configuration nothing is protected.
	rewritten, undone int
}

// left returns how long the next write of want must wait. A changed want never waits.
func (p *pacing) left(want *admissionregistrationv1.ValidatingWebhookConfiguration) time.Duration {
	if p.tried == nil || !equality.Semantic.DeepEqual(p.tried, want) {
		return 0
	}
	pause := time.Duration(0)
	switch {
	case p.rewritten > 0:
		pause = min(firstPause<<min(p.rewritten-1, 16), lastPause)
	case p.undone > freeRepairs:
		pause = editPause
	}
	return max(0, pause-time.Since(p.wrote))
}

// note counts a write of want.
func (p *pacing) note(want *admissionregistrationv1.ValidatingWebhookConfiguration, isRewritten, isTampering bool) {
	switch {
	case isRewritten:
		p.rewritten++
	case isTampering:
		p.rewritten = 0
		p.undone++
	default:
		p.rewritten = 0
	}
	p.wrote, p.tried = time.Now(), want
}

// settle ends the row of repairs if the last one has lasted. It reports whether the repairs were contested.
func (p *pacing) settle() (wasContested bool) {
	if time.Since(p.wrote) < lasting {
		return false
	}
	wasContested = p.undone > freeRepairs
	p.undone = 0
	return wasContested
}

// problem says why the webhook configuration does not stay as the guard writes it; "" if it does. found is what the last write found, and
// stored what it left.
func (p *pacing) problem(found, stored, want *admissionregistrationv1.ValidatingWebhookConfiguration, manager string) string {
	switch {
	case p.rewritten > 0:
		return fmt.Sprintf("admission in the API server rewrites the webhook configuration (%s): %s: exempt "+
			"validatingwebhookconfiguration %s from the MutatingAdmissionPolicy or the platform's admission",
			shortened(differences(stored, want)), effect(stored, want), want.Name)
	case p.undone > freeRepairs:
		return fmt.Sprintf("another client (field manager %q) keeps changing the webhook configuration, and the guard repairs it once "+
			"in %s: %s: stop that client", manager, editPause, effect(found, want))
	}
	return ""
}

// effect says what a webhook configuration that is not as wanted does to the protection; nil counts as absent.
func effect(live, want *admissionregistrationv1.ValidatingWebhookConfiguration) string {
	if live != nil && protectsAsMuch(live, want) {
		return "protection is complete"
	}
	return Partial
}

func shortened(paths []string) string {
	if len(paths) > maxPaths {
		return strings.Join(paths[:maxPaths], ", ") + ", ..."
	}
	return strings.Join(paths, ", ")
}
