// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package terminal

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

// Unlock prints an Unlock and a table of the records of the writes under it. unlock is nil if only its name is known.
func (s Screen) Unlock(w io.Writer, name string, unlock *v1alpha1.Unlock, records []v1alpha1.AuditRecord) error {
	var text strings.Builder
	s.write(&text, s.unlockFields(name, unlock))
	if len(records) == 0 {
		text.WriteString("\nNo write under it is recorded.\n")
	} else {
		writes := int64(0)
		for i := range records {
			writes += records[i].Spec.Count
		}
		fmt.Fprintf(&text, "\n%s %d\n", s.bold("Writes under it:"), writes)
		_ = NewTable(s, Layout{}, records).Write(&text)
	}
	_, err := io.WriteString(w, text.String())
	return err
}

func (s Screen) unlockFields(name string, unlock *v1alpha1.Unlock) []field {
	if unlock == nil {
		return []field{{"Unlock", name}, {"State", "Unknown: it is deleted, or you may not read unlocks"}}
	}
	spec := &unlock.Spec
	operations := make([]string, 0, len(spec.Operations))
	for _, operation := range spec.Allowed() {
		operations = append(operations, string(operation))
	}
	resources := spec.Resources
	if len(resources) == 0 {
		resources = []string{"all of " + spec.Reservation}
	}
	return slices.Concat(
		[]field{
			{"Unlock", name},
			{"State", string(unlock.Status.State)},
			{"Reason", spec.Reason},
			{"Requested by", spec.RequestedBy},
			{"Approved by", unlock.Status.ApprovedBy},
		},
		list("Users", spec.Subjects()),
		list("Resources", resources),
		[]field{
			{"Operations", strings.Join(operations, ", ")},
			{"Created", s.moment(unlock.CreationTimestamp.Time)},
			{"Ends", s.moment(spec.ExpiresAt.Time)},
			{"On end", string(spec.OnEnd)},
		},
	)
}
