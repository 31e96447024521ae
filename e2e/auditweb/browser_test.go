// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package auditweb

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/records"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// many is how many records there are in `make e2e`: as many as the guard keeps. `make test` takes fewer.
var many = harness.Full(10_000, 2_000)

// pageSize is how many records the page shows at a time.
const pageSize = 50

// number writes a number below a million as the page does.
func number(n int) string { return fmt.Sprintf("%d,%03d", n/1000, n%1000) }

// A screen is a browser that looks at a review.
type screen struct {
	*Browser
	t       *testing.T
	address string
	origin  string
}

// look opens audit web in a new browser. When the test ends, the browser must have seen no fault and called no other server.
func look(t *testing.T, review *Review) *screen {
	t.Helper()
	browser, err := StartBrowser(context.WithoutCancel(t.Context()))
	if errors.Is(err, ErrNoBrowser) && os.Getenv("E2E_SKIP_BROWSER") == "1" {
		t.Skipf("E2E_SKIP_BROWSER=1: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := &screen{Browser: browser, t: t, address: review.Address.String(), origin: review.Address.Host}
	t.Cleanup(func() {
		for _, fault := range browser.Faults() {
			t.Errorf("the page: %s", fault)
		}
		for _, stranger := range browser.Strangers(s.origin) {
			t.Errorf("the page asked %s", stranger)
		}
		if t.Failed() {
			s.keep("failed")
		}
		if err := browser.Stop(); err != nil {
			t.Error(err)
		}
	})
	s.appear("light", 1440, 900)
	s.open("")
	return s
}

func (s *screen) do(actions ...chromedp.Action[chromedp.Void]) {
	s.t.Helper()
	if err := s.Do(actions...); err != nil {
		s.t.Fatal(err)
	}
}

// sees wants an expression to become true.
func (s *screen) sees(expression string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	if err := s.Wait(ctx, expression); err != nil {
		body, _ := s.Text("document.body.innerText")
		s.t.Fatalf("%v\n%s", err, body)
	}
}

func (s *screen) text(expression string) string {
	s.t.Helper()
	text, err := s.Text(expression)
	if err != nil {
		s.t.Fatal(err)
	}
	return text
}

func (s *screen) open(query string) {
	s.t.Helper()
	s.do(chromedp.Navigate(s.address + query))
	s.sees(`document.querySelector("#rows tr, #empty:not([hidden])")`)
	// Chromium drops the input of a document that it has not painted yet.
	s.sees(`performance.getEntriesByName("first-contentful-paint").length > 0`)
}

// press presses keys as a keyboard does: the key-down event carries the letter, so that a page that cancels the one cancels the other.
// chromedp.KeyEvent sends the letter in any case, with Enter to the button that has the focus by then.
func (s *screen) press(keys ...string) {
	s.t.Helper()
	for _, key := range strings.Join(keys, "") {
		var letter input.DispatchKeyEventParams
		events := kb.Encode(key)
		if len(events) == 3 {
			letter = *events[1]
		}
		down, up := *events[0], *events[len(events)-1]
		down.Text, down.UnmodifiedText = letter.Text, letter.UnmodifiedText
		for _, event := range []input.DispatchKeyEventParams{down, up} {
			s.do(func(ctx context.Context, tab *chromedp.Target) (chromedp.Void, error) {
				_, err := cdp.Call(ctx, tab, input.DispatchKeyEvent, event)
				return chromedp.Void{}, err
			})
		}
	}
}

func (s *screen) click(selector string) {
	s.t.Helper()
	s.do(chromedp.Click(chromedp.CSS(selector)))
}

func (s *screen) appear(scheme string, width, height int64) {
	s.t.Helper()
	if err := s.Show(Appearance{Width: width, Height: height, Scheme: scheme}); err != nil {
		s.t.Fatal(err)
	}
}

// keep keeps a screenshot in the directory that E2E_ARTIFACTS names, or in that of `go test -artifacts`.
func (s *screen) keep(name string) {
	s.t.Helper()
	dir := os.Getenv("E2E_ARTIFACTS")
	if dir == "" {
		dir = s.t.ArtifactDir()
	}
	path := filepath.Join(dir, "auditweb-"+name+".png")
	if err := errors.Join(os.MkdirAll(dir, 0o700), s.Screenshot(path)); err != nil {
		s.t.Error(err)
	}
	s.t.Logf("screenshot: %s", path)
}

// The steps of one person over many records, in one tab.
func TestReviewOfManyRecords(t *testing.T) {
	harness.Take(t)
	if err := records.Store(t.Context(), harness.Of(t).Cluster.AdminConfig(), records.Lifelike(many, time.Now())...); err != nil {
		t.Fatal(err)
	}
	s := look(t, startReview(t))
	for _, step := range []struct {
		name string
		play func(*screen)
	}{
		{"the newest records are there, and how many there are", seesAll},
		{"a filter is typed, without a mouse", typesFilter},
		{"the address keeps the filter, and the browser's back leaves it", goesBack},
		{"a user is picked from the ranking, and let go", picksUser},
		{"an outcome is selected, and a text that no record contains", picksOutcome},
		{"pages are turned", turnsPages},
		{"a span of time is dragged, and one picked by keys", zooms},
		{"a record is opened, left and followed by keys alone", opensRecord},
		{"a denial by the real guard arrives", seesDenialArrive},
		{"foreign texts stay texts", seesHostileTexts},
		{"the writes under an unlock are found from one of them", findsUnlock},
		{"every text can be read, and nothing is cut off, light and dark, wide and narrow", looksGood},
	} {
		if !t.Run(step.name, func(t *testing.T) {
			s := *s
			s.t = t
			step.play(&s)
		}) {
			return
		}
	}
}

const (
	rowCount = `document.querySelectorAll("#rows tr").length`
	matched  = `document.getElementById("matched").textContent`
	focused  = `document.activeElement`
)

// isUnfiltered is true while the page counts all records.
func isUnfiltered() string { return matched + fmt.Sprintf(`.includes(%q)`, number(many)) }

func pageIs(n int) string {
	return fmt.Sprintf(`document.getElementById("page").textContent === "Page %d of %d"`, n, many/pageSize)
}

func seesAll(s *screen) {
	s.sees(rowCount + " === 50")
	s.sees(matched + fmt.Sprintf(`.endsWith("in %s records")`, number(many)))
	s.sees(pageIs(1))
	s.sees(`document.getElementById("connection").textContent === "Live"`)
	s.sees(`document.title.includes("testbed") && document.getElementById("loading").hidden`)
	s.sees(`document.getElementById("guard").textContent === "Guard down"`) // none was started
	s.sees(`/^Last seen \((GMT|UTC).*\)$/.test(document.getElementById("zone").textContent)`)
	s.keep("light")
}

func typesFilter(s *screen) {
	s.press("/")
	s.sees(focused + `.name === "text"`)
	s.press("alice")
	s.sees(rowCount + ` === 50 && [...document.querySelectorAll("#rows td.user")].every((cell) => cell.textContent === "alice@example.com")`)
	s.sees(`!` + isUnfiltered())
}

func goesBack(s *screen) {
	s.sees(`new URLSearchParams(location.search).get("text") === "alice"`)
	s.do(chromedp.Reload())
	s.sees(`document.querySelector("[name=text]").value === "alice" && !` + isUnfiltered() + ` && ` + rowCount + ` > 0`)
	s.click("#clear")
	s.sees(isUnfiltered())
	s.do(chromedp.NavigateBack())
	s.sees(`document.querySelector("[name=text]").value === "alice" && !` + isUnfiltered())
	s.open("")
}

func picksUser(s *screen) {
	first := `document.querySelector("#users button")`
	name := s.text(first + ".dataset.name")
	s.click("#users li:first-child button")
	s.sees(first + `.getAttribute("aria-pressed") === "true"`)
	s.sees(fmt.Sprintf(`%s > 0 && [...document.querySelectorAll("#rows td.user")].every((cell) => cell.title === %q)`, rowCount, name))
	s.click("#users li:first-child button")
	s.sees(isUnfiltered())
}

func picksOutcome(s *screen) {
	s.click(`[data-outcome="Unguarded"].outcome`)
	s.sees(rowCount + ` > 0 && [...document.querySelectorAll("#rows td.what")].every((cell) => cell.textContent === "Unguarded")`)
	s.press("/")
	s.press("no such text")
	s.sees(`document.querySelector("#empty h3")?.textContent === "No record fits this filter"`)
	s.click("#empty button")
	s.sees(isUnfiltered())
}

func turnsPages(s *screen) {
	first := s.text(`document.querySelector("#rows tr").dataset.id`)
	s.click(`[data-go="next"]`)
	s.sees(pageIs(2))
	s.sees(fmt.Sprintf(`document.getElementById("shown").textContent === "51 to 100 of %s"`, number(many)))
	s.sees(fmt.Sprintf(`document.querySelector("#rows tr").dataset.id !== %q`, first))
	s.click(`[data-go="last"]`)
	s.sees(pageIs(many/pageSize) + ` && document.querySelector("[data-go=next]").disabled`)
	s.click(`[data-go="first"]`)
	s.sees(fmt.Sprintf(`document.querySelector("#rows tr").dataset.id === %q`, first))
}

func zooms(s *screen) {
	plot, err := chromedp.Run(s.tab, chromedp.Evaluate[struct{ X, Y, Width, Height float64 }](
		`(scrollTo(0, 0), document.querySelector(".plot").getBoundingClientRect().toJSON())`))
	if err != nil {
		s.t.Fatal(err)
	}
	height := plot.Y + plot.Height/2
	s.do(chromedp.DragAndDropXY(plot.X+plot.Width*0.4, height, plot.X+plot.Width*0.6, height))
	s.sees(`new URLSearchParams(location.search).get("since") !== null && document.querySelector("[name=since]").value !== ""`)
	s.sees(`!` + isUnfiltered())
	before := s.text(matched)
	s.do(chromedp.Evaluate[chromedp.Void](`document.querySelector(".plot").focus()`))
	s.press(kb.Home, kb.ArrowRight)
	s.do(chromedp.KeyEvent(kb.ArrowRight, chromedp.KeyModifiers(chromedp.ModifierShift)))
	s.sees(`document.querySelector(".plot").getAttribute("aria-valuetext").includes(": ")`)
	s.press(kb.Enter)
	s.sees(fmt.Sprintf(`%s !== %q`, matched, before))
	s.click(`[data-range=""]`)
	s.sees(isUnfiltered())
}

func opensRecord(s *screen) {
	s.open("")
	s.sees(focused + ` === document.body`) // the keys work before anything has the focus
	s.press(kb.ArrowDown, kb.ArrowDown, kb.ArrowDown, kb.ArrowUp)
	second := s.text(`document.querySelector("#rows tr:nth-child(2)").dataset.id`)
	s.sees(fmt.Sprintf(`%s.closest("tr").dataset.id === %q`, focused, second))
	s.press(kb.Enter)
	s.sees(fmt.Sprintf(`document.querySelector("dialog[open] .panel")?.innerText.includes(%q)`, second))
	s.sees(`["What to do", "Who", "What", "When", "Where from"].every((title) => document.querySelector("dialog").innerText.includes(title))`)
	s.sees(`new URLSearchParams(location.search).get("record") !== null`)
	s.keep("details")
	s.press(kb.ArrowRight)
	third := s.text(`document.querySelector("#rows tr:nth-child(3)").dataset.id`)
	s.sees(fmt.Sprintf(`document.querySelector("dialog[open] .panel")?.innerText.includes(%q)`, third))
	s.press(kb.Escape)
	s.sees(fmt.Sprintf(`!document.querySelector("dialog[open]") && %s.closest("tr")?.dataset.id === %q`, focused, third))
	s.sees(`new URLSearchParams(location.search).get("record") === null`)
	s.press(kb.PageDown)
	s.sees(pageIs(2))
	s.open("")
	s.press(kb.Enter)
	s.sees(fmt.Sprintf(`document.querySelector("dialog[open] .panel")?.innerText.includes(%s)`, `document.querySelector("#rows tr").dataset.id`))
	s.sees(`document.querySelector("dialog .advice code").textContent.startsWith("apigw-guardian ") && document.querySelector("dialog .advice button").textContent === "Copy"`)
	s.sees(`/\b20\d\d\b.*(UTC|GMT)/.test(document.querySelector("dialog time").textContent)`)
	s.press(kb.Escape)
}

// The page was loaded once: what it holds stays.
func seesDenialArrive(s *screen) {
	s.open("")
	s.do(chromedp.Evaluate[chromedp.Void](`window.loadedOnce = true`))
	harness.Run(s.t, "authorize").Require(s.t, 0)
	harness.StartGuard(s.t, fmt.Sprintf("--audit-max-records=%d", 2*many))
	mallory, err := kubernetes.NewForConfig(harness.Of(s.t).Cluster.ConfigFor("mallory@example.com", "system:masters"))
	if err != nil {
		s.t.Fatal(err)
	}
	remove := func(options metav1.DeleteOptions) error {
		return mallory.RbacV1().ClusterRoles().Delete(s.t.Context(), "apigw-ingress-clusterrole", options)
	}
	harness.Eventually(s.t, "the API server asks the guard", func() (bool, any) {
		err := remove(metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}})
		return apierrors.IsForbidden(err), err
	})
	s.sees(`document.getElementById("guard").textContent === "Guard up"`) // the page refreshes for it, and marks a row until the next refresh
	err = remove(metav1.DeleteOptions{})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "is reserved by API Gateway") {
		s.t.Fatalf("the guard did not deny it: %v", err)
	}
	s.sees(`document.querySelector("#rows tr.fresh td.user")?.textContent === "mallory@example.com"`)
	s.sees(`document.getElementById("announcement").textContent.includes("mallory@example.com, DELETE")`)
	s.sees(matched + fmt.Sprintf(`.includes(%q)`, number(many+1)))
	s.sees(`window.loadedOnce`)
	s.keep("arrival")
}

// The user's name is shown in the table, in the ranking and among the details.
func seesHostileTexts(s *screen) {
	const name = `<img src=x onerror="throw 1"><script>throw 2</script>{{7*7}}`
	fact := audit.Event{
		Time: time.Now(), Outcome: v1alpha1.Denied, Operation: "DELETE", Object: v1alpha1.ParseObjectReference("secrets/kube-system/b"), Reason: "ReservedDelete", Message: name,
		User: v1alpha1.User{Name: name, Groups: []string{name}}, Changed: []string{name}, Source: v1alpha1.SourceGuard,
	}
	if err := records.Store(s.t.Context(), harness.Of(s.t).Cluster.AdminConfig(), records.Of(&fact, 1)); err != nil {
		s.t.Fatal(err)
	}
	s.open("?text=onerror")
	s.sees(fmt.Sprintf(`document.querySelector("#rows td.user").textContent === %q`, name))
	s.sees(fmt.Sprintf(`document.querySelector("#users .name").textContent === %q`, name))
	s.click("#rows tr:first-child")
	s.sees(fmt.Sprintf(`document.querySelector("dialog[open] h2")?.textContent === %q`, name))
	s.sees(`document.querySelectorAll("body img, body script").length === 1`) // the mark of the page
	s.press(kb.Escape)
	s.sees(`!document.querySelector("dialog[open]")`)
}

func findsUnlock(s *screen) {
	for _, user := range []string{"carol", "dave"} {
		fact := audit.Event{
			Time: time.Now(), Outcome: v1alpha1.Unlocked, Operation: "UPDATE", Object: v1alpha1.ParseObjectReference("clusterroles/a"), Reason: "Unlocked",
			User: v1alpha1.User{Name: user}, Unlock: "unlock-x7k2p", Justification: "the change of " + user, Source: v1alpha1.SourceGuard,
		}
		if err := records.Store(s.t.Context(), harness.Of(s.t).Cluster.AdminConfig(), records.Of(&fact, 1)); err != nil {
			s.t.Fatal(err)
		}
	}
	s.open("?text=the+change+of+carol")
	s.sees(rowCount + ` === 1`)
	s.click("#rows tr:first-child")
	s.sees(`["unlock-x7k2p", "the change of carol"].every((text) => document.querySelector("dialog[open] .panel")?.innerText.includes(text))`)
	s.keep("unlock")
	s.click(`dialog [data-filter="text"]`)
	s.sees(`!document.querySelector("dialog[open]") && ` + rowCount + ` === 2`)
	s.sees(`document.querySelector("[name=text]").value === "unlock-x7k2p"`)
}

//go:embed testdata/contrast.js
var contrast string

// tooNarrow names the column of users, resources or a title that has no room for its text.
const tooNarrow = `[...document.querySelectorAll("#rows td.user, #rows td.resource")].filter((cell) => cell.clientWidth < 100)
	.concat([...document.querySelectorAll("#cluster")].filter((name) => name.scrollWidth > name.clientWidth))
	.concat([...document.querySelectorAll("th")].filter((cell) => cell.offsetParent && cell.clientWidth > 1 && cell.scrollWidth > cell.clientWidth))
	.map((cell) => cell.className + " " + cell.textContent + " " + cell.clientWidth).slice(0, 5).join(", ")`

func looksGood(s *screen) {
	for _, scheme := range []string{"light", "dark"} {
		for name, width := range map[string]int64{"wide": 1440, "laptop": 1280, "medium": 1000, "tablet": 800, "narrow": 390} {
			s.appear(scheme, width, 900)
			s.open("")
			s.sees(`matchMedia("(prefers-color-scheme: ` + scheme + `)").matches`)
			if faint := s.text(contrast); faint != "" {
				s.t.Errorf("%s %s: too faint:\n%s", scheme, name, faint)
			}
			if overflow := s.text(`document.documentElement.scrollWidth - innerWidth`); overflow != "0" {
				s.t.Errorf("%s %s: the page is %s px wider than the screen", scheme, name, overflow)
			}
			if short := s.text(tooNarrow); short != "" {
				s.t.Errorf("%s %s: too narrow: %s", scheme, name, short)
			}
			s.keep(scheme + "-" + name)
			s.click("#rows tr:first-child")
			s.sees(`document.querySelector("dialog[open] .advice")`)
			if faint := s.text(contrast); faint != "" {
				s.t.Errorf("%s %s, a record: too faint:\n%s", scheme, name, faint)
			}
			s.press(kb.Escape)
		}
	}
}

func TestLossesAreSaidPlainly(t *testing.T) {
	harness.Take(t)
	review := startReview(t)
	s := look(t, review)
	harness.Of(t).Cluster.StopAPIServer()
	s.sees(`document.getElementById("problem").textContent.startsWith("The cluster cannot be read")`)
	s.sees(`document.getElementById("connection").textContent === "Connection lost"`)
	s.keep("cluster-lost")
	if err := harness.Of(t).Cluster.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.sees(`document.getElementById("problem").hidden && document.getElementById("connection").textContent === "Live"`)
	// The page's stream is open: Ctrl-C must end the program all the same.
	if err := review.Stop(); err != nil {
		t.Error(err)
	}
	s.sees(`document.getElementById("problem").textContent.includes("audit web does not answer")`)
	s.sees(`document.getElementById("connection").textContent === "Connection lost"`)
	s.sees(`document.getElementById("guard").hidden`)
	s.keep("review-lost")
}

// The same cluster twice, one that is away, and one that this user may not read.
func TestReviewOfSeveralClusters(t *testing.T) {
	harness.Take(t)
	fact := audit.Event{
		Time: time.Now(), Outcome: v1alpha1.Denied, Operation: "DELETE", Object: v1alpha1.ParseObjectReference("secrets/kube-system/b"), Reason: "ReservedDelete",
		User: v1alpha1.User{Name: "fleet-user"}, Source: v1alpha1.SourceGuard,
	}
	if err := records.Store(t.Context(), harness.Of(t).Cluster.AdminConfig(), records.Of(&fact, 1)); err != nil {
		t.Fatal(err)
	}
	const arn = "arn:aws:eks:eu-central-1:123456789012:cluster/payments-production"
	config, err := clientcmd.LoadFromFile(harness.Of(t).Cluster.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	admin := config.Contexts[config.CurrentContext]
	config.Clusters["away"] = &api.Cluster{Server: "https://127.0.0.1:1"}
	nobody := *config.AuthInfos[admin.AuthInfo]
	nobody.Impersonate = "nobody"
	config.AuthInfos["nobody"] = &nobody
	config.Contexts = map[string]*api.Context{
		arn: admin, "b": admin, "away": {Cluster: "away"}, "forbidden": {Cluster: admin.Cluster, AuthInfo: "nobody"},
	}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, kubeconfig); err != nil {
		t.Fatal(err)
	}
	s := look(t, startReview(t, "--all-contexts", "--context-timeout=1m", "--kubeconfig="+kubeconfig))
	s.open("?user=fleet-user")
	s.sees(rowCount + ` === 2 && document.querySelectorAll("#clusters li").length === 4`)
	s.sees(`[...document.querySelectorAll("#clusters button[data-state=lost]")].map((button) => button.dataset.context).join() === "away,forbidden"`)
	s.sees(`[...document.querySelectorAll("#rows .cluster")].map((cluster) => cluster.textContent).sort().join() === "` + arn + `,b"`)
	s.do(chromedp.Evaluate[chromedp.Void](`document.querySelector("#clusters button[data-context^=arn]").focus()`))
	s.press(kb.Enter)
	s.sees(rowCount + ` === 1 && document.activeElement.getAttribute("aria-pressed") === "true"`)
	s.click("#rows tr:first-child")
	s.sees(`[...document.querySelectorAll("dialog[open] code")].some((code) => code.textContent.endsWith("--by-user fleet-user --context ` + arn + `"))`)
	s.press(kb.Escape)
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int64{1280, 800, 390} {
			s.appear(scheme, width, 900)
			s.open("?user=fleet-user")
			if overflow := s.text(`document.documentElement.scrollWidth - innerWidth`); overflow != "0" {
				t.Errorf("%s %d: the page is %s px wider than the screen", scheme, width, overflow)
			}
			if bad := s.text(contrast) + s.text(tooNarrow); bad != "" {
				t.Errorf("%s %d: too faint or too narrow: %s", scheme, width, bad)
			}
			s.keep(fmt.Sprintf("fleet-%s-%d", scheme, width))
		}
	}
}
