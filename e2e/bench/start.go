// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
)

// firstDenial is P8: from the start of the process to the first denial, on a cluster that has never seen the guard (it makes
// its authority and its registration), and on one that has.
func (b *bench) firstDenial(ctx context.Context) error {
	var news, restarts []time.Duration
	for range rounds {
		if err := b.forget(ctx); err != nil {
			return err
		}
		took, err := b.timeStart(ctx)
		if err != nil {
			return err
		}
		news = append(news, took)
		if took, err = b.timeStart(ctx); err != nil {
			return err
		}
		restarts = append(restarts, took)
	}
	fmt.Printf("| P8 process start to first denial | median | longest |\n|---|---|---|\n")
	fmt.Printf("| new cluster | %s | %s |\n", milliseconds(median(news)), milliseconds(slices.Max(news)))
	fmt.Printf("| restart | %s | %s |\n", milliseconds(median(restarts)), milliseconds(slices.Max(restarts)))
	return nil
}

// forget takes away what the guard has left in the cluster.
func (b *bench) forget(ctx context.Context) error {
	for _, path := range []string{
		"/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/apigw-guardian",
		"/api/v1/namespaces/apigw-guardian/secrets/apigw-guardian-ca",
	} {
		if _, err := b.world.Unguarded.Do(ctx, scenario.Write{Method: http.MethodDelete, Path: path, ContentType: scenario.JSON}); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) timeStart(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	guard, err := b.cluster.LaunchGuard(b.guardian)
	if err != nil {
		return 0, err
	}
	defer guard.Stop()
	attack := scenario.Delete(b.world.Role).DryRun()
	for {
		answer, err := b.world.Guarded.Do(ctx, attack)
		if err != nil {
			return 0, err
		}
		if answer.Code == http.StatusForbidden {
			return time.Since(start), nil
		}
		select {
		case <-guard.Ended():
			return 0, fmt.Errorf("the guard has ended before it denied anything")
		case <-time.After(2 * time.Millisecond):
		}
	}
}
