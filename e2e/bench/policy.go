// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// deniedByPolicy is P12: a denied PATCH with engine policy, beside the shortest policy that a user would write.
func (b *bench) deniedByPolicy(ctx context.Context) error {
	contenders := []*contender{
		{name: "hand-written policy", start: b.policies(b.handWritten)}, {name: "engine `policy`", start: b.policies(b.generated)},
	}
	for range rounds {
		for _, c := range contenders {
			if err := b.round(ctx, c); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	printDenials("P12", contenders)
	fmt.Println()
	return nil
}

// policies creates the objects of make. The end deletes them, and waits until no API server's cache has them.
func (b *bench) policies(
	make func(context.Context) ([]unstructured.Unstructured, error),
) func(context.Context) (func() error, error) {
	return func(ctx context.Context) (func() error, error) {
		objects, err := make(ctx)
		if err != nil {
			return nil, err
		}
		client, err := dynamic.NewForConfig(b.cluster.AdminConfig())
		if err != nil {
			return nil, err
		}
		for _, object := range objects {
			if _, err := client.Resource(kindOf(object)).Create(ctx, &object, metav1.CreateOptions{}); err != nil {
				return nil, err
			}
		}
		return func() error {
			for _, object := range objects {
				if err := client.Resource(kindOf(object)).Delete(ctx, object.GetName(), metav1.DeleteOptions{}); err != nil {
					return err
				}
			}
			return b.await(ctx, http.StatusOK)
		}, nil
	}
}

func kindOf(object unstructured.Unstructured) schema.GroupVersionResource {
	resource := "validatingadmissionpolicies"
	if object.GetKind() == "ValidatingAdmissionPolicyBinding" {
		resource = "validatingadmissionpolicybindings"
	}
	return admissionregistrationv1.SchemeGroupVersion.WithResource(resource)
}

// generated returns what `apigw-guardian policy` prints.
func (b *bench) generated(ctx context.Context) ([]unstructured.Unstructured, error) {
	printed, err := exec.CommandContext(ctx, b.guardian, "policy", "--output=json").Output()
	if err != nil {
		return nil, fmt.Errorf("run apigw-guardian policy: %w", err)
	}
	var list unstructured.UnstructuredList
	err = list.UnmarshalJSON(printed)
	return list.Items, err
}

func (b *bench) handWritten(context.Context) ([]unstructured.Unstructured, error) {
	const name = "hand-written"
	policy := &admissionregistrationv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionregistrationv1.MatchResources{
				ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{
					ResourceNames: []string{b.world.Role.Name},
					RuleWithOperations: admissionregistrationv1.RuleWithOperations{
						Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Update, admissionregistrationv1.Delete},
						Rule: admissionregistrationv1.Rule{
							APIGroups: []string{"rbac.authorization.k8s.io"}, APIVersions: []string{"v1"}, Resources: []string{"clusterroles"},
						},
					},
				}},
			},
			Validations: []admissionregistrationv1.Validation{{
				Expression: "request.operation == 'UPDATE' && object.rules == oldObject.rules && object.metadata == oldObject.metadata",
				Message:    "reserved by API Gateway",
				Reason:     new(metav1.StatusReasonForbidden),
			}},
		},
	}
	binding := &admissionregistrationv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: name, ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny},
		},
	}
	policy.SetGroupVersionKind(admissionregistrationv1.SchemeGroupVersion.WithKind("ValidatingAdmissionPolicy"))
	binding.SetGroupVersionKind(admissionregistrationv1.SchemeGroupVersion.WithKind("ValidatingAdmissionPolicyBinding"))
	var objects []unstructured.Unstructured
	for _, typed := range []any{policy, binding} {
		object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(typed)
		if err != nil {
			return nil, err
		}
		objects = append(objects, unstructured.Unstructured{Object: object})
	}
	return objects, nil
}
