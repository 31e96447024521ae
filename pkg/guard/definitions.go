// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"fmt"
	"log/slog"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/crds"
)

// applyDefinitions applies the CustomResourceDefinitions of the guard, until the API server has stored each once. They belong to no
// release, so that neither helm nor a deletion of the rendered chart takes the audit records along, and no other release is in the way.
func (g *Guard) applyDefinitions(ctx context.Context) {
	if !g.options.ApplyCRDs {
		return
	}
	client, err := dynamic.NewForConfig(g.config)
	if err != nil {
		g.options.Log.Error("failed to make a client of definitions", slog.Any("err", err))
		return
	}
	_ = wait.PollUntilContextCancel(ctx, checkInterval, true, func(ctx context.Context) (bool, error) {
		err := g.applyEachDefinition(ctx, client.Resource(crds.Resource()))
		if err != nil {
			g.options.Log.Error("failed to apply the definitions of the custom resources", slog.Any("err", err))
		}
		return err == nil, nil
	})
}

func (g *Guard) applyEachDefinition(ctx context.Context, client dynamic.ResourceInterface) error {
	server, err := g.client.Discovery().ServerVersion()
	if err != nil {
		return fmt.Errorf("ask for the API server's version: %w", err)
	}
	current, err := version.ParseGeneric(server.GitVersion)
	if err != nil {
		return fmt.Errorf("read the API server's version: %w", err)
	}
	definitions, err := crds.Definitions(current)
	if err != nil {
		return err
	}
	for _, definition := range definitions {
		options := metav1.ApplyOptions{FieldManager: guardian.FieldManager, Force: true}
		if _, err := client.Apply(ctx, definition.GetName(), definition, options); err != nil {
			return fmt.Errorf("apply customresourcedefinition %q: %w", definition.GetName(), err)
		}
	}
	return nil
}
