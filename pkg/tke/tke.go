// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package tke asks Tencent Cloud's API whether a TKE cluster has private network access, through which API Gateway reaches it.
package tke

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common"
	tcerrors "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/errors"
	tchttp "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/http"
	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/profile"

	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

// The files of the directory of credentials. The token is optional: only temporary credentials have one.
const (
	secretIDFile  = "secretId"
	secretKeyFile = "secretKey"
	tokenFile     = "token"
)

// DefaultEndpoint is the host of the API.
const DefaultEndpoint = "tke.tencentcloudapi.com"

// timeoutSeconds bounds one call.
const timeoutSeconds = 10

// Client asks about one cluster. All fields but Endpoint are required. It is safe for concurrent use.
type Client struct {
	// Credentials is a directory with the files secretId, secretKey and maybe token, read again for each call.
	Credentials string
	// Region is that of the cluster, such as ap-guangzhou, and Cluster its ID, such as cls-abcd1234.
	Region, Cluster string
	// Endpoint is a host, with a port if that is not 443; empty means DefaultEndpoint.
	Endpoint string

	// transport replaces that of the SDK in tests; nil otherwise.
	transport http.RoundTripper
}

// Reason is an answer, or why there is none, in one word.
type Reason string

// Reasons. The first four are answers of the API.
const (
	Enabled  Reason = "Enabled"
	Disabled Reason = "Disabled"
	// Pending: it is being enabled.
	Pending Reason = "Pending"
	// CreateFailed: Tencent Cloud could not enable it.
	CreateFailed Reason = "CreateFailed"

	// NoCredentials: the files cannot be read.
	NoCredentials Reason = "NoCredentials"
	// BadCredentials: the API does not know the SecretId, or the signature does not match the SecretKey.
	BadCredentials Reason = "BadCredentials"
	// WrongClock: the API refuses the time of the signature.
	WrongClock Reason = "WrongClock"
	// NotAllowed: the account of the credentials lacks the permission.
	NotAllowed Reason = "NotAllowed"
	// UnknownCluster: there is no such cluster in the region.
	UnknownCluster Reason = "UnknownCluster"
	// WrongRegion: there is no such region.
	WrongRegion Reason = "WrongRegion"
	// Throttled: too many calls.
	Throttled Reason = "Throttled"
	// TimedOut: no answer in time.
	TimedOut Reason = "TimedOut"
	// Unreachable: no connection, or no trust in the certificate.
	Unreachable Reason = "Unreachable"
	// Unexpected: another answer or error.
	Unexpected Reason = "Unexpected"
)

// Answer says whether private network access is enabled. It holds no credential.
type Answer struct {
	Reason Reason `json:"reason"`
	// Message says what the API answered, and Remedy what to do; Remedy is empty for Enabled.
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"`
}

// PrivateNetwork is "Yes", "No", or "Unknown" if the API gave no answer.
func (a Answer) PrivateNetwork() string {
	switch a.Reason {
	case Enabled:
		return "Yes"
	case Disabled, Pending, CreateFailed:
		return "No"
	default:
		return "Unknown"
	}
}

// PrivateNetwork asks once. Product tke, version 2018-05-25, action DescribeClusterEndpointStatus.
func (c Client) PrivateNetwork(ctx context.Context) Answer {
	credential, err := c.credential()
	if err != nil {
		return c.answer(NoCredentials, err.Error())
	}
	settings := profile.NewClientProfile()
	settings.Language, settings.HttpProfile.Endpoint, settings.HttpProfile.ReqTimeout = "en-US", c.Endpoint, timeoutSeconds
	client := common.NewCommonClient(credential, c.Region, settings)
	if c.transport != nil {
		client.WithHttpTransport(c.transport)
	}
	request := tchttp.NewCommonRequest("tke", "2018-05-25", "DescribeClusterEndpointStatus")
	request.SetContext(ctx)
	if err := request.SetActionParameters(map[string]any{"ClusterId": c.Cluster, "IsExtranet": false}); err != nil {
		return c.answer(Unexpected, err.Error())
	}
	response := tchttp.NewCommonResponse()
	if err := client.Send(request, response); err != nil {
		return c.answer(reasonOf(err), messageOf(err))
	}
	return c.read(response.GetBody())
}

func (c Client) credential() (*common.Credential, error) {
	values := map[string]string{}
	for _, name := range []string{secretIDFile, secretKeyFile, tokenFile} {
		data, err := os.ReadFile(filepath.Join(c.Credentials, name))
		if err != nil && (name != tokenFile || !errors.Is(err, os.ErrNotExist)) {
			return nil, fmt.Errorf("read the credentials of Tencent Cloud: %w", err)
		}
		values[name] = strings.TrimSpace(string(data))
		if values[name] == "" && name != tokenFile {
			return nil, fmt.Errorf("read the credentials of Tencent Cloud: %s is empty", filepath.Join(c.Credentials, name))
		}
	}
	return common.NewTokenCredential(values[secretIDFile], values[secretKeyFile], values[tokenFile]), nil
}

// read reads the body of an answer without an error.
func (c Client) read(body []byte) Answer {
	var answer struct {
		Response struct{ Status, ErrorMsg string }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return c.answer(Unexpected, "cannot parse the answer: "+err.Error())
	}
	status := answer.Response.Status
	message := "private network access of cluster " + c.Cluster + " has status " + status
	if answer.Response.ErrorMsg != "" {
		message += ": " + answer.Response.ErrorMsg
	}
	known := map[string]Reason{"Created": Enabled, "Creating": Pending, "NotFound": Disabled, "CreateFailed": CreateFailed}
	if reason, found := known[status]; found {
		return c.answer(reason, message)
	}
	return c.answer(Unexpected, message)
}

// maxMessage bounds the text of the API.
const maxMessage = 400

func (c Client) answer(reason Reason, message string) Answer {
	return Answer{Reason: reason, Message: text.Printable(message, maxMessage), Remedy: c.remedy(reason)}
}

// codes returns the starts of the error codes of the API, in the order in which they are tried. The common ones are those of Tencent Cloud
// API 3.0; those of TKE are in its SDKs, such as com.tencentcloudapi.tke.v20180525.TkeErrorCode.
func codes() []code {
	return []code{
		{"AuthFailure.SignatureExpire", WrongClock},
		{"AuthFailure.UnauthorizedOperation", NotAllowed},
		{"AuthFailure", BadCredentials},
		{"UnauthorizedOperation", NotAllowed},
		{"InternalError.CamNoAuth", NotAllowed},
		{"FailedOperation.RBACForbidden", NotAllowed},
		{"RequestLimitExceeded", Throttled},
		{"LimitExceeded", Throttled},
		{"UnsupportedRegion", WrongRegion},
		{"InvalidParameterValue.Region", WrongRegion},
		{"InternalError.ClusterNotFound", UnknownCluster},
		{"InvalidParameter.ClusterNotFound", UnknownCluster},
		{"FailedOperation.ClusterNotFound", UnknownCluster},
		{"ResourceNotFound", UnknownCluster},
	}
}

// code is the start of an error code.
type code struct {
	start  string
	reason Reason
}

func reasonOf(err error) Reason {
	var network net.Error
	var refused *tcerrors.TencentCloudSDKError
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return TimedOut
	case !errors.As(err, &refused):
		return Unexpected
	case refused.Code == "ClientError.NetworkError":
		return Unreachable
	case refused.Code == "ClientError.HttpStatusCodeError" && strings.Contains(refused.Message, "status code: 429"):
		return Throttled
	}
	for _, known := range codes() {
		if refused.Code == known.start || strings.HasPrefix(refused.Code, known.start+".") {
			return known.reason
		}
	}
	return Unexpected
}

// messageOf leaves out what the SDK adds for its own logs.
func messageOf(err error) string {
	var refused *tcerrors.TencentCloudSDKError
	if !errors.As(err, &refused) {
		return err.Error()
	}
	message := refused.Code + ": " + refused.Message
	if cause := refused.Unwrap(); cause != nil {
		message += ": " + cause.Error()
	}
	if refused.RequestId != "" {
		message += " (request " + refused.RequestId + ")"
	}
	return message
}

func (c Client) remedy(reason Reason) string {
	const noWay = "allow the guard's Pods DNS and TCP port 443 to the API, or set the chart's tencentCloud.endpoint to that of the private " +
		"network"
	return map[Reason]string{
		Disabled: "API Gateway cannot reach the API server: in the TKE console open the cluster, Basic information, Cluster APIServer " +
			"information, enable Private network access and choose a subnet",
		Pending:      "wait some minutes: Tencent Cloud is enabling it",
		CreateFailed: "in the TKE console disable and enable Private network access with another subnet, or ask Tencent Cloud's support",
		NoCredentials: "give the Secret of the chart's tencentCloud.credentialsSecret the keys secretId and secretKey; a command reads them " +
			"as files of the directory --tencent-cloud-credentials",
		BadCredentials: "put a valid SecretId and SecretKey into the Secret of the chart's tencentCloud.credentialsSecret: Tencent Cloud " +
			"console, Cloud Access Management, API keys",
		WrongClock: "correct the clock of the node: the API takes signatures of the last 5 minutes",
		NotAllowed: "allow the account of the SecretId the action tke:DescribeClusterEndpointStatus on this cluster, in Cloud Access " +
			"Management",
		UnknownCluster: "correct the chart's tencentCloud.clusterId or tencentCloud.region: there is no cluster " + c.Cluster + " in " +
			c.Region,
		WrongRegion: "correct the chart's tencentCloud.region: it is " + c.Region,
		Throttled: "try again in a minute, as the guard does; if it lasts, raise the chart's tencentCloud.interval, or find other callers of " +
			"this account",
		TimedOut:    noWay,
		Unreachable: noWay,
		Unexpected:  "read the message; if it names a state of the cluster, look at the TKE console",
	}[reason]
}
