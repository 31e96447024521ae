// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package reserved

import (
	"slices"
	"strings"
	"unicode/utf8"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Exemption allows one identity to write to the resources of a reservation. Exactly one of User, ServiceAccount and Group is set.
type Exemption struct {
	// User is an exact user name.
	User string `json:"user,omitempty"`
	// ServiceAccount is NAMESPACE/NAME.
	ServiceAccount string `json:"serviceAccount,omitempty"`
	// Group is an exact group name.
	Group string `json:"group,omitempty"`
	// Operations are CREATE, UPDATE or DELETE. At least one is required.
	Operations []admissionv1.Operation `json:"operations"`
	// Reason is required. Every record of a write under the exemption repeats it.
	Reason string `json:"reason"`
	// Until is when the exemption ends; nil for never.
	Until *metav1.Time `json:"until,omitempty"`
}

// AccountUserPrefix begins the user name of each ServiceAccount: k8s.io/apiserver/pkg/authentication/serviceaccount.
const AccountUserPrefix = "system:serviceaccount:"

// AccountUser returns the user name of a ServiceAccount.
func AccountUser(namespace, name string) string { return AccountUserPrefix + namespace + ":" + name }

// AccountUser returns the user name of the exempted ServiceAccount.
func (e *Exemption) AccountUser() string {
	namespace, name, _ := strings.Cut(e.ServiceAccount, "/")
	return AccountUser(namespace, name)
}

// Covers reports whether the exemption allows the user to write at this time.
func (e *Exemption) Covers(user string, groups []string, operation admissionv1.Operation, now metav1.Time) bool {
	if !slices.Contains(e.Operations, operation) || e.Until != nil && !now.Before(e.Until) {
		return false
	}
	switch {
	case e.User != "":
		return user == e.User
	case e.ServiceAccount != "":
		return user == e.AccountUser()
	default:
		return e.Group != "" && slices.Contains(groups, e.Group)
	}
}

// Subject names the identity: "user alice", "serviceaccount console/editor" or "group vendors".
func (e *Exemption) Subject() string {
	switch {
	case e.User != "":
		return "user " + e.User
	case e.ServiceAccount != "":
		return "serviceaccount " + e.ServiceAccount
	default:
		return "group " + e.Group
	}
}

// widestGroups are groups of which nearly every user is a member, or whose members may do everything anyway.
func widestGroups() []string {
	return []string{"system:masters", "system:authenticated", "system:unauthenticated", "system:serviceaccounts"}
}

func validateExemption(e *Exemption, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	subjects := 0
	for _, name := range []string{e.User, e.ServiceAccount, e.Group} {
		if name != "" {
			subjects++
		}
		if strings.ContainsAny(name, "*\n") {
			errs = append(errs, field.Invalid(at, name, "must be an exact name"))
		}
	}
	if subjects != 1 {
		errs = append(errs, field.Required(at, "set exactly one of user, serviceAccount and group"))
	}
	if namespace, name, found := strings.Cut(e.ServiceAccount, "/"); e.ServiceAccount != "" && (!found || namespace == "" || name == "" ||
		strings.ContainsAny(name, "/:") || strings.Contains(namespace, ":")) {
		errs = append(errs, field.Invalid(at.Child("serviceAccount"), e.ServiceAccount, "must be NAMESPACE/NAME"))
	}
	if slices.Contains(widestGroups(), e.Group) {
		errs = append(errs, field.Invalid(at.Child("group"), e.Group, "must not be a group of nearly all users or of all administrators"))
	}
	if len(e.Operations) == 0 {
		errs = append(errs, field.Required(at.Child("operations"), "set one or more of CREATE, UPDATE and DELETE"))
	}
	for i, operation := range e.Operations {
		if all := Operations(); !slices.Contains(all, operation) {
			errs = append(errs, field.NotSupported(at.Child("operations").Index(i), operation, all))
		}
	}
	const maxReason = 500
	if reason := strings.TrimSpace(e.Reason); reason == "" || utf8.RuneCountInString(e.Reason) > maxReason {
		errs = append(errs, field.Invalid(at.Child("reason"), e.Reason, "must have 1 to 500 characters"))
	}
	return errs
}
