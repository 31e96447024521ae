// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/client-go/kubernetes"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
	"github.com/apigw-guardian/apigw-guardian/pkg/tke"
)

// The tested releases. 1.28 is the first with match conditions of webhooks and with SelfSubjectReview v1.
const (
	oldestRelease = "1.28"
	newestRelease = "1.37"
)

// checkVersion judges what the API server answered when asked for its version.
func checkVersion(git string, err error) Check {
	if err != nil {
		return fail(err.Error(), "Check the kubeconfig and its context, and that this machine reaches the API server (kubectl version).")
	}
	running, err := version.ParseGeneric(git)
	if err != nil {
		return unknown(fmt.Sprintf("cannot parse the version %q of the API server", git),
			"Make sure that it is between "+oldestRelease+" and "+newestRelease+".")
	}
	release := version.MajorMinor(running.Major(), running.Minor())
	switch {
	case release.LessThan(version.MustParseGeneric(oldestRelease)):
		return fail("Kubernetes "+git+" is older than "+oldestRelease, "Upgrade the cluster to "+oldestRelease+" or later.")
	case release.GreaterThan(version.MustParseGeneric(newestRelease)):
		return unknown("Kubernetes "+git+" is newer than "+newestRelease+", the newest tested release",
			"Look for a newer apigw-guardian, or run verify after the installation.")
	}
	return pass("Kubernetes " + git + " is supported")
}

// The signs of a TKE cluster: its version ends like "-tke.4", and its nodes are machines of Tencent Cloud.
const (
	tkeVersionSign  = "tke"
	tkeProviderSign = "qcloud://"
)

// maxNodes limits the list of nodes. Except in mixed clusters, all nodes are of one provider.
const maxNodes = 100

func (a *Authorizer) checkTKE(ctx context.Context, git string) Check {
	if strings.Contains(git, tkeVersionSign) {
		return pass(git + " is a version of TKE")
	}
	nodes, err := a.cluster.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{Limit: maxNodes})
	if err != nil {
		return unknown("cannot list nodes: "+err.Error(), "Ignore this: the guard works on any Kubernetes cluster.")
	}
	for _, node := range nodes.Items {
		if strings.HasPrefix(node.Spec.ProviderID, tkeProviderSign) {
			return pass("node " + node.Name + " is a machine of Tencent Cloud")
		}
	}
	return Check{Status: Skipped, Message: "no sign of TKE; the guard works on any Kubernetes cluster"}
}

// TKE shows private network access by this Service. It is not an official contract, so its absence proves nothing.
const (
	networkNamespace = metav1.NamespaceDefault
	networkService   = "kubernetes-intranet"
)

// networkRemedy is from the FAQ of Tencent Cloud's "Granting TKE Cluster Permissions to API Gateway".
const networkRemedy = "In the TKE console open the cluster, Basic information, Cluster APIServer information, enable Private " +
	"network access and choose a subnet; then try again. Leave it enabled: without it API Gateway cannot reach the API server."

// CheckPrivateNetwork looks for private network access to a TKE cluster's API server. The status is Pass, Fail, or Unknown.
func CheckPrivateNetwork(ctx context.Context, client kubernetes.Interface) Check {
	const name = "Service " + networkNamespace + "/" + networkService
	const unknownRemedy = "Make sure that private network access is enabled. " + networkRemedy
	service, err := client.CoreV1().Services(networkNamespace).Get(ctx, networkService, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return unknown(name+" is absent; TKE shows private network access by it", unknownRemedy)
	case err != nil:
		return unknown("cannot read "+name+": "+err.Error(), unknownRemedy)
	case service.Spec.Type != corev1.ServiceTypeLoadBalancer:
		return fail(fmt.Sprintf("%s has type %s, not LoadBalancer", name, service.Spec.Type), networkRemedy)
	}
	for _, ingress := range service.Status.LoadBalancer.Ingress {
		if address := cmp.Or(ingress.IP, ingress.Hostname); address != "" {
			return pass(name + " has the address " + address)
		}
	}
	return fail(name+" has no address", networkRemedy)
}

func (a *Authorizer) checkPrivateNetwork(ctx context.Context, options Options) Check {
	if options.PrivateNetwork == NetworkSkip {
		return Check{Status: Skipped, Message: "private network access is not checked"}
	}
	check := CheckPrivateNetwork(ctx, a.cluster.Client)
	if options.AskCloud != nil {
		check = judgeCloud(options.AskCloud(ctx), check)
	}
	if check.Status == Fail && options.PrivateNetwork == NetworkWarn {
		check.Status = Unknown
	}
	return check
}

// judgeCloud returns what Tencent Cloud has answered. If it gave no answer, a cluster that shows no access still fails.
func judgeCloud(answer tke.Answer, shown Check) Check {
	switch answer.PrivateNetwork() {
	case "Yes":
		return pass("Tencent Cloud: " + answer.Message)
	case "No":
		return fail("Tencent Cloud: "+answer.Message, answer.Remedy)
	}
	message := fmt.Sprintf("Tencent Cloud did not answer whether it is enabled (%s: %s); %s", answer.Reason, answer.Message, shown.Message)
	if shown.Status == Fail {
		return fail(message, answer.Remedy+". "+shown.Remedy)
	}
	return unknown(message, answer.Remedy)
}

// checkServed reports reserved resources that the API server does not serve under their plural names: no webhook matches them.
func (a *Authorizer) checkServed() Check {
	err := a.cluster.Set.CheckServed(a.cluster.Client.Discovery().ServerResourcesForGroupVersion)
	if err == nil {
		return pass("the API server serves every reserved kind")
	}
	message := strings.ReplaceAll(err.Error(), "\n", "; ") // errors.Join writes a line for each; a row of a table has one
	if errors.Is(err, reserved.ErrNotServed) {
		return fail(message, "Correct the reservation, or install the kind.")
	}
	return unknown(message, "Check that the API server answers: kubectl api-resources.")
}

// Certificate is the part of cert-manager's Certificate that says whether it is issued.
type Certificate struct {
	metav1.ObjectMeta `json:"metadata"`

	Status struct {
		Conditions []metav1.Condition `json:"conditions"`
	} `json:"status"`
}

// Certificates returns the Certificates of the chart; nil without cert-manager, or if the caller may not list them.
func Certificates(ctx context.Context, cluster live.Cluster) []Certificate {
	const selector = "app.kubernetes.io/name=" + guardian.WebhookConfiguration
	resource := schema.GroupVersionResource{Group: "cert-manager.io", Version: "v1", Resource: "certificates"}
	list, err := cluster.Dynamic.Resource(resource).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil
	}
	var certificates []Certificate
	for _, item := range list.Items {
		var certificate Certificate
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(item.Object, &certificate); err == nil {
			certificates = append(certificates, certificate)
		}
	}
	return certificates
}

// Problem says why cert-manager has not issued a Certificate; "" if it has:
//
//	Certificate guard/apigw-guardian is not ready: DoesNotExist: Issuing certificate as Secret does not exist
func (c *Certificate) Problem() string {
	text := "Certificate " + c.Namespace + "/" + c.Name + " is not ready: "
	ready := meta.FindStatusCondition(c.Status.Conditions, "Ready")
	if ready == nil {
		return text + "cert-manager has not looked at it: check that cert-manager runs"
	}
	if ready.Status == metav1.ConditionTrue {
		return ""
	}
	text += ready.Reason + ": " + strings.TrimRight(ready.Message, ". \n")
	issuing := meta.FindStatusCondition(c.Status.Conditions, "Issuing")
	if issuing != nil && issuing.Message != "" && issuing.Message != ready.Message {
		text += "; " + issuing.Reason + ": " + strings.TrimRight(issuing.Message, ". \n")
	}
	return text
}

// checkCertificates never fails: a Certificate that is not ready can be a moment old.
func checkCertificates(certificates []Certificate) Check {
	for _, certificate := range certificates {
		if problem := certificate.Problem(); problem != "" {
			return unknown(problem, "The guard starts once it is: kubectl -n "+certificate.Namespace+
				" describe certificate,certificaterequest,issuer")
		}
	}
	return pass("cert-manager has issued the guard's certificate")
}

// checkReachable reports whether API servers reach a guard that is registered.
func (a *Authorizer) checkReachable(ctx context.Context) Check {
	registered, err := a.cluster.WebhookConfiguration(ctx)
	namespace := registration.ProbeNamespace(registered)
	switch {
	case err != nil:
		return unknown(err.Error(), "Make sure that you may read it.")
	case registered == nil:
		return Check{Status: Skipped, Message: "the guard is not registered; it fails closed only after its first review has arrived"}
	case namespace == "":
		return Check{Status: Skipped, Message: "the registered guard is of a version that cannot be probed"}
	}
	err = registration.Reach(ctx, a.cluster.Client.CoreV1(), namespace)
	switch problem := registered.Annotations[guardian.ReachabilityProblemAnnotation]; {
	case err == nil:
		return pass("a review of the API server arrives at the guard")
	case errors.Is(err, registration.ErrUnreachable):
		remedy := registration.ReachRemedy(a.webhookPort(ctx, registered))
		return fail(err.Error(), strings.ToUpper(remedy[:1])+remedy[1:]+".")
	case problem != "":
		return fail("the guard reports: "+problem, "")
	case errors.Is(err, registration.ErrNotAsked):
		return unknown(err.Error(), "Try again in a few seconds, or run: "+guardian.Name+" status.")
	}
	return unknown("cannot find out whether the API server reaches the guard: "+err.Error(), "")
}

// webhookPort names the port of the guard's Pods, or of its URL.
func (a *Authorizer) webhookPort(ctx context.Context, registered *admissionregistrationv1.ValidatingWebhookConfiguration) string {
	const unknownPort = "webhook.port (9443 by default)"
	config := registered.Webhooks[0].ClientConfig
	if config.Service == nil {
		address, err := url.Parse(*config.URL)
		if err != nil {
			return unknownPort
		}
		return address.Port()
	}
	slices, err := a.cluster.Client.DiscoveryV1().EndpointSlices(config.Service.Namespace).List(ctx, metav1.ListOptions{
		LabelSelector: discoveryv1.LabelServiceName + "=" + config.Service.Name,
	})
	if err != nil {
		return unknownPort
	}
	for _, slice := range slices.Items {
		for _, port := range slice.Ports {
			if port.Name != nil && *port.Name == "webhook" && port.Port != nil {
				return strconv.Itoa(int(*port.Port))
			}
		}
	}
	return unknownPort
}
