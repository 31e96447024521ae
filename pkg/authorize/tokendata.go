// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// rootCAPath is where a token Secret holds the CA of the API server, as package policy writes paths.
const rootCAPath = "data[" + corev1.ServiceAccountRootCAKey + "]"

const (
	foreignCA = rootCAPath + " is not the CA of this cluster: a client that uses this Secret would trust another API server " +
		"and send it the token"
	rootCARemedy = "Only kube-controller-manager writes " + rootCAPath + ", on each change of the Secret. Remove what keeps it from " +
		"that: a MutatingAdmissionPolicy or mutating webhook that sets the field, or a controller manager that does not run or " +
		"lacks --root-ca-file. Then authorize with --repair, which makes it write the field again."
)

// dataDrift returns the sorted paths in which the data of a token Secret is not what kube-controller-manager writes, apart from
// the token itself; nil for a nil Secret, and for one that is not filled yet.
func (a *Authorizer) dataDrift(ctx context.Context, secret *corev1.Secret) ([]string, error) {
	if secret == nil {
		return nil, nil
	}
	var paths []string
	for key, value := range secret.Data {
		isRight, err := a.isRightData(ctx, secret, key, value)
		if err != nil {
			return nil, err
		}
		if !isRight {
			paths = append(paths, dataPath(key))
		}
	}
	slices.Sort(paths)
	return paths, nil
}

func (a *Authorizer) isRightData(ctx context.Context, secret *corev1.Secret, key string, value []byte) (bool, error) {
	switch {
	case key == corev1.ServiceAccountTokenKey:
		return true, nil
	case key == corev1.ServiceAccountNamespaceKey:
		return len(value) == 0 || string(value) == secret.Namespace, nil
	case key != corev1.ServiceAccountRootCAKey:
		return false, nil
	case len(value) == 0:
		return true, nil
	}
	isOurs, err := a.lookups().IsClusterCA(ctx, value)
	if err != nil {
		return false, fmt.Errorf("compare %s of secret %s/%s with the CA of the cluster: %w", rootCAPath, secret.Namespace, secret.Name, err)
	}
	return isOurs, nil
}

// dataPath writes a key of a Secret, which holds letters, digits, '-', '_' and '.', as package policy writes paths.
func dataPath(key string) string {
	if strings.Contains(key, ".") {
		return "data[" + key + "]"
	}
	return "data." + key
}

// renewManager is the field manager of writes that change nothing else of a Secret.
const renewManager = "apigw-guardian-renew"

// renewCA makes kube-controller-manager write the CA of a token Secret again, and waits until it has. The controller looks at a
// Secret whenever it changes, so a field manager takes the fields of the manifest and gives them up: each is a change, and
// neither changes a value.
func (a *Authorizer) renewCA(ctx context.Context, f found, limit time.Duration) error {
	fields, none := f.entry.Object(), newObject(f.entry, f.inUse())
	fields.SetName(f.inUse())
	options := metav1.ApplyOptions{FieldManager: renewManager, Force: true}
	if _, err := a.resource(f.entry).Apply(ctx, f.inUse(), fields, options); err != nil {
		return fmt.Errorf("apply %s: %w", f.name(), err)
	}
	if _, err := a.resource(f.entry).Apply(ctx, f.inUse(), none, options); err != nil {
		return fmt.Errorf("apply %s: %w", f.name(), err)
	}
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := wait.PollUntilContextCancel(bounded, pollInterval, true, func(context.Context) (bool, error) {
		// Not the bounded context: the client's rate limiter refuses a call that the end of the wait would cut off.
		secret, err := a.cluster.Client.CoreV1().Secrets(f.entry.Namespace).Get(ctx, f.inUse(), metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		drift, err := a.dataDrift(ctx, secret)
		return err == nil && !slices.Contains(drift, rootCAPath), err
	})
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("wait for kube-controller-manager to write %s: %w", rootCAPath, context.Cause(ctx))
	case bounded.Err() != nil:
		return fmt.Errorf("%s: kube-controller-manager has not written %s within %s. %s: %w",
			f.name(), rootCAPath, limit, rootCARemedy, ErrDiffers)
	case err != nil:
		return fmt.Errorf("wait for kube-controller-manager to write %s: %w", rootCAPath, err)
	}
	return nil
}
