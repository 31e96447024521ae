// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strconv"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

// maxNamed is the max number of changed fields that a message names.
const maxNamed = 8

// maxName is the max length of an object's name in a message: the limit of the API server for most kinds.
const maxName = 253

// Message returns the message of a denial for the user, which never contains a value of the object:
//
//	Secret "x" is reserved by API Gateway and must not be deleted. [namespace kube-system, record 20261125t0820-delete-7f3a90c1]
//
// The end of the line is what a denied user reports: the namespace and the name of the record, as far as there are any. If the
// denial concerns a reserved resource, a hint that is not empty is its second line. The hint tells how to make the change.
func (d Decision) Message(hint, record string) string {
	var where []string
	if d.Object.Namespace != "" {
		where = append(where, "namespace "+d.Object.Namespace)
	}
	if record != "" {
		where = append(where, "record "+record)
	}
	line := d.Sentence()
	if len(where) > 0 {
		line += whereStart + strings.Join(where, ", ") + whereEnd
	}
	if d.Resource == nil || hint == "" {
		return line
	}
	return line + "\n" + hint
}

// No sentence ends in whereEnd.
const (
	whereStart = " ["
	whereEnd   = "]"
)

// SentenceOf returns the sentence of the first line of a Message.
func SentenceOf(line string) string {
	if at := strings.LastIndex(line, whereStart); at >= 0 && strings.HasSuffix(line, whereEnd) {
		return line[:at]
	}
	return line
}

// UnlockPlaceholder is the part of a hint that the guard replaces by the command that unlocks the denied write.
const UnlockPlaceholder = "{unlock}"

// DefaultHint is the second line of a denial.
const DefaultHint = "To change it on purpose, a cluster administrator runs: " + UnlockPlaceholder

// Hint returns the hint with the command in the place of UnlockPlaceholder. The command allows the denied write for its user, and a
// shell reads it as that whatever the names are. A user whose name cannot be printed whole is left out.
func (d Decision) Hint(hint string, r *Request) string {
	if d.Resource == nil || !strings.Contains(hint, UnlockPlaceholder) {
		return hint
	}
	kind := d.Resource.Kind
	if d.Via != "" {
		kind = text.Printable(r.Kind, maxName)
	}
	reason := fmt.Sprintf("%s %s %s", strings.ToLower(string(r.Operation)), kind, d.Object.Name)
	quoted := `"` + reason + `"`
	if strings.ContainsAny(reason, "\"$`\\!") {
		quoted = text.Quote(reason)
	}
	command := fmt.Sprintf("%s unlock --reason %s --for 10m", guardian.Name, quoted)
	if d.Resource.Reservation != guardian.Reservation {
		command += " --reservation " + d.Resource.Reservation
	}
	if r.Operation != admissionv1.Update {
		command += " --operation " + string(r.Operation)
	}
	if user := r.User.Name; user != "" && text.Printable(user, maxName) == user {
		command += " --user " + text.Quote(user)
	}
	return strings.ReplaceAll(hint, UnlockPlaceholder, command)
}

// Sentence returns the first line of the Message without its end.
func (d Decision) Sentence() string {
	if d.Resource == nil {
		return d.otherSentence()
	}
	object := fmt.Sprintf("%s %s", d.Resource.Kind, strconv.Quote(d.Object.Name))
	if d.Via != "" {
		object = fmt.Sprintf("%s %s %s, which", d.Via, d.Resource.Kind, strconv.Quote(d.Resource.Name))
	}
	switch d.Outcome {
	case v1alpha1.Authorized:
		return fmt.Sprintf("%s is reserved by %s. The request creates it as its manifest says.", object, d.Resource.Owner)
	case v1alpha1.Restored:
		return fmt.Sprintf("%s is reserved by %s. The request restores it as its manifest says (changed: %s).",
			object, d.Resource.Owner, list(d.Changed))
	}
	switch d.Reason {
	case ReservedDelete, NamespaceTerminating:
		if d.Resource.Guard == reserved.GuardExistence {
			return fmt.Sprintf("%s holds resources reserved by %s and must not be deleted.", object, d.Resource.Owner)
		}
		return fmt.Sprintf("%s is reserved by %s and must not be deleted.", object, d.Resource.Owner)
	case Unlocked:
		return fmt.Sprintf("%s is reserved by %s. Unlock %q allows the write: %s", object, d.Resource.Owner, d.Unlock, d.Justification)
	case Exemption:
		return fmt.Sprintf("%s is reserved by %s. An exemption allows the write: %s", object, d.Resource.Owner, d.Justification)
	case SystemDelete:
		return fmt.Sprintf("%s was deleted by the control plane: its ServiceAccount no longer exists.", object)
	case SideDoor:
		return fmt.Sprintf("%s is reserved by %s.", object, d.Resource.Owner)
	case TokenMint:
		return fmt.Sprintf("%s would hold a token of ServiceAccount %q, which is reserved by %s.",
			object, d.Resource.Account, d.Resource.Owner)
	case ReservedCreate:
		return d.createSentence(object)
	default:
		return fmt.Sprintf("%s is reserved by %s and must not be updated (changed: %s).",
			object, d.Resource.Owner, list(d.Changed))
	}
}

// otherSentence is about a request that was not read, or about an object of the guard itself.
func (d Decision) otherSentence() string {
	switch d.Reason {
	case TooLarge:
		return "The request is too large and was denied, because it may concern a reserved resource."
	case Overloaded:
		return "The guard is overloaded and denied the request unread, because it may concern a reserved resource. Try again."
	case UnlockRejected:
		return fmt.Sprintf("Unlock %q is denied: %s.", d.Object.Name, d.Problem)
	case AckRejected:
		return fmt.Sprintf("The acknowledgement of record %q is denied: %s.", d.Object.Name, d.Problem)
	default:
		return "The request cannot be judged and was denied, because it may concern a reserved resource."
	}
}

func (d Decision) createSentence(object string) string {
	if d.Resource.NamePrefix != "" && d.Object.Name != d.Resource.Name {
		return fmt.Sprintf("%s has the prefix %q, which is reserved by %s, and must not be created.",
			object, d.Resource.NamePrefix, d.Resource.Owner)
	}
	if len(d.Changed) == 0 { // it matches its manifest
		return fmt.Sprintf("%s is reserved by %s, whose authorization is retired, and must not be created. "+
			"To authorize %s again: %s authorize --again", object, d.Resource.Owner, d.Resource.Owner, guardian.Name)
	}
	return fmt.Sprintf("%s is reserved by %s and must match its manifest when it is created (different: %s).",
		object, d.Resource.Owner, list(d.Changed))
}

func list(paths []string) string {
	if len(paths) <= maxNamed {
		return strings.Join(paths, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(paths[:maxNamed], ", "), len(paths)-maxNamed)
}
