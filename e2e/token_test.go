// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/report"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

const reservedAccount = "system:serviceaccount:kube-system:apigw-ingress"

// TestNoTokenIsMinted is row R3 of the targets: each attack that the corpus calls a mint is played twice, without the guard,
// where it must come by a working token (or it would prove nothing), and with it.
func TestNoTokenIsMinted(t *testing.T) {
	harness.Take(t)
	world := harness.World(t)
	var attacks []scenario.Scenario
	for _, s := range scenario.All() {
		if slices.Contains([]string{"mint-under-another-name", "mint-by-another-accounts-secret"}, s.Name) {
			attacks = append(attacks, s)
		}
	}
	if len(attacks) != 2 {
		t.Fatalf("got %d attacks, want 2: a scenario has another name", len(attacks))
	}
	for _, attack := range attacks {
		play(t, world, attack)
		harness.Eventually(t, attack.Name+" comes by a token without the guard", func() (bool, any) {
			tokens := foreignTokens(t)
			return len(tokens) > 0, tokens
		})
		removeForeign(t)
	}
	harness.StartGuard(t)
	for _, attack := range attacks {
		if answer := play(t, world, attack); answer.Code != http.StatusForbidden {
			t.Errorf("%s: got %d %s, want 403", attack.Name, answer.Code, answer.Body)
		}
	}
	// A Secret that the controller manager does fill shows that it has had its time.
	fillAnother(t)
	if tokens := foreignTokens(t); len(tokens) > 0 {
		t.Errorf("tokens of the reserved account were minted: %v", tokens)
	}
	removeForeign(t)
	report.Line(t, "R3: %d ways to mint a token: each works without the guard, none with it", len(attacks))
}

// play plays a scenario, and again if the controller manager has changed or deleted the prepared Secret before the write.
func play(t *testing.T, world *scenario.World, s scenario.Scenario) (answer scenario.Answer) {
	t.Helper()
	harness.Eventually(t, s.Name+" meets the Secret that it has prepared", func() (bool, any) {
		if err := world.Play(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		var err error
		if answer, err = world.Guarded.Do(t.Context(), s.Write(world)); err != nil {
			t.Fatal(err)
		}
		return answer.Code != http.StatusNotFound && answer.Code != http.StatusConflict, answer.Code
	})
	return answer
}

// foreignTokens returns the names of Secrets, but the reserved one, with a token that authenticates as the reserved account.
func foreignTokens(t *testing.T) []string {
	t.Helper()
	secrets, err := harness.Clients(t).CoreV1().Secrets(metav1.NamespaceAll).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, secret := range secrets.Items {
		token := string(secret.Data[corev1.ServiceAccountTokenKey])
		if token != "" && secret.Name != "apigw-ingress-token-guardian" && userOf(t, token) == reservedAccount {
			names = append(names, secret.Name)
		}
	}
	return names
}

// userOf returns the user that the API server authenticates with a token; "" if it rejects the token.
func userOf(t *testing.T, token string) string {
	t.Helper()
	client, err := kubernetes.NewForConfig(harness.Of(t).Cluster.TokenConfig(token))
	if err != nil {
		t.Fatal(err)
	}
	review, err := client.AuthenticationV1().SelfSubjectReviews().
		Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return ""
	}
	return review.Status.UserInfo.Username
}

func removeForeign(t *testing.T) {
	t.Helper()
	unguarded, err := kubernetes.NewForConfig(harness.Of(t).Cluster.UnguardedConfig())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"innocent", "other-token", "another-token"} {
		_ = unguarded.CoreV1().Secrets(metav1.NamespaceSystem).Delete(t.Context(), name, metav1.DeleteOptions{}) // it may be absent
	}
}

func fillAnother(t *testing.T) {
	t.Helper()
	secrets := harness.Clients(t).CoreV1().Secrets(metav1.NamespaceSystem)
	must(t)(secrets.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "another-token", Annotations: map[string]string{corev1.ServiceAccountNameKey: "default"}},
		Type:       corev1.SecretTypeServiceAccountToken,
	}, metav1.CreateOptions{}))
	harness.Eventually(t, "another account's token is filled", func() (bool, any) {
		secret, err := secrets.Get(t.Context(), "another-token", metav1.GetOptions{})
		return err == nil && len(secret.Data[corev1.ServiceAccountTokenKey]) > 0, err
	})
}

// TestControllerManagerKeepsTheToken is row R4 of the targets, with the real controller manager behind the guard.
func TestControllerManagerKeepsTheToken(t *testing.T) {
	harness.Take(t)
	world := harness.World(t)
	harness.StartGuard(t)
	read := func() *corev1.Secret {
		secret, err := harness.Clients(t).CoreV1().Secrets(world.Token.Namespace).Get(t.Context(), world.Token.Name, metav1.GetOptions{})
		if err != nil {
			return &corev1.Secret{}
		}
		return secret
	}
	isFilled := func() (bool, any) {
		user := userOf(t, string(read().Data[corev1.ServiceAccountTokenKey]))
		return user == reservedAccount, user
	}
	pastGuard(t, world, scenario.Delete(world.Token))
	throughGuard(t, world, scenario.Create(world.Token, string(world.Token.Manifest())))
	harness.Eventually(t, "a new token is filled", isFilled)
	pastGuard(t, world, scenario.Merge(world.Token, `{"data":{"token":null}}`))
	harness.Eventually(t, "a blanked token is filled again", isFilled)
	bundle := otherBundle(t)
	if err := harness.Of(t).Cluster.StartControllerManager(t.Context(), "--root-ca-file="+bundle); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "the cluster's new CA is in the Secret", func() (bool, any) {
		got := string(read().Data[corev1.ServiceAccountRootCAKey])
		return got == string(want), got
	})
	if err := harness.Of(t).Cluster.StartControllerManager(t.Context()); err != nil {
		t.Fatal(err)
	}
	pastGuard(t, world, scenario.Delete(world.Account))
	harness.Eventually(t, "the token of an account that is gone is gone", func() (bool, any) { return read().Name == "", read().Name })
	report.Line(t, "R4: the controller manager fills, refills, renews the CA of, and clears away the reserved token")
}

func pastGuard(t *testing.T, world *scenario.World, write scenario.Write) {
	t.Helper()
	requireDone(t, world.Unguarded, write)
}

func throughGuard(t *testing.T, world *scenario.World, write scenario.Write) {
	t.Helper()
	requireDone(t, world.Guarded, write)
}

func requireDone(t *testing.T, client *scenario.Client, write scenario.Write) {
	t.Helper()
	answer, err := client.Do(t.Context(), write)
	if err != nil || answer.Code >= http.StatusBadRequest {
		t.Fatalf("%s %s: got %d %s: %v", write.Method, write.Path, answer.Code, answer.Body, err)
	}
}

// otherBundle returns a file with the cluster's CA and one more, as in the middle of a rotation.
func otherBundle(t *testing.T) string {
	t.Helper()
	ca, err := os.ReadFile(harness.Of(t).Cluster.RootCAFile())
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "next"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "bundle.crt")
	bundle := slices.Concat(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	if err := os.WriteFile(path, bundle, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const lastUsedLabel = "kubernetes.io/legacy-token-last-used"

// TestLastUseIsNotedPastAHungGuard is the other half of R4: the API server writes the day of use while it authenticates the
// token, so it must not wait for a guard that hangs.
func TestLastUseIsNotedPastAHungGuard(t *testing.T) {
	harness.Take(t)
	world := harness.World(t)
	guard := harness.StartGuard(t)
	pastGuard(t, world, scenario.Merge(world.Token, `{"metadata":{"labels":{"`+lastUsedLabel+`":null}}}`))
	hang(t, guard)
	secrets := harness.Clients(t).CoreV1().Secrets(world.Token.Namespace)
	secret, err := secrets.Get(t.Context(), world.Token.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// The API server remembers for a while that it has labelled a token; this one it has not seen yet.
	start := time.Now()
	if user := userOf(t, string(secret.Data[corev1.ServiceAccountTokenKey])); user != reservedAccount {
		t.Fatalf("the token is of %q", user)
	}
	took := time.Since(start)
	secret, err = secrets.Get(t.Context(), world.Token.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if secret.Labels[lastUsedLabel] == "" {
		t.Errorf("labels %v: the use of the token is not noted", secret.Labels)
	}
	wake(t, guard)
	if calls := countRequests(t, guard); calls != 0 {
		t.Errorf("the guard was asked %d times", calls)
	}
	report.Line(t, "R4: a call with the token, last use noted, while the guard hangs: %v", took.Round(100*time.Microsecond))
}

// hang stops the guard as a machine that is out of memory does: its port is open, and nothing answers.
func hang(t *testing.T, guard *testbed.Guard) {
	t.Helper()
	if err := guard.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = guard.Signal(syscall.SIGCONT) }) // it may have ended
}

func wake(t *testing.T, guard *testbed.Guard) {
	t.Helper()
	if err := guard.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// TestReservedWritesFailClosedPastAHungGuard: an attacker who makes the guard hang cannot write to a reserved resource.
func TestReservedWritesFailClosedPastAHungGuard(t *testing.T) {
	harness.Take(t)
	world := harness.World(t)
	guard := harness.StartGuard(t)
	hang(t, guard)
	answer, err := world.Guarded.Do(t.Context(), scenario.Merge(world.Role, `{"metadata":{"labels":{"a":"b"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if answer.Code != http.StatusInternalServerError || !strings.Contains(answer.Status().Message, `"clusterroles.apigw-guardian.io"`) {
		t.Errorf("got %d %s, want a failure that names the webhook", answer.Code, answer.Body)
	}
	requireUntouched(t, world)
	wake(t, guard)
}
