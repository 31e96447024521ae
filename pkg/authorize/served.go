// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"errors"
	"strings"

	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// checkServed reports reserved resources that the API server does not serve under their plural names: the guard would not be
// asked about them.
func (a *Authorizer) checkServed() Check {
	err := a.cluster.Set.CheckServed(a.cluster.Client.Discovery().ServerResourcesForGroupVersion)
	if err == nil {
		return Check{Status: Pass, Message: "the API server serves every reserved kind"}
	}
	message := strings.ReplaceAll(err.Error(), "\n", "; ") // errors.Join writes a line for each; a row of a table has one
	if errors.Is(err, reserved.ErrNotServed) {
		return Check{Status: Fail, Message: message, Remedy: "Correct the reservation, or install the kind."}
	}
	return Check{Status: Unknown, Message: message, Remedy: "Check that the API server answers: kubectl api-resources."}
}
