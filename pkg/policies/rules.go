// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"fmt"
	"strings"
)

// declareRules declares equalRules: whether the RBAC rules of the new object grant what the manifest's grant, in any order and split.
// A role with so many permissions that the comparison exceeds the API server's cost limit is denied.
func (c *compiler) declareRules() {
	var fields []string
	for _, field := range []string{"apiGroups", "resources", "resourceNames", "nonResourceURLs", "verbs"} {
		fields = append(fields, fmt.Sprintf("%s: r[?%[1]s].orValue(null) == null ? dyn([]) : r[?%[1]s].orValue(null)", Quote(field)))
	}
	normal := ".map(r, {" + strings.Join(fields, ", ") + "})"
	c.declareVariable("reservedRules", "%s%s", literal(c.resource.Object().Object["rules"]), normal)
	c.declareVariable("rules", "object[?'rules'].orValue(null) == null ? [] : object.rules%s", normal)
	c.declareVariable("equalRules", "%s && %s", covers("variables.reservedRules", "variables.rules"),
		covers("variables.rules", "variables.reservedRules"))
}

// covers is coverAll of package policy: whether the owners grant every single permission of the rules.
func covers(owners, rules string) string {
	const (
		verb     = "('*' in o.verbs || v in o.verbs)"
		group    = "('*' in o.apiGroups || g in o.apiGroups)"
		resource = "('*' in o.resources || e in o.resources || e.contains('/') && '*' + e.substring(e.indexOf('/')) in o.resources)"
		name     = "(o.resourceNames == [] || r.resourceNames != [] && n in o.resourceNames)"
		url      = "o.nonResourceURLs.exists(p, p == u || p.endsWith('*') && u.startsWith(p.substring(0, p.size() - 1)))"
	)
	return fmt.Sprintf("%s.all(r, r.verbs.all(v, r.apiGroups.all(g, r.resources.all(e,"+
		" (r.resourceNames == [] ? dyn(['']) : r.resourceNames).all(n, %s.exists(o, %s))))"+
		" && r.nonResourceURLs.all(u, %[2]s.exists(o, %[4]s && %[5]s))))",
		rules, owners, strings.Join([]string{verb, group, resource, name}, " && "), verb, url)
}
