// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

const (
	roleName  = "clusterroles.rbac.authorization.k8s.io/apigw-ingress-clusterrole"
	tokenName = "secrets/kube-system/apigw-ingress-token-guardian"
	guardUser = "system:serviceaccount:apigw-guardian:apigw-guardian"
)

// opened is when the unlocks of these tests are created.
func opened() time.Time { return time.Date(2026, 11, 28, 8, 0, 0, 0, time.UTC) }

// after returns a time so long after the creation.
func after(d time.Duration) metav1.Time { return metav1.NewTime(opened().Add(d)) }

// unlockOf returns an Unlock of alice that is open for ten minutes; change makes it another.
func unlockOf(change func(*v1alpha1.Unlock)) *v1alpha1.Unlock {
	unlock := &v1alpha1.Unlock{
		ObjectMeta: metav1.ObjectMeta{Name: "unlock-a", CreationTimestamp: after(0)},
		Spec: v1alpha1.UnlockSpec{
			Reservation: "apigw-ingress", Reason: "ticket 4711", RequestedBy: "alice", ExpiresAt: after(10 * time.Minute),
		},
	}
	if change != nil {
		change(unlock)
	}
	return unlock
}

func unlockPolicy(t *testing.T) *Policy {
	t.Helper()
	p := builtInPolicy(t)
	p.Unlocks.MaxDuration.Duration = time.Hour
	return p
}

func encode(t *testing.T, object any) rawjson.Value {
	t.Helper()
	data, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return rawjson.Value(data)
}

func TestStateOf(t *testing.T) {
	t.Parallel()
	approve := func(user string) func(*v1alpha1.Unlock) {
		return func(u *v1alpha1.Unlock) { u.Status.ApprovedBy = user }
	}
	reason := func(text string) func(*v1alpha1.Unlock) { return func(u *v1alpha1.Unlock) { u.Spec.Reason = text } }
	ends := func(d time.Duration) func(*v1alpha1.Unlock) {
		return func(u *v1alpha1.Unlock) { u.Spec.ExpiresAt = after(d) }
	}
	for name, test := range map[string]struct {
		change   func(*v1alpha1.Unlock)
		at       time.Duration
		approval bool
		want     v1alpha1.UnlockState
	}{
		"at its creation":             {nil, 0, false, v1alpha1.UnlockOpen},
		"a nanosecond before its end": {nil, 10*time.Minute - 1, false, v1alpha1.UnlockOpen},
		"at its end":                  {nil, 10 * time.Minute, false, v1alpha1.UnlockExpired},
		"long after its end":          {nil, 1000 * time.Hour, false, v1alpha1.UnlockExpired},
		"closed":                      {func(u *v1alpha1.Unlock) { u.Spec.Closed = true }, 0, false, v1alpha1.UnlockClosed},
		"closed and over":             {func(u *v1alpha1.Unlock) { u.Spec.Closed = true }, time.Hour, false, v1alpha1.UnlockClosed},
		"being deleted":               {func(u *v1alpha1.Unlock) { u.DeletionTimestamp = new(after(0)) }, 0, false, v1alpha1.UnlockClosed},
		"with the longest lifetime":   {ends(time.Hour), 0, false, v1alpha1.UnlockOpen},
		"with a lifetime that is a second too long":        {ends(time.Hour + time.Second), 0, false, v1alpha1.UnlockInvalid},
		"that ends when it is created":                     {ends(0), -time.Hour, false, v1alpha1.UnlockInvalid},
		"that ends before it is created":                   {ends(-time.Second), -time.Hour, false, v1alpha1.UnlockInvalid},
		"without an end":                                   {func(u *v1alpha1.Unlock) { u.Spec.ExpiresAt = metav1.Time{} }, 0, false, v1alpha1.UnlockInvalid},
		"without a time of creation":                       {func(u *v1alpha1.Unlock) { u.CreationTimestamp = metav1.Time{} }, 0, false, v1alpha1.UnlockInvalid},
		"without a requester":                              {func(u *v1alpha1.Unlock) { u.Spec.RequestedBy = "" }, 0, false, v1alpha1.UnlockInvalid},
		"with a reason of 9 characters":                    {reason(strings.Repeat("ä", 9)), 0, false, v1alpha1.UnlockInvalid},
		"with a reason of 10 characters":                   {reason(strings.Repeat("ä", 10)), 0, false, v1alpha1.UnlockOpen},
		"with a reason of 500 characters":                  {reason(strings.Repeat("ä", 500)), 0, false, v1alpha1.UnlockOpen},
		"with a reason of 501 characters":                  {reason(strings.Repeat("a", 501)), 0, false, v1alpha1.UnlockInvalid},
		"a status that says Open, after the end":           {func(u *v1alpha1.Unlock) { u.Status.State = v1alpha1.UnlockOpen }, time.Hour, false, v1alpha1.UnlockExpired},
		"a status that says Open, without an approval":     {func(u *v1alpha1.Unlock) { u.Status.State = v1alpha1.UnlockOpen }, 0, true, v1alpha1.UnlockPending},
		"a replica that says Open, without an approval":    {func(u *v1alpha1.Unlock) { u.Status.Replicas = map[string]v1alpha1.UnlockState{"a": "Open"} }, 0, true, v1alpha1.UnlockPending},
		"a use, without an approval":                       {func(u *v1alpha1.Unlock) { u.Status.FirstUsed = new(after(0)) }, 0, true, v1alpha1.UnlockPending},
		"a status that says Closed":                        {func(u *v1alpha1.Unlock) { u.Status.State = v1alpha1.UnlockClosed }, 0, false, v1alpha1.UnlockOpen},
		"approved by another user":                         {approve("bob"), 0, true, v1alpha1.UnlockOpen},
		"approved by its requester":                        {approve("alice"), 0, true, v1alpha1.UnlockPending},
		"approved by its requester, if no approval counts": {approve("alice"), 0, false, v1alpha1.UnlockOpen},
		"pending, after its end":                           {nil, time.Hour, true, v1alpha1.UnlockExpired},
		"approved, after its end":                          {approve("bob"), time.Hour, true, v1alpha1.UnlockExpired},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rules := UnlockRules{MaxDuration: metav1.Duration{Duration: time.Hour}, RequireApproval: test.approval}
			if got := rules.StateOf(unlockOf(test.change), after(test.at)); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
	if got := (UnlockRules{}).StateOf(unlockOf(nil), after(0)); got != v1alpha1.UnlockInvalid {
		t.Errorf("with the zero UnlockRules it is %s, want Invalid", got)
	}
}

// reviewOf returns a write of the corpus, as this user.
func reviewOf(t *testing.T, name string, user v1alpha1.User) *Request {
	t.Helper()
	for _, c := range cases(t) {
		if c.Name == name {
			request := decode(t, c.Review)
			request.User = user
			return request
		}
	}
	t.Fatalf("the corpus has no %s", name)
	return nil
}

func TestAnUnlockCoversUserResourceAndOperation(t *testing.T) {
	t.Parallel()
	resources := func(names ...string) func(*v1alpha1.Unlock) {
		return func(u *v1alpha1.Unlock) { u.Spec.Resources = names }
	}
	operations := func(list ...admissionv1.Operation) func(*v1alpha1.Unlock) {
		return func(u *v1alpha1.Unlock) { u.Spec.Operations = list }
	}
	users := func(names ...string) func(*v1alpha1.Unlock) { return func(u *v1alpha1.Unlock) { u.Spec.Users = names } }
	for name, test := range map[string]struct {
		change func(*v1alpha1.Unlock)
		write  string
		user   string
		want   Reason
	}{
		"its requester, if it names no user":             {nil, "role-verbs", "alice", Unlocked},
		"no other user":                                  {nil, "role-verbs", "bob", ReservedUpdate},
		"no user whose name has that of the requester":   {nil, "role-verbs", "alice2", ReservedUpdate},
		"no user of that name in upper case":             {nil, "role-verbs", "Alice", ReservedUpdate},
		"no user without a name":                         {nil, "role-verbs", "", ReservedUpdate},
		"a user that it names":                           {users("bob", "carol"), "role-verbs", "carol", Unlocked},
		"not its requester, if it names others":          {users("bob"), "role-verbs", "alice", ReservedUpdate},
		"no pattern of users":                            {users("*"), "role-verbs", "bob", ReservedUpdate},
		"updates, if it names no operation":              {nil, "account-label", "alice", Unlocked},
		"no deletion, if it names no operation":          {nil, "delete-role", "alice", ReservedDelete},
		"a deletion that it names":                       {operations("DELETE"), "delete-role", "alice", Unlocked},
		"no update, if it names deletions":               {operations("DELETE"), "role-verbs", "alice", ReservedUpdate},
		"several operations":                             {operations("UPDATE", "DELETE"), "delete-role", "alice", Unlocked},
		"no operation that the API does not know":        {operations("*"), "role-verbs", "alice", ReservedUpdate},
		"a resource that it names":                       {resources(roleName), "role-verbs", "alice", Unlocked},
		"no resource that it does not name":              {resources(roleName), "account-label", "alice", ReservedUpdate},
		"no resource by a part of its name":              {resources("clusterroles"), "role-verbs", "alice", ReservedUpdate},
		"no pattern of resources":                        {resources("*"), "role-verbs", "alice", ReservedUpdate},
		"a token Secret that it names":                   {resources(tokenName), "token-label", "alice", Unlocked},
		"all Secrets of the prefix":                      {resources("secrets/kube-system/apigw-ingress-token-*"), "token-label", "alice", Unlocked},
		"no Secret of the prefix but the one it names":   {func(u *v1alpha1.Unlock) { resources(tokenName)(u); operations("CREATE")(u) }, "mint-under-the-prefix", "alice", TokenMint},
		"a mint, if it names creations":                  {operations("CREATE"), "mint-under-the-prefix", "alice", Unlocked},
		"no mint, if it names no creation":               {operations("UPDATE", "DELETE"), "mint-under-the-prefix", "alice", TokenMint},
		"no resource of another reservation":             {func(u *v1alpha1.Unlock) { u.Spec.Reservation = "edge" }, "role-verbs", "alice", ReservedUpdate},
		"nothing without a reservation":                  {func(u *v1alpha1.Unlock) { u.Spec.Reservation = "" }, "role-verbs", "alice", ReservedUpdate},
		"nothing once it is closed":                      {func(u *v1alpha1.Unlock) { u.Spec.Closed = true }, "role-verbs", "alice", ReservedUpdate},
		"nothing at its end":                             {func(u *v1alpha1.Unlock) { u.Spec.ExpiresAt = after(time.Minute) }, "role-verbs", "alice", ReservedUpdate},
		"nothing with a status that says it is open":     {func(u *v1alpha1.Unlock) { u.Spec.Closed, u.Status.State = true, "Open" }, "role-verbs", "alice", ReservedUpdate},
		"nothing with a lifetime that is too long":       {func(u *v1alpha1.Unlock) { u.Spec.ExpiresAt = after(2 * time.Hour) }, "role-verbs", "alice", ReservedUpdate},
		"a mint under another name":                      {operations("CREATE"), "mint-under-another-name", "alice", Unlocked},
		"no mint under a name that it does not name":     {func(u *v1alpha1.Unlock) { resources(tokenName)(u); operations("CREATE")(u) }, "mint-under-another-name", "alice", TokenMint},
		"no Secret re-pointed that it does not name":     {resources(tokenName), "mint-by-another-accounts-secret", "alice", TokenMint},
		"nothing that is unreadable":                     {operations("CREATE", "UPDATE", "DELETE"), "role-verbs?", "alice", Unreadable},
		"nothing that needs no unlock: a restoration":    {nil, "role-restore-rules", "alice", Restoration},
		"nothing that needs no unlock: a write as it is": {nil, "role-put-unchanged", "alice", NoChange},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			write, unreadable := strings.CutSuffix(test.write, "?")
			request := reviewOf(t, write, v1alpha1.User{Name: test.user, Groups: []string{"system:masters"}})
			if unreadable {
				request.Subresource = "scale"
			}
			unlock := unlockOf(test.change)
			reviewed := unlockPolicy(t).Review(request)
			holds := make([]bool, len(reviewed.Lookups()))
			for i := range holds {
				holds[i] = true
			}
			got := reviewed.Decide(Facts{Now: after(time.Minute), Unlocks: []v1alpha1.Unlock{*unlockOf(func(u *v1alpha1.Unlock) { u.Spec.Closed = true }), *unlock}, Holds: holds})
			if got.Reason != test.want {
				t.Errorf("got %s, want %s", got.Reason, test.want)
			}
			isUnlocked := got.Unlock == unlock.Name && got.Justification == unlock.Spec.Reason && got.Outcome == v1alpha1.Unlocked && got.Allowed
			if isUnlocked != (test.want == Unlocked) {
				t.Errorf("allowed %t as %s by %q: %q", got.Allowed, got.Outcome, got.Unlock, got.Justification)
			}
		})
	}
}

func TestAPendingUnlockAllowsNothing(t *testing.T) {
	t.Parallel()
	for approver, want := range map[string]Reason{"": ReservedUpdate, "alice": ReservedUpdate, "bob": Unlocked} {
		p := unlockPolicy(t)
		p.Unlocks.RequireApproval = true
		unlock := unlockOf(func(u *v1alpha1.Unlock) { u.Status.ApprovedBy, u.Status.State = approver, v1alpha1.UnlockOpen })
		got := p.Review(reviewOf(t, "role-verbs", v1alpha1.User{Name: "alice"})).Decide(Facts{Now: after(0), Unlocks: []v1alpha1.Unlock{*unlock}})
		if got.Reason != want {
			t.Errorf("approved by %q: got %s, want %s", approver, got.Reason, want)
		}
	}
}

func TestAGuardThatObservesSaysWhatAllowedTheWrite(t *testing.T) {
	t.Parallel()
	p := unlockPolicy(t)
	p.Mode = Observe
	for name, test := range map[string]struct {
		user string
		want v1alpha1.Outcome
	}{
		"under an unlock":    {"alice", v1alpha1.Unlocked},
		"without any unlock": {"bob", v1alpha1.WouldDeny},
	} {
		reviewed := p.Review(reviewOf(t, "role-verbs", v1alpha1.User{Name: test.user}))
		if got := reviewed.Decide(Facts{Now: after(0), Unlocks: []v1alpha1.Unlock{*unlockOf(nil)}}); !got.Allowed || got.Outcome != test.want {
			t.Errorf("%s: got %+v, want %s", name, got, test.want)
		}
	}
	forged := p.Review(&Request{
		GVR: UnlockResource(), Operation: admissionv1.Create, User: v1alpha1.User{Name: "mallory"}, Object: encode(t, unlockOf(nil)),
	})
	if got := forged.Decide(Facts{Now: after(0)}); got.Allowed || got.Reason != UnlockRejected {
		t.Errorf("a forged unlock is allowed: %+v", got)
	}
}

func TestExemptions(t *testing.T) {
	t.Parallel()
	user := reserved.Exemption{User: "alice", Operations: []admissionv1.Operation{"UPDATE"}, Reason: "the console edits it"}
	account := reserved.Exemption{ServiceAccount: "console/editor", Operations: []admissionv1.Operation{"UPDATE", "DELETE"}, Reason: "the console"}
	group := reserved.Exemption{Group: "vendors", Operations: []admissionv1.Operation{"UPDATE"}, Reason: "the vendors"}
	ending := user
	ending.Until = new(after(time.Minute))
	for name, test := range map[string]struct {
		exemption reserved.Exemption
		user      v1alpha1.User
		write     string
		at        time.Duration
		want      Reason
	}{
		"a user":                               {user, v1alpha1.User{Name: "alice"}, "role-verbs", 0, Exemption},
		"another user":                         {user, v1alpha1.User{Name: "bob"}, "role-verbs", 0, ReservedUpdate},
		"a group of the name of the user":      {user, v1alpha1.User{Name: "bob", Groups: []string{"alice"}}, "role-verbs", 0, ReservedUpdate},
		"another operation":                    {user, v1alpha1.User{Name: "alice"}, "delete-role", 0, ReservedDelete},
		"a ServiceAccount":                     {account, v1alpha1.User{Name: "system:serviceaccount:console:editor"}, "delete-role", 0, Exemption},
		"a ServiceAccount elsewhere":           {account, v1alpha1.User{Name: "system:serviceaccount:default:editor"}, "role-verbs", 0, ReservedUpdate},
		"a user of the name of the account":    {account, v1alpha1.User{Name: "console/editor"}, "role-verbs", 0, ReservedUpdate},
		"a member of a group":                  {group, v1alpha1.User{Name: "bob", Groups: []string{"a", "vendors"}}, "role-verbs", 0, Exemption},
		"a member of another group":            {group, v1alpha1.User{Name: "bob", Groups: []string{"vendors2"}}, "role-verbs", 0, ReservedUpdate},
		"a user of the name of the group":      {group, v1alpha1.User{Name: "vendors"}, "role-verbs", 0, ReservedUpdate},
		"a nanosecond before it ends":          {ending, v1alpha1.User{Name: "alice"}, "role-verbs", time.Minute - 1, Exemption},
		"when it ends":                         {ending, v1alpha1.User{Name: "alice"}, "role-verbs", time.Minute, ReservedUpdate},
		"an exemption that has no identity":    {reserved.Exemption{Operations: []admissionv1.Operation{"UPDATE"}}, v1alpha1.User{Groups: []string{""}}, "role-verbs", 0, ReservedUpdate},
		"the update of another's token Secret": {user, v1alpha1.User{Name: "alice"}, "token-label", 0, Exemption},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := unlockPolicy(t)
			p.Set.Reservations()[0].Exemptions = []reserved.Exemption{test.exemption}
			got := p.Review(reviewOf(t, test.write, test.user)).Decide(Facts{Now: after(test.at)})
			if got.Reason != test.want {
				t.Errorf("got %s, want %s", got.Reason, test.want)
			}
			if isExempted := got.Allowed && got.Outcome == v1alpha1.Exempted && got.Justification == test.exemption.Reason; isExempted != (test.want == Exemption) {
				t.Errorf("allowed %t as %s: %q", got.Allowed, got.Outcome, got.Justification)
			}
		})
	}
}

// unlockWrite is one write to an Unlock.
type unlockWrite struct {
	operation   admissionv1.Operation
	subresource string
	old, new    *v1alpha1.Unlock
	user        string
	approval    bool
	at          time.Duration
	// problem is a part of what is wrong; "" for a write that is allowed.
	problem string
}

func (w *unlockWrite) decide(t *testing.T) Decision {
	t.Helper()
	p := unlockPolicy(t)
	p.Unlocks.RequireApproval = w.approval
	request := &Request{
		GVR: UnlockResource(), Kind: "Unlock", Name: "unlock-a", Operation: w.operation, Subresource: w.subresource,
		User: v1alpha1.User{Name: w.user, Groups: []string{"system:masters"}},
	}
	if w.old != nil {
		request.OldObject = encode(t, w.old)
	}
	if w.new != nil {
		request.Object = encode(t, w.new)
	}
	return p.Review(request).Decide(Facts{Now: after(w.at), Guard: guardUser})
}

func testUnlockWrites(t *testing.T, writes map[string]unlockWrite) {
	t.Helper()
	for name, write := range writes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := write.decide(t)
			want := Decision{Allowed: true, Reason: UnlockAccepted}
			if write.problem != "" {
				want = Decision{Reason: UnlockRejected, Outcome: v1alpha1.Denied, Problem: got.Problem}
			}
			want.Object = v1alpha1.ObjectReference{Group: "guardian.apigw.io", Resource: "unlocks", Name: "unlock-a"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if !strings.Contains(got.Problem, write.problem) {
				t.Errorf("problem %q does not say %q", got.Problem, write.problem)
			}
		})
	}
}

func TestWhoMayCreateAnUnlock(t *testing.T) {
	t.Parallel()
	created := func(problem string, change func(*v1alpha1.Unlock)) unlockWrite {
		return unlockWrite{operation: admissionv1.Create, new: unlockOf(change), user: "alice", problem: problem}
	}
	backDated := created("after the creation", func(u *v1alpha1.Unlock) { u.CreationTimestamp = after(-time.Hour) })
	backDated.at = 10 * time.Minute // by the guard's clock it is over already
	postDated := created("at most 1h0m0s after", func(u *v1alpha1.Unlock) {
		u.CreationTimestamp, u.Spec.ExpiresAt = after(24*time.Hour), after(24*time.Hour+time.Minute)
	})
	another := created("requestedBy must be \"bob\"", nil)
	another.user = "bob"
	withoutUser := created("requestedBy must be \"\"", nil)
	withoutUser.user = ""
	testUnlockWrites(t, map[string]unlockWrite{
		"its requester":           created("", nil),
		"a name of another user":  another,
		"a user without a name":   withoutUser,
		"an empty requester":      created("requestedBy must be", func(u *v1alpha1.Unlock) { u.Spec.RequestedBy = "" }),
		"for other users":         created("", func(u *v1alpha1.Unlock) { u.Spec.Users = []string{"bob"} }),
		"back-dated":              backDated,
		"post-dated":              postDated,
		"too long":                created("at most 1h0m0s after", func(u *v1alpha1.Unlock) { u.Spec.ExpiresAt = after(time.Hour + time.Second) }),
		"as long as it may be":    created("", func(u *v1alpha1.Unlock) { u.Spec.ExpiresAt = after(time.Hour) }),
		"over already":            created("must be after", func(u *v1alpha1.Unlock) { u.Spec.ExpiresAt = after(0) }),
		"without an end":          created("must be after", func(u *v1alpha1.Unlock) { u.Spec.ExpiresAt = metav1.Time{} }),
		"for an unknown set":      created("no reservation is called \"edge\"", func(u *v1alpha1.Unlock) { u.Spec.Reservation = "edge" }),
		"a reason that is short":  created("10 to 500", func(u *v1alpha1.Unlock) { u.Spec.Reason = "because" }),
		"a reason that is long":   created("10 to 500", func(u *v1alpha1.Unlock) { u.Spec.Reason = strings.Repeat("x", 501) }),
		"an unknown operation":    created("CREATE, UPDATE or DELETE", func(u *v1alpha1.Unlock) { u.Spec.Operations = []admissionv1.Operation{"CONNECT"} }),
		"a pattern of operations": created("CREATE, UPDATE or DELETE", func(u *v1alpha1.Unlock) { u.Spec.Operations = []admissionv1.Operation{"*"} }),
		"a reserved resource":     created("", func(u *v1alpha1.Unlock) { u.Spec.Resources = []string{roleName, tokenName} }),
		"a Secret of the prefix": created("", func(u *v1alpha1.Unlock) {
			u.Spec.Resources = []string{"secrets/kube-system/apigw-ingress-token-x", "secrets/kube-system/apigw-ingress-token-*"}
		}),
		"another resource":  created("must be resources of", func(u *v1alpha1.Unlock) { u.Spec.Resources = []string{roleName, "secrets/kube-system/other"} }),
		"another group":     created("must be resources of", func(u *v1alpha1.Unlock) { u.Spec.Resources = []string{"clusterroles/apigw-ingress-clusterrole"} }),
		"another namespace": created("must be resources of", func(u *v1alpha1.Unlock) { u.Spec.Resources = []string{"serviceaccounts/default/apigw-ingress"} }),
		"a namespace of a role": created("must be resources of", func(u *v1alpha1.Unlock) {
			u.Spec.Resources = []string{"clusterroles.rbac.authorization.k8s.io/a/apigw-ingress-clusterrole"}
		}),
		"a resource without a name":   created("must be resources of", func(u *v1alpha1.Unlock) { u.Spec.Resources = []string{""} }),
		"a status of its own":         created("", func(u *v1alpha1.Unlock) { u.Status.ApprovedBy = "bob" }), // the API server drops it
		"an object that is no unlock": {operation: admissionv1.Create, user: "alice", problem: "cannot be read"},
		"with an old object":          {operation: admissionv1.Create, old: unlockOf(nil), new: unlockOf(nil), user: "alice", problem: "cannot be read"},
		"as a status":                 {operation: admissionv1.Create, subresource: "status", new: unlockOf(nil), user: "alice", problem: "not known"},
		"as a scale":                  {operation: admissionv1.Update, subresource: "scale", old: unlockOf(nil), new: unlockOf(nil), user: "alice", problem: "not known"},
		"a connection":                {operation: admissionv1.Connect, old: unlockOf(nil), new: unlockOf(nil), user: "alice", problem: "not known"},
	})
}

func TestOnlyItsClosingChangesAnUnlock(t *testing.T) {
	t.Parallel()
	closed := func(u *v1alpha1.Unlock) { u.Spec.Closed = true }
	updated := func(user, problem string, old, change func(*v1alpha1.Unlock)) unlockWrite {
		return unlockWrite{operation: admissionv1.Update, old: unlockOf(old), new: unlockOf(change), user: user, problem: problem}
	}
	immutable := func(change func(*v1alpha1.UnlockSpec)) unlockWrite {
		return updated("alice", "immutable", nil, func(u *v1alpha1.Unlock) { change(&u.Spec) })
	}
	testUnlockWrites(t, map[string]unlockWrite{
		"closing it":                    updated("alice", "", nil, closed),
		"closing it as another user":    updated("bob", "", nil, closed),
		"closing it twice":              updated("alice", "", closed, closed),
		"opening it again":              updated("alice", "cannot be opened again", closed, nil),
		"opening it again as the guard": updated(guardUser, "cannot be opened again", closed, nil),
		"a label":                       updated("alice", "", nil, func(u *v1alpha1.Unlock) { u.Labels = map[string]string{"a": "b"} }),
		"a finalizer":                   updated("alice", "", nil, func(u *v1alpha1.Unlock) { u.Finalizers = []string{"a/b"} }),
		"a reservation":                 immutable(func(s *v1alpha1.UnlockSpec) { s.Reservation = "edge" }),
		"a reason":                      immutable(func(s *v1alpha1.UnlockSpec) { s.Reason += "0" }),
		"a requester":                   immutable(func(s *v1alpha1.UnlockSpec) { s.RequestedBy = "bob" }),
		"one user more":                 immutable(func(s *v1alpha1.UnlockSpec) { s.Users = []string{"alice", "mallory"} }),
		"one resource less":             immutable(func(s *v1alpha1.UnlockSpec) { s.Resources = []string{roleName} }),
		"one operation more":            immutable(func(s *v1alpha1.UnlockSpec) { s.Operations = []admissionv1.Operation{"DELETE", "UPDATE"} }),
		"a later end":                   immutable(func(s *v1alpha1.UnlockSpec) { s.ExpiresAt = after(11 * time.Minute) }),
		"an earlier end":                immutable(func(s *v1alpha1.UnlockSpec) { s.ExpiresAt = after(time.Minute) }),
		"another end":                   immutable(func(s *v1alpha1.UnlockSpec) { s.OnEnd = v1alpha1.OnEndRestore }),
		"no end":                        immutable(func(s *v1alpha1.UnlockSpec) { s.ExpiresAt = metav1.Time{} }),
		"a later end with the closing":  immutable(func(s *v1alpha1.UnlockSpec) { s.Closed, s.ExpiresAt = true, after(11*time.Minute) }),
		"a later end as the guard":      updated(guardUser, "immutable", nil, func(u *v1alpha1.Unlock) { u.Spec.ExpiresAt = after(time.Hour) }),
		"the same end in another zone": updated("alice", "", nil, func(u *v1alpha1.Unlock) {
			u.Spec.ExpiresAt = metav1.NewTime(u.Spec.ExpiresAt.In(time.FixedZone("", 3600)))
		}),
		"an update without an old state": {operation: admissionv1.Update, new: unlockOf(nil), user: "alice", problem: "cannot be read"},
		"an update without a new state":  {operation: admissionv1.Update, old: unlockOf(nil), user: "alice", problem: "cannot be read"},
	})
}

func TestWhoMayWriteTheStatusOfAnUnlock(t *testing.T) {
	t.Parallel()
	approvedBy := func(user string) func(*v1alpha1.Unlock) {
		return func(u *v1alpha1.Unlock) { u.Status.ApprovedBy = user }
	}
	status := func(user, problem string, old, change func(*v1alpha1.Unlock)) unlockWrite {
		return unlockWrite{
			operation: admissionv1.Update, subresource: "status", old: unlockOf(old), new: unlockOf(change), user: user, problem: problem, approval: true,
		}
	}
	late := status("bob", "its state is Expired", nil, approvedBy("bob"))
	late.at = time.Hour
	unneeded := status("bob", "", nil, approvedBy("bob"))
	unneeded.approval = false
	testUnlockWrites(t, map[string]unlockWrite{
		"an approval by another user":             status("bob", "", nil, approvedBy("bob")),
		"an approval that is not needed":          unneeded,
		"an approval by its requester":            status("alice", "requester cannot approve", nil, approvedBy("alice")),
		"an approval in another name":             status("alice", "approvedBy must be \"alice\"", nil, approvedBy("bob")),
		"an approval in the requester's name":     status("bob", "approvedBy must be \"bob\"", nil, approvedBy("alice")),
		"an approval in the guard's name":         status("alice", "approvedBy must be \"alice\"", nil, approvedBy(guardUser)),
		"an approval by the guard for a user":     status(guardUser, "approvedBy must be", nil, approvedBy("bob")),
		"a second approval":                       status("carol", "approved by \"bob\" already", approvedBy("bob"), approvedBy("carol")),
		"a second approval by nobody":             status("carol", "approved by \"bob\" already", approvedBy("bob"), nil),
		"an approval taken back":                  status("bob", "approved by \"bob\" already", approvedBy("bob"), nil),
		"an approval after the end":               late,
		"an approval after the closing":           status("bob", "its state is Closed", func(u *v1alpha1.Unlock) { u.Spec.Closed = true }, func(u *v1alpha1.Unlock) { u.Spec.Closed, u.Status.ApprovedBy = true, "bob" }),
		"an approval of one that was never valid": status("bob", "its state is Invalid", func(u *v1alpha1.Unlock) { u.Spec.ExpiresAt = after(2 * time.Hour) }, func(u *v1alpha1.Unlock) { u.Spec.ExpiresAt, u.Status.ApprovedBy = after(2*time.Hour), "bob" }),
		"an approval with a state":                status("bob", "only the guard", nil, func(u *v1alpha1.Unlock) { u.Status.ApprovedBy, u.Status.State = "bob", "Open" }),
		"a state":                                 status("alice", "only the guard", nil, func(u *v1alpha1.Unlock) { u.Status.State = v1alpha1.UnlockOpen }),
		"a replica":                               status("alice", "only the guard", nil, func(u *v1alpha1.Unlock) { u.Status.Replicas = map[string]v1alpha1.UnlockState{"a": "Open"} }),
		"a first use":                             status("alice", "only the guard", nil, func(u *v1alpha1.Unlock) { u.Status.FirstUsed = new(after(0)) }),
		"nothing":                                 status("alice", "", nil, nil),
		"a state by the guard":                    status(guardUser, "", nil, func(u *v1alpha1.Unlock) { u.Status.State = v1alpha1.UnlockOpen }),
		"a replica by the guard":                  status(guardUser, "", nil, func(u *v1alpha1.Unlock) { u.Status.Replicas = map[string]v1alpha1.UnlockState{"a": "Open"} }),
		"a state by the guard after the approval": status(guardUser, "", approvedBy("bob"), func(u *v1alpha1.Unlock) { u.Status.ApprovedBy, u.Status.State = "bob", "Open" }),
	})
}

// While the guard does not know its own user name, no user counts as the guard.
func TestAGuardWithoutAKnownNameTrustsNoUser(t *testing.T) {
	t.Parallel()
	p := unlockPolicy(t)
	forged := unlockOf(func(u *v1alpha1.Unlock) { u.Status.State = v1alpha1.UnlockOpen })
	for _, request := range []*Request{
		{GVR: UnlockResource(), Operation: admissionv1.Update, Subresource: "status", OldObject: encode(t, unlockOf(nil)), Object: encode(t, forged)},
		{GVR: UnlockResource(), Operation: admissionv1.Delete, OldObject: encode(t, unlockOf(nil))},
	} {
		if got := p.Review(request).Decide(Facts{Now: after(time.Hour)}); got.Allowed {
			t.Errorf("%s %s by a user without a name is allowed", request.Operation, request.Subresource)
		}
	}
}

func TestWhoMayDeleteAnUnlock(t *testing.T) {
	t.Parallel()
	deleted := func(user, problem string, at time.Duration, change func(*v1alpha1.Unlock)) unlockWrite {
		return unlockWrite{operation: admissionv1.Delete, old: unlockOf(change), user: user, at: at, problem: problem}
	}
	pending := deleted(guardUser, "kept for the audit", 0, nil)
	pending.approval = true
	testUnlockWrites(t, map[string]unlockWrite{
		"the guard, after its end":         deleted(guardUser, "", time.Hour, nil),
		"the guard, after its closing":     deleted(guardUser, "", 0, func(u *v1alpha1.Unlock) { u.Spec.Closed = true }),
		"the guard, one that is invalid":   deleted(guardUser, "", 0, func(u *v1alpha1.Unlock) { u.Spec.Reason = "" }),
		"the guard, while it is open":      deleted(guardUser, "kept for the audit", 0, nil),
		"the guard, while it is pending":   pending,
		"its requester":                    deleted("alice", "kept for the audit", 0, nil),
		"its requester, after its end":     deleted("alice", "kept for the audit", time.Hour, nil),
		"the garbage collector":            deleted("system:serviceaccount:kube-system:generic-garbage-collector", "kept for the audit", time.Hour, nil),
		"a deletion with an object":        {operation: admissionv1.Delete, old: unlockOf(nil), new: unlockOf(nil), user: guardUser, problem: "cannot be read"},
		"a deletion without an old object": {operation: admissionv1.Delete, user: guardUser, problem: "cannot be read"},
	})
}

func TestAnUnlockThatCannotBeReadIsRejected(t *testing.T) {
	t.Parallel()
	good := string(encode(t, unlockOf(nil)))
	for name, change := range map[string]func(*Request){
		"another version":   func(r *Request) { r.GVR.Version = "v1beta1" },
		"no version":        func(r *Request) { r.GVR.Version = "" },
		"a list":            func(r *Request) { r.Object = rawjson.Value("[]") },
		"a text for a spec": func(r *Request) { r.Object = rawjson.Value(`{"spec":"x"}`) },
		"a number for users": func(r *Request) {
			r.Object = rawjson.Value(strings.Replace(good, `"requestedBy"`, `"users":7,"requestedBy"`, 1))
		},
		"an end of no time": func(r *Request) {
			r.Object = rawjson.Value(strings.Replace(good, `"expiresAt":"2`, `"expiresAt":"x`, 1))
		},
		"null": func(r *Request) { r.Object = rawjson.Value("null") },
	} {
		request := &Request{
			GVR: UnlockResource(), Operation: admissionv1.Create, User: v1alpha1.User{Name: "alice"}, Object: rawjson.Value(good),
		}
		change(request)
		if got := unlockPolicy(t).Review(request).Decide(Facts{Now: after(0)}); got.Allowed || got.Reason != UnlockRejected {
			t.Errorf("%s: got allowed=%t, %s", name, got.Allowed, got.Reason)
		}
	}
	other := &Request{GVR: schema.GroupVersionResource{Group: "guardian.apigw.io", Version: "v1alpha1", Resource: "auditrecords"}, Operation: admissionv1.Create}
	if got := unlockPolicy(t).Review(other).Decide(Facts{}); got.Allowed {
		t.Errorf("a record is allowed as an unlock: %+v", got)
	}
	if got := (&Policy{}).Review(&Request{GVR: UnlockResource(), Operation: admissionv1.Create, Object: rawjson.Value(good)}).Decide(Facts{}); got.Allowed {
		t.Errorf("a policy without a set allows an unlock: %+v", got)
	}
}
