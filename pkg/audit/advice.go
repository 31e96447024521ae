// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"slices"
	"strings"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

// Advice tells an administrator on one line what to do about a record; never "". Commands in it are quoted for a shell.
func Advice(spec *v1alpha1.AuditRecordSpec) string {
	switch spec.Outcome {
	case v1alpha1.WouldDeny:
		return adviceWouldDeny(spec)
	case v1alpha1.Unlocked:
		return "Compare the change with the reason of the unlock. To see the unlock and all writes under it: " +
			"apigw-guardian audit show" + shown(spec.Unlock)
	case v1alpha1.Exempted:
		return "An exemption of the reservation allowed the write. If it is not needed any more, remove it from the reservation. See " +
			"the drift: apigw-guardian status"
	case v1alpha1.Rotated, v1alpha1.Retired:
		return "Nothing: the API server refuses the old credential. See the result: apigw-guardian status"
	case v1alpha1.Authorized:
		return "Nothing, if API Gateway is to be authorized. See the result: apigw-guardian status"
	case v1alpha1.Restored:
		return "Nothing: the write restored the manifest. To see the writes before: " +
			"apigw-guardian audit list" + filtered("resource", spec.Resource)
	case v1alpha1.Allowed:
		return "Nothing, if the ServiceAccount was deleted on purpose. If not, restore it: apigw-guardian authorize"
	case v1alpha1.Tampered:
		return "Find in the API server's audit log who changed the webhook configuration. Writes to the reserved resources may have " +
			"passed meanwhile. See the drift: apigw-guardian status"
	case v1alpha1.Drift:
		return adviceDrift(spec)
	case v1alpha1.Gap:
		return "Find in the API server's audit log who wrote to the reserved resources meanwhile: apigw-guardian audit import. See what is " +
			"left of it: apigw-guardian status"
	case v1alpha1.Unguarded:
		return "The guard was unavailable, or its webhook configuration was removed. See the drift (apigw-guardian status), repair it " +
			"(apigw-guardian authorize --repair), and find in the API server's audit log who removed the webhook configuration."
	default:
		return adviceDenied(spec)
	}
}

func adviceDrift(spec *v1alpha1.AuditRecordSpec) string {
	switch {
	case spec.Unlock != "":
		return "To keep the change, change the manifest. To undo it: apigw-guardian authorize --repair. To see the unlock and all writes " +
			"under it: apigw-guardian audit show" + shown(spec.Unlock)
	case spec.Reason == HealStopped:
		return "Stop the client that the message names, and restore the resource: apigw-guardian authorize --repair"
	}
	return "The guard did not see this write, so its webhook configuration was away, or did not cover it. Find the write in the API " +
		"server's audit log, and see what is left of it: apigw-guardian status"
}

func shown(name string) string {
	if name == "" {
		return " NAME"
	}
	return " " + text.Quote(name)
}

func adviceWouldDeny(spec *v1alpha1.AuditRecordSpec) string {
	if spec.Reason == string(policy.NamespaceTerminating) {
		return "The namespace is being deleted, and a denial would have blocked that. If the deletion is a mistake, restore the " +
			"reserved resources when the namespace is gone: apigw-guardian authorize"
	}
	if spec.Reason == string(policy.SideDoor) {
		return "The guard only observes side doors, and allowed this write. With --side-doors enforce, it denies it. Treat it as a denial: " +
			adviceDenied(spec)
	}
	return "The guard only observes, and allowed this write. See the drift: apigw-guardian status. With --mode enforce, the guard " +
		"denies it. Treat it as a denial: " + adviceDenied(spec)
}

func adviceDenied(spec *v1alpha1.AuditRecordSpec) string {
	switch policy.Reason(spec.Reason) {
	case FloodReason:
		return "Writes by many users, or to many objects, come too fast for a record each. The guard's log and the API server's audit " +
			"log have every one: find their source, and stop it."
	case policy.TokenMint:
		return "Treat it as an attack: this would have created another credential of the reserved ServiceAccount. Find out who has " +
			"the credentials of this user, and what else they tried: apigw-guardian audit list" + filtered("by-user", spec.User.Name)
	case policy.SideDoor:
		return "The write uses the reserved ServiceAccount or role past its reserved resources, or gives more to it. If it succeeded, look " +
			"at what it made, and delete that. See what else this user tried: apigw-guardian audit list" + filtered("by-user", spec.User.Name)
	case policy.Overloaded:
		return "More large requests came than the guard keeps in memory at a time. Find who sends them in the guard's log and the API " +
			"server's audit log; if it was this user, see what else they tried: apigw-guardian audit list" + filtered("by-user", spec.User.Name)
	case policy.Unreadable, policy.TooLarge:
		return "No ordinary client sends such a request. Find it in the API server's audit log by its time and user, and see what " +
			"else this user tried: apigw-guardian audit list" + filtered("by-user", spec.User.Name)
	default:
		return adviceWriter(spec)
	}
}

// adviceWriter depends on the writer: a person reads the message, a program tries again.
func adviceWriter(spec *v1alpha1.AuditRecordSpec) string {
	namespace, account, isAccount := serviceAccount(spec.User.Name)
	switch {
	case slices.Contains(controlPlane(), spec.User.Name):
		return "The control plane makes such a write only after a user has tampered with the resource, or with its owner. " +
			"See the drift: apigw-guardian status. Look at metadata.ownerReferences, finalizers and aggregationRule too."
	case isAccount:
		return fmt.Sprintf("A program did this, and will try again. See what runs as the ServiceAccount: kubectl -n %s get pods "+
			"--field-selector %s. Take the resource out of what it manages.",
			text.Quote(namespace), text.Quote("spec.serviceAccountName="+account))
	case policy.Reason(spec.Reason) == policy.ReservedCreate:
		return "The name is reserved: choose another one. To create the reserved resource itself: apigw-guardian authorize"
	default:
		return "Ask this user whether it was meant. See what else they tried: apigw-guardian audit list" +
			filtered("by-user", spec.User.Name)
	}
}

// controlPlane returns the users of Kubernetes' own controllers that may write to reserved resources.
func controlPlane() []string {
	const controllers = "system:serviceaccount:kube-system:"
	return []string{
		policy.DefaultControllerManager, "system:apiserver", controllers + "generic-garbage-collector", controllers + "namespace-controller",
		controllers + "clusterrole-aggregation-controller", controllers + "legacy-service-account-token-cleaner",
		controllers + "service-account-controller",
	}
}

func serviceAccount(user string) (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(user, "system:serviceaccount:")
	if !ok {
		return "", "", false
	}
	namespace, name, ok = strings.Cut(rest, ":")
	return namespace, name, ok && namespace != "" && name != ""
}

// filtered is a flag of audit list; "" for an empty value.
func filtered(flag, value string) string {
	if value == "" {
		return ""
	}
	return " --" + flag + " " + text.Quote(value)
}
