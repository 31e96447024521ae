// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
)

// MaxBytes is the max size of a review. etcd refuses requests over 1.5 MiB, so no stored object is larger. Go's JSON takes up to six
// bytes for one ("<" becomes "\u003c"): 9 MiB for the largest oldObject, and 1 MiB for the head and for an object that restores a
// manifest.
const MaxBytes = 10 << 20

// maxText is the max size of each string of the head, and maxGroups that of the user's groups, and of extra, as JSON: they are copied,
// and a list of empty groups takes five times its JSON. The API server reads both from HTTP headers or certificates, which are shorter.
const (
	maxText   = 64 << 10
	maxGroups = 256 << 10
)

const (
	apiVersion = "admission.k8s.io/v1"
	kind       = "AdmissionReview"
)

// ErrTooLarge means that a review is larger than MaxBytes.
var ErrTooLarge = errors.New("review too large")

// ErrOverloaded means that the memory budget had no room for a review.
var ErrOverloaded = errors.New("too many bytes of reviews at a time")

// ErrUnreadable means that the bytes are no review, or lack what a decision needs.
var ErrUnreadable = errors.New("review unreadable")

// Received is a body that the server has read already: Received returns the bytes, and the error that cut them off.
type Received interface {
	Received() ([]byte, error)
}

// Read reads one review. The Request is never nil. With an error, it holds the readable part of the head. The error is
// ErrTooLarge, ErrUnreadable or one of the reader. The Request shares the bytes of a body that is Received.
func Read(body io.Reader) (*policy.Request, error) {
	data, err := receive(body)
	if err != nil {
		return readHead(data), fmt.Errorf("read review: %w", err)
	}
	return Decode(data)
}

func receive(body io.Reader) ([]byte, error) {
	if body, ok := body.(Received); ok {
		return body.Received()
	}
	data, err := io.ReadAll(io.LimitReader(body, MaxBytes+1))
	if err == nil && len(data) > MaxBytes {
		err = fmt.Errorf("more than %d bytes: %w", MaxBytes, ErrTooLarge)
	}
	return data, err
}

// Decode reads one review from memory; results are as of Read.
func Decode(data []byte) (*policy.Request, error) {
	document, err := rawjson.Parse(data)
	if err != nil {
		return readHead(data), fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	request, err := decode(document)
	if err != nil {
		return request, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return request, nil
}

// readHead reads the head of a review that is cut off or broken. It drops the objects, because they may be incomplete.
func readHead(data []byte) *policy.Request {
	request, _ := decode(rawjson.Truncated(data))
	request.Object, request.OldObject = nil, nil
	return request
}

func decode(document rawjson.Value) (*policy.Request, error) {
	request := &policy.Request{}
	envelope := struct{ apiVersion, kind, request rawjson.Value }{}
	for key, value := range document.Members() {
		switch string(key) {
		case "apiVersion":
			envelope.apiVersion = value
		case "kind":
			envelope.kind = value
		case "request":
			envelope.request = value
		}
	}
	err := decodeRequest(envelope.request, request)
	switch {
	case !envelope.apiVersion.TextIs(apiVersion) || !envelope.kind.TextIs(kind):
		return request, fmt.Errorf("not an %s %s", apiVersion, kind)
	case !envelope.request.IsObject():
		return request, errors.New("it has no request")
	case request.UID == "":
		return request, errors.New("its request has no uid")
	}
	return request, err
}

func decodeRequest(request rawjson.Value, r *policy.Request) error {
	in := &strict{}
	for key, value := range request.Members() {
		switch string(key) {
		case "uid":
			in.read(value, &r.UID)
		case "kind":
			in.readObject(value)
			in.read(value.Get("kind"), &r.Kind)
		case "resource":
			in.readObject(value)
			in.read(value.Get("group"), &r.GVR.Group)
			in.read(value.Get("version"), &r.GVR.Version)
			in.read(value.Get("resource"), &r.GVR.Resource)
		case "subResource":
			in.read(value, &r.Subresource)
		case "operation":
			in.read(value, (*string)(&r.Operation))
		case "namespace":
			in.read(value, &r.Namespace)
		case "name":
			in.read(value, &r.Name)
		case "dryRun":
			r.DryRun = string(value) == "true"
		case "object":
			r.Object = in.readObject(value)
		case "oldObject":
			r.OldObject = in.readObject(value)
		case "userInfo":
			info := in.readObject(value)
			in.read(info.Get("username"), &r.User.Name)
			in.read(info.Get("uid"), &r.User.UID)
			in.readLists(info.Get("groups"), &r.User.Groups)
			in.readLists(info.Get("extra"), &r.User.Extra)
		}
	}
	return in.err
}

// strict reads values, and keeps the last error: a value of another type, or one that is too long.
type strict struct{ err error }

func (s *strict) read(value rawjson.Value, into *string) {
	if len(value) > maxText {
		s.err = errors.New("it has a string that is too long")
		return
	}
	*into = value.Text()
	if !value.IsString() && !isAbsent(value) {
		s.err = errors.New("it has something else where a string belongs")
	}
}

// readObject returns the object, and an absent value for null.
func (s *strict) readObject(value rawjson.Value) rawjson.Value {
	if value.IsObject() {
		return value
	}
	if !isAbsent(value) {
		s.err = errors.New("it has something else where an object belongs")
	}
	return nil
}

func isAbsent(value rawjson.Value) bool { return len(value) == 0 || string(value) == "null" }

// readLists reads the groups of the user, or the values of each key of extra.
func (s *strict) readLists(value rawjson.Value, into any) {
	if isAbsent(value) {
		return
	}
	if len(value) > maxGroups {
		s.err = errors.New("its user has too many groups, or too much extra")
		return
	}
	if err := json.Unmarshal(value, into); err != nil {
		s.err = fmt.Errorf("groups or extra of the user: %w", err)
	}
}
