// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/client-go/discovery"

	"github.com/apigw-guardian/apigw-guardian/pkg/privatenet"
)

// The releases that the guard is tested with. 1.28 is the first with matchConditions of webhooks and with
// SelfSubjectReview v1.
const (
	oldestRelease = "1.28"
	newestRelease = "1.37"
)

// gitVersion returns the API server's version as it names itself, for example "v1.30.0-tke.4".
func (a *Authorizer) gitVersion(ctx context.Context) (string, error) {
	info, err := discovery.ToServerVersionInterfaceWithContext(a.cluster.Client.Discovery()).ServerVersionWithContext(ctx)
	if err != nil {
		return "", fmt.Errorf("ask the API server for its version: %w", err)
	}
	return info.GitVersion, nil
}

func (a *Authorizer) checkVersion(ctx context.Context, _ Options) Check {
	git, err := a.gitVersion(ctx)
	if err != nil {
		return Check{
			Status:  Fail,
			Message: fmt.Sprintf("The API server does not answer: %v.", err),
			Remedy:  "Check the kubeconfig and its context, and that this machine reaches the API server (kubectl version).",
		}
	}
	return judgeVersion(git)
}

func judgeVersion(git string) Check {
	running, err := version.ParseGeneric(git)
	if err != nil {
		return Check{
			Status:  Unknown,
			Message: fmt.Sprintf("The API server's version %q cannot be read.", git),
			Remedy:  fmt.Sprintf("Make sure that it is between %s and %s.", oldestRelease, newestRelease),
		}
	}
	release := version.MajorMinor(running.Major(), running.Minor())
	switch {
	case release.LessThan(version.MustParseGeneric(oldestRelease)):
		return Check{
			Status:  Fail,
			Message: fmt.Sprintf("Kubernetes %s is older than %s, which the guard needs.", git, oldestRelease),
			Remedy:  fmt.Sprintf("Upgrade the cluster to %s or later.", oldestRelease),
		}
	case release.GreaterThan(version.MustParseGeneric(newestRelease)):
		return Check{
			Status:  Unknown,
			Message: fmt.Sprintf("Kubernetes %s is newer than %s, the last release that the guard is tested with.", git, newestRelease),
			Remedy:  "Look for a newer apigw-guardian. It may well work as it is: run verify afterwards.",
		}
	}
	return Check{Status: Pass, Message: fmt.Sprintf("Kubernetes %s is supported.", git)}
}

func (a *Authorizer) checkPrivateNetwork(ctx context.Context, options Options) Check {
	if options.PrivateNetwork == NetworkSkip {
		return Check{Status: Skipped, Message: "Private network access was not looked at, as asked for."}
	}
	finding := privatenet.Probe(ctx, a.cluster.Client.CoreV1().Services(privatenet.Namespace))
	check := Check{Message: finding.Sentence}
	switch finding.Answer {
	case privatenet.Yes:
		check.Status = Pass
	case privatenet.No:
		check.Status, check.Remedy = Fail, privatenet.Remedy
		if options.PrivateNetwork == NetworkWarn {
			check.Status = Unknown
		}
	default:
		check.Status = Unknown
		check.Remedy = "Make sure that private network access is enabled. " + privatenet.Remedy
	}
	return check
}

// The signs of a TKE cluster: its API server's version ends like "-tke.4", and its nodes are machines of Tencent Cloud.
const (
	tkeVersionSign  = "tke"
	tkeProviderSign = "qcloud://"
)

// lookedAtNodes bounds how many nodes are asked for. They are of one kind in all but mixed clusters.
const lookedAtNodes = 100

func (a *Authorizer) checkTKE(ctx context.Context, _ Options) Check {
	if git, err := a.gitVersion(ctx); err == nil && strings.Contains(git, tkeVersionSign) {
		return Check{Status: Pass, Message: fmt.Sprintf("The version %s is TKE's.", git)}
	}
	nodes, err := a.cluster.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{Limit: lookedAtNodes})
	if err != nil {
		return Check{
			Status:  Unknown,
			Message: fmt.Sprintf("The nodes cannot be listed: %v.", err),
			Remedy:  "Nothing depends on it: the guard works on any Kubernetes cluster.",
		}
	}
	for _, node := range nodes.Items {
		if strings.HasPrefix(node.Spec.ProviderID, tkeProviderSign) {
			return Check{Status: Pass, Message: fmt.Sprintf("The node %s is a machine of Tencent Cloud.", node.Name)}
		}
	}
	return Check{Status: Skipped, Message: "There is no sign of TKE. The guard works on any Kubernetes cluster."}
}
