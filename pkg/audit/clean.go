// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import "github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"

// Clean makes a record that was read from the API server fit to be shown: whoever has the right can have created it with texts
// that take over a terminal. What the guard wrote stays as it is. The managed fields, of use to nobody who reads a denial, go.
func Clean(record *v1alpha1.AuditRecord) {
	record.ManagedFields = nil
	for _, texts := range []map[string]string{record.Labels, record.Annotations} {
		for key, text := range texts {
			texts[key] = Printable(text, maxMessage)
		}
	}
	cleanAll(record.Finalizers, maxName)
	for i := range record.OwnerReferences {
		owner := &record.OwnerReferences[i]
		cleanEach(maxName, &owner.APIVersion, &owner.Kind, &owner.Name, (*string)(&owner.UID))
	}
	spec := &record.Spec
	cleanEach(maxName, (*string)(&spec.Outcome), (*string)(&spec.Source), (*string)(&spec.Caller), &spec.Reason, &spec.User.Name,
		&spec.User.UID, &spec.Replica)
	cleanEach(maxOperation, (*string)(&spec.Operation))
	cleanObject(&spec.Object)
	cleanEach(maxResource, &spec.Resource)
	cleanEach(maxMessage, &spec.Message)
	cleanEach(maxUID, &spec.LastRequestUID)
	cleanAll(spec.Changed, maxPath)
	cleanAll(spec.User.Groups, maxName)
	for i := range spec.Counts {
		cleanEach(maxName, &spec.Counts[i].Replica)
	}
}

func cleanObject(object *v1alpha1.ObjectReference) {
	cleanEach(maxName, &object.Group, &object.Name)
	cleanEach(maxLabel, &object.Resource, &object.Namespace)
}

func cleanEach(most int, texts ...*string) {
	for _, text := range texts {
		*text = Printable(*text, most)
	}
}

func cleanAll(texts []string, most int) {
	for i := range texts {
		cleanEach(most, &texts[i])
	}
}
