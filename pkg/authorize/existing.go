// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// The remedies for what stands in the place of a reserved resource.
const (
	repairRemedy = "Look at each (kubectl get -o yaml) to learn who changed it; then authorize with --repair to put it right."
	deleteRemedy = "Those fields cannot be changed: delete the object, or let its deletion end, and authorize again."
)

// finding is what the check says about one entry, or one namespace.
type finding struct {
	text, remedy string
	verdict      Verdict
}

func (a *Authorizer) checkExisting(ctx context.Context, options Options) Check {
	findings := a.checkNamespaces(ctx)
	for _, entry := range a.set.Resources() {
		if entry.HasManifest() {
			findings = append(findings, a.checkEntry(ctx, entry, options))
		}
	}
	return summarize(findings)
}

// summarize joins findings to one check: the worst verdict, the text of each, and each remedy once. Where something is
// wrong, what is not is left out.
func summarize(findings []finding) Check {
	check := Check{Status: worst(findings)}
	var texts, remedies []string
	seen := map[string]bool{"": true}
	for _, f := range findings {
		if check.Status == Pass || f.verdict != Pass {
			texts = append(texts, f.text)
		}
		if !seen[f.remedy] {
			remedies = append(remedies, f.remedy)
		}
		seen[f.remedy] = true
	}
	check.Message, check.Remedy = strings.Join(texts, "; ")+".", strings.Join(remedies, " ")
	return check
}

func worst(findings []finding) Verdict {
	verdict := Pass
	for _, f := range findings {
		if f.verdict == Fail || f.verdict == Unknown && verdict != Fail {
			verdict = f.verdict
		}
	}
	return verdict
}

func (a *Authorizer) checkEntry(ctx context.Context, entry *reserved.Resource, options Options) finding {
	f, err := a.look(ctx, entry)
	switch {
	case err != nil:
		return finding{err.Error(), "Make sure that you may read it, and that its kind exists in the cluster.", Fail}
	case len(f.drift) > 0:
		return differs(f, options)
	case f.live != nil:
		return finding{text: nameOf(entry) + " is there already, equal to its manifest", verdict: Pass}
	}
	return finding{text: nameOf(entry) + " is absent" + describe(f.older), verdict: Pass}
}

func differs(f found, options Options) finding {
	frozen := f.irreparable()
	switch {
	case len(frozen) > 0:
		return finding{
			fmt.Sprintf("%s differs from its manifest in %s", f.name(), strings.Join(frozen, ", ")), deleteRemedy, Fail,
		}
	case options.Repair:
		return finding{
			text:    fmt.Sprintf("%s is to be repaired in %s", f.name(), strings.Join(f.drift, ", ")),
			verdict: Pass,
		}
	case slices.Contains(f.drift, rootCAPath):
		return finding{fmt.Sprintf("%s differs in %s: %s", f.name(), strings.Join(f.drift, ", "), foreignCA), rootCARemedy, Fail}
	}
	return finding{
		fmt.Sprintf("%s differs from its manifest in %s", f.name(), strings.Join(f.drift, ", ")), repairRemedy, Fail,
	}
}

func describe(older olderSecrets) string {
	text := ""
	if name := older.first(); name != "" {
		text += ", and the older token Secret " + name + " is used in its place"
	}
	if len(older.usable) > 1 {
		text += ", beside " + strings.Join(older.usable[1:], ", ")
	}
	if len(older.useless) > 0 {
		text += ", and these hold no token of the account as it is: " + strings.Join(older.useless, ", ")
	}
	return text
}

// checkNamespaces returns a finding for each namespace that is missing or cannot be seen. The API server itself keeps some.
func (a *Authorizer) checkNamespaces(ctx context.Context) []finding {
	var findings []finding
	seen := map[string]bool{"": true, metav1.NamespaceSystem: true, metav1.NamespacePublic: true, metav1.NamespaceDefault: true}
	for _, entry := range a.set.Resources() {
		if seen[entry.Namespace] {
			continue
		}
		seen[entry.Namespace] = true
		if f, ok := a.checkNamespace(ctx, entry.Namespace); !ok {
			findings = append(findings, f)
		}
	}
	return findings
}

func (a *Authorizer) checkNamespace(ctx context.Context, name string) (finding, bool) {
	namespace, err := a.cluster.Client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return finding{
			fmt.Sprintf("the namespace %s does not exist", name), fmt.Sprintf("Create it: kubectl create namespace %s.", name), Fail,
		}, false
	case err != nil:
		return finding{
			fmt.Sprintf("the namespace %s cannot be read: %v", name, err),
			fmt.Sprintf("Make sure that the namespace %s exists.", name), Unknown,
		}, false
	case namespace.DeletionTimestamp != nil:
		return finding{
			fmt.Sprintf("the namespace %s is being deleted", name), "Wait until it is gone, create it, and try again.", Fail,
		}, false
	}
	return finding{}, true
}
