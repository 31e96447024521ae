// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"slices"
	"strings"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
)

// Advice tells an administrator what to do about a record, in a few sentences on one line. Its commands can be copied: what is
// foreign in them is quoted for a shell. It is never empty.
func Advice(spec *v1alpha1.AuditRecordSpec) string {
	switch spec.Outcome {
	case v1alpha1.WouldDeny:
		return adviceWouldDeny(spec)
	case v1alpha1.Unlocked:
		return "Somebody had unlocked the resource. Compare the change with the reason of the unlock, and see what differs now: " +
			"apigw-guardian status"
	case v1alpha1.Restored:
		return "Nothing: the write put right what differed from the manifest. To see what had gone wrong before: " +
			"apigw-guardian audit list" + filtered("resource", spec.Resource)
	case v1alpha1.Allowed:
		return "Nothing, if the ServiceAccount was deleted on purpose. If not, restore it: apigw-guardian authorize"
	case v1alpha1.Tampered:
		return "Find in the API server's audit log who changed the webhook configuration. Writes to the reserved resources may have " +
			"passed meanwhile. See what differs now: apigw-guardian status"
	case v1alpha1.Unguarded:
		return "The guard was not asked: it was away, or its registration had been removed. Put right what differs " +
			"(apigw-guardian status shows it, apigw-guardian authorize --repair mends it), and find in the API server's audit log who " +
			"removed the registration."
	default:
		return adviceDenied(spec)
	}
}

func adviceWouldDeny(spec *v1alpha1.AuditRecordSpec) string {
	if spec.Reason == string(policy.NamespaceTerminating) {
		return "The namespace is being deleted, and a denial would only have left it stuck. If that is not meant, restore the " +
			"reservation once the namespace is gone: apigw-guardian authorize"
	}
	return "The guard only observes, and let this through. See what differs now: apigw-guardian status. With --mode enforce it " +
		"is denied; until then, treat it so: " + adviceDenied(spec)
}

func adviceDenied(spec *v1alpha1.AuditRecordSpec) string {
	switch policy.Reason(spec.Reason) {
	case FloodReason:
		return "Somebody writes under many names, or to many, faster than a record can be kept of each. The guard's log and the API " +
			"server's audit log have every one: find where they come from, and see that it ends."
	case policy.TokenMint:
		return "Treat it as an attack: this would have made one more credential of the reserved ServiceAccount. Find out who holds " +
			"the credentials of this user, and what else they tried: apigw-guardian audit list" + filtered("user", spec.User.Name)
	case policy.Overloaded:
		return "More large requests came than the guard keeps in memory at a time. Find who sends them in the guard's log and the API " +
			"server's audit log; if it was this user, see what else they tried: apigw-guardian audit list" + filtered("user", spec.User.Name)
	case policy.Unreadable, policy.TooLarge:
		return "No ordinary client sends such a request. Find it in the API server's audit log by its time and user, and see what " +
			"else this user tried: apigw-guardian audit list" + filtered("user", spec.User.Name)
	default:
		return adviceWriter(spec)
	}
}

// adviceWriter depends on who writes: a person reads the message, a program tries again.
func adviceWriter(spec *v1alpha1.AuditRecordSpec) string {
	namespace, account, isAccount := serviceAccount(spec.User.Name)
	switch {
	case slices.Contains(controlPlane(), spec.User.Name):
		return "The control plane makes such a write only after somebody has tampered with the resource, or with what it belongs " +
			"to. See what differs: apigw-guardian status. Look at metadata.ownerReferences, finalizers and aggregationRule too."
	case isAccount:
		return fmt.Sprintf("A program did this, and will try again. See what runs as the ServiceAccount: kubectl -n %s get pods "+
			"--field-selector %s. Take the resource out of what it manages.",
			quote(namespace), quote("spec.serviceAccountName="+account))
	case policy.Reason(spec.Reason) == policy.ReservedCreate:
		return "The name is reserved: choose another one. If the reserved resource itself was to be made: apigw-guardian authorize"
	default:
		return "Ask this user whether it was meant. See what else they tried: apigw-guardian audit list" +
			filtered("user", spec.User.Name)
	}
}

// controlPlane returns the names under which Kubernetes' own controllers write, as far as they come near reserved resources.
func controlPlane() []string {
	const controllers = "system:serviceaccount:kube-system:"
	return []string{
		policy.DefaultControllerManager, "system:apiserver", controllers + "generic-garbage-collector", controllers + "namespace-controller",
		controllers + "clusterrole-aggregation-controller", controllers + "legacy-service-account-token-cleaner",
		controllers + "service-account-controller",
	}
}

// serviceAccount takes the name of a ServiceAccount's user apart.
func serviceAccount(user string) (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(user, "system:serviceaccount:")
	if !ok {
		return "", "", false
	}
	namespace, name, ok = strings.Cut(rest, ":")
	return namespace, name, ok && namespace != "" && name != ""
}

// filtered is the flag of audit list; "" where there is nothing to look for.
func filtered(flag, value string) string {
	if value == "" {
		return ""
	}
	return " --" + flag + " " + quote(value)
}

// quote makes a foreign text one harmless word of a shell's command line. A user may call himself `$(reboot)`.
func quote(text string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./_-"
	if text != "" && strings.Trim(text, plain) == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
