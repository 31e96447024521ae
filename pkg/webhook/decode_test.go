// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
)

// The API's own types are the judge of what a review says.
func TestDecodeAgreesWithTheTypes(t *testing.T) {
	t.Parallel()
	for _, c := range cases(t) {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			var typed admissionv1.AdmissionReview
			if err := json.Unmarshal(c.Review, &typed); err != nil {
				t.Fatal(err)
			}
			got, err := Decode(c.Review)
			if err != nil {
				t.Fatal(err)
			}
			want := typed.Request
			if diff := cmp.Diff(&policy.Request{
				UID: string(want.UID), Kind: want.Kind.Kind, Subresource: want.SubResource, Operation: want.Operation,
				Namespace: want.Namespace, Name: want.Name, DryRun: *want.DryRun, GVR: got.GVR,
				User:   v1alpha1.User{Name: want.UserInfo.Username, UID: want.UserInfo.UID, Groups: want.UserInfo.Groups},
				Object: notNull(want.Object.Raw), OldObject: notNull(want.OldObject.Raw),
			}, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			resource := want.Resource
			if got.GVR.Group != resource.Group || got.GVR.Version != resource.Version || got.GVR.Resource != resource.Resource {
				t.Errorf("resource: got %v, want %v", got.GVR, resource)
			}
		})
	}
}

func notNull(raw []byte) []byte {
	if string(raw) == "null" {
		return nil
	}
	return raw
}

// However early a review breaks off, what is found of it is what stands there, and never part of an object.
func TestAReviewThatBreaksOffHasNoObjects(t *testing.T) {
	t.Parallel()
	whole := cases(t)[0].Review
	want, err := Decode(whole)
	if err != nil {
		t.Fatal(err)
	}
	for end := range bytes.TrimSpace(whole) {
		got, err := Decode(whole[:end])
		if !errors.Is(err, ErrUnreadable) {
			t.Fatalf("%d bytes: got error %v, want ErrUnreadable", end, err)
		}
		if got.Object != nil || got.OldObject != nil {
			t.Fatalf("%d bytes: there is an object", end)
		}
		if got.UID != "" && got.UID != want.UID || got.User.Name != "" && got.User.Name != want.User.Name {
			t.Fatalf("%d bytes: got uid %q and user %q", end, got.UID, got.User.Name)
		}
	}
}

func TestReadKeepsTheHeadOfWhatIsTooLarge(t *testing.T) {
	t.Parallel()
	whole := string(cases(t)[0].Review)
	large := strings.Replace(whole, `"object":{`, `"object":{"x":"`+strings.Repeat("x", MaxBytes)+`",`, 1)
	got, err := Read(strings.NewReader(large))
	if !errors.Is(err, ErrTooLarge) {
		t.Fatalf("got error %v, want ErrTooLarge", err)
	}
	if got.UID == "" || got.User.Name != "admin" || got.Object != nil {
		t.Errorf("got uid %q, user %q, object of %d bytes", got.UID, got.User.Name, len(got.Object))
	}
}

// A copy is made of each: a review of 10 MiB must not become ten times that.
func TestTextsOfTheHeadAreBounded(t *testing.T) {
	t.Parallel()
	whole := string(cases(t)[0].Review)
	for name, change := range map[string][2]string{
		"user":   {`"username":"admin"`, `"username":"` + strings.Repeat("u", 1<<20) + `"`},
		"groups": {`"groups":[`, `"groups":[` + strings.Repeat(`"",`, 1<<18)},
		"uid":    {`"request":{"uid":"`, `"request":{"uid":"` + strings.Repeat("0", 1<<20)},
	} {
		changed := strings.Replace(whole, change[0], change[1], 1)
		if changed == whole {
			t.Fatalf("the review has no %s", change[0])
		}
		got, err := Decode([]byte(changed))
		if !errors.Is(err, ErrUnreadable) {
			t.Errorf("%s: got error %v, want ErrUnreadable", name, err)
		}
		if len(got.User.Name) > maxText || len(got.User.Groups) > maxGroups || len(got.UID) > maxText {
			t.Errorf("%s: got a user of %d bytes, %d groups, a uid of %d bytes", name, len(got.User.Name), len(got.User.Groups), len(got.UID))
		}
	}
}

func TestReadDoesNotCopyABodyThatIsInMemory(t *testing.T) {
	t.Parallel()
	data := cases(t)[0].Review
	got, err := Read(inMemory{data: data})
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(data, got.Object)
	if at < 0 || &data[at] != &got.Object[0] {
		t.Error("the object is a copy")
	}
}

type inMemory struct {
	io.Reader
	data []byte
}

func (m inMemory) Received() ([]byte, error) { return m.data, nil }

func TestADenialHasCode403(t *testing.T) {
	t.Parallel()
	data := Encode("", denial(""))
	var answer admissionv1.AdmissionReview
	if err := json.Unmarshal(data, &answer); err != nil {
		t.Fatal(err)
	}
	if answer.Response.Allowed || answer.Response.Result.Code != 403 || answer.Kind != "AdmissionReview" {
		t.Errorf("got %s", data)
	}
}
