// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import "github.com/apigw-guardian/apigw-guardian/pkg/text"

// Bounds of the texts of a record, in bytes, below those of the custom resource's schema, which count characters.
const (
	maxOperation = 16
	maxLabel     = 64
	maxResource  = 2*(maxName+1+maxLabel) + 1
	maxPath      = 200
	maxMessage   = 2048
	maxName      = 256
	maxUID       = 64
	maxItems     = 32

	maxJustification = 2000
)

// printables bounds a list too; nil stays nil.
func printables(texts []string, max int) []string {
	if len(texts) == 0 {
		return nil
	}
	result := make([]string, 0, min(len(texts), maxItems))
	for _, one := range texts[:min(len(texts), maxItems)] {
		result = append(result, text.Printable(one, max))
	}
	return result
}
