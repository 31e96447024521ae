// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package tke

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	testID  = "AKIDexample"
	testKey = "not-a-real-key"
)

// sign computes the signature as "Signature v3" of Tencent Cloud API 3.0 defines it, without the SDK.
func sign(key, host, contentType, timestamp string, body []byte) string {
	hash := func(data string) string { sum := sha256.Sum256([]byte(data)); return hex.EncodeToString(sum[:]) }
	mac := func(key []byte, data string) []byte {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(data))
		return m.Sum(nil)
	}
	seconds, _ := strconv.ParseInt(timestamp, 10, 64)
	date := time.Unix(seconds, 0).UTC().Format(time.DateOnly)
	canonical := "POST\n/\n\ncontent-type:" + contentType + "\nhost:" + host + "\n\ncontent-type;host\n" + hash(string(body))
	text := "TC3-HMAC-SHA256\n" + timestamp + "\n" + date + "/tke/tc3_request\n" + hash(canonical)
	return hex.EncodeToString(mac(mac(mac(mac([]byte("TC3"+key), date), "tke"), "tc3_request"), text))
}

// api is a fake endpoint that refuses a wrong signature, and answers any other request with answer.
func api(t *testing.T, answer http.HandlerFunc) Client {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		timestamp := r.Header.Get("X-TC-Timestamp")
		wanted := sign(testKey, r.Host, r.Header.Get("Content-Type"), timestamp, body)
		id, signature, _ := strings.Cut(r.Header.Get("Authorization"), ", SignedHeaders=content-type;host, Signature=")
		seconds, err := strconv.ParseInt(timestamp, 10, 64)
		switch {
		case err != nil || time.Since(time.Unix(seconds, 0)).Abs() > 5*time.Minute:
			refuse("AuthFailure.SignatureExpire")(w, r)
		case !strings.HasPrefix(id, "TC3-HMAC-SHA256 Credential="+testID+"/"):
			refuse("AuthFailure.SecretIdNotFound")(w, r)
		case signature != wanted:
			refuse("AuthFailure.SignatureFailure")(w, r)
		case r.Method != http.MethodPost || r.URL.Path != "/" || r.Header.Get("X-TC-Action") != "DescribeClusterEndpointStatus" ||
			r.Header.Get("X-TC-Version") != "2018-05-25" || r.Header.Get("X-TC-Region") != "ap-guangzhou" ||
			string(body) != `{"ClusterId":"cls-example","IsExtranet":false}`:
			t.Errorf("%s %s %v %s", r.Method, r.URL, r.Header, body)
		default:
			answer(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return Client{
		Credentials: credentials(t, map[string]string{"secretId": testID + "\n", "secretKey": testKey}), Region: "ap-guangzhou",
		Cluster: "cls-example", Endpoint: server.Listener.Addr().String(), transport: server.Client().Transport,
	}
}

func credentials(t *testing.T, files map[string]string) string {
	t.Helper()
	directory := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return directory
}

func says(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
}

func refuse(code string) http.HandlerFunc {
	return says(fmt.Sprintf(`{"Response":{"Error":{"Code":%q,"Message":"no\u0007"},"RequestId":"r-1"}}`, code))
}

func status(status string) http.HandlerFunc {
	return says(fmt.Sprintf(`{"Response":{"Status":%q,"ErrorMsg":"","RequestId":"r-1"}}`, status))
}

func TestAnswersAndErrorsAreToldApart(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		edit   func(*Client)
		want   Reason
		yes    string
	}{
		"enabled":               {status("Created"), nil, Enabled, "Yes"},
		"not enabled":           {status("NotFound"), nil, Disabled, "No"},
		"being enabled":         {status("Creating"), nil, Pending, "No"},
		"failed":                {says(`{"Response":{"Status":"CreateFailed","ErrorMsg":"no address left"}}`), nil, CreateFailed, "No"},
		"a new status":          {status("Hibernating"), nil, Unexpected, "Unknown"},
		"no status":             {says(`{"Response":{}}`), nil, Unexpected, "Unknown"},
		"not JSON":              {says(`<html>`), nil, Unexpected, "Unknown"},
		"another kind of value": {says(`{"Response":{"Status":7}}`), nil, Unexpected, "Unknown"},
		"a wrong key": {status("Created"), func(c *Client) {
			c.Credentials = credentials(t, map[string]string{"secretId": testID, "secretKey": "wrong"})
		}, BadCredentials, "Unknown"},
		"an unknown id": {status("Created"), func(c *Client) {
			c.Credentials = credentials(t, map[string]string{"secretId": "AKIDother", "secretKey": testKey})
		}, BadCredentials, "Unknown"},
		"no key": {status("Created"), func(c *Client) {
			c.Credentials = credentials(t, map[string]string{"secretId": testID})
		}, NoCredentials, "Unknown"},
		"an empty key": {status("Created"), func(c *Client) {
			c.Credentials = credentials(t, map[string]string{"secretId": testID, "secretKey": "\n"})
		}, NoCredentials, "Unknown"},
		"an expired token":        {refuse("AuthFailure.TokenFailure"), nil, BadCredentials, "Unknown"},
		"a wrong clock":           {refuse("AuthFailure.SignatureExpire"), nil, WrongClock, "Unknown"},
		"no permission":           {refuse("UnauthorizedOperation.CamNoAuth"), nil, NotAllowed, "Unknown"},
		"not authorized":          {refuse("AuthFailure.UnauthorizedOperation"), nil, NotAllowed, "Unknown"},
		"too many calls":          {refuse("RequestLimitExceeded"), nil, Throttled, "Unknown"},
		"too many of one account": {refuse("RequestLimitExceeded.UinLimitExceeded"), nil, Throttled, "Unknown"},
		"429": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusTooManyRequests)
			says("{}")(w, r)
		}, nil, Throttled, "Unknown"},
		"no such cluster":          {refuse("InternalError.ClusterNotFound"), nil, UnknownCluster, "Unknown"},
		"no such resource":         {refuse("ResourceNotFound.ClusterNotFound"), nil, UnknownCluster, "Unknown"},
		"no such region":           {refuse("UnsupportedRegion"), nil, WrongRegion, "Unknown"},
		"an error of the API":      {refuse("InternalError.Db"), nil, Unexpected, "Unknown"},
		"a code that starts alike": {refuse("AuthFailureX"), nil, Unexpected, "Unknown"},
		"502":                      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, nil, Unexpected, "Unknown"},
		"nobody listens":           {status("Created"), func(c *Client) { c.Endpoint = "127.0.0.1:1" }, Unreachable, "Unknown"},
		"an unknown CA":            {status("Created"), func(c *Client) { c.transport = http.DefaultTransport }, Unreachable, "Unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := api(t, test.answer)
			if test.edit != nil {
				test.edit(&client)
			}
			got := client.PrivateNetwork(t.Context())
			if got.Reason != test.want || got.PrivateNetwork() != test.yes {
				t.Errorf("got %+v, want %s and %s", got, test.want, test.yes)
			}
			if got.Message == "" || (got.Remedy == "") != (test.want == Enabled) || strings.ContainsAny(got.Message, "\n\u0007") ||
				strings.Contains(got.Message+got.Remedy, testKey) {
				t.Errorf("message %q, remedy %q", got.Message, got.Remedy)
			}
		})
	}
}

func TestAnAPIThatDoesNotAnswerTimesOut(t *testing.T) {
	t.Parallel()
	client := api(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if got := client.PrivateNetwork(ctx); got.Reason != TimedOut {
		t.Errorf("got %+v, want %s", got, TimedOut)
	}
}

func TestATemporaryCredentialSendsItsToken(t *testing.T) {
	t.Parallel()
	client := api(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-TC-Token") != "token" {
			t.Errorf("token: %q", r.Header.Get("X-TC-Token"))
		}
		status("Created")(w, r)
	})
	client.Credentials = credentials(t, map[string]string{"secretId": testID, "secretKey": testKey, "token": "token\n"})
	if got := client.PrivateNetwork(t.Context()); got.Reason != Enabled {
		t.Errorf("got %+v", got)
	}
}
