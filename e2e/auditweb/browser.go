// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package auditweb drives the review in the browser from outside: the program that serves it, and a real browser.
package auditweb

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// ErrNoBrowser says that this machine has no Chromium.
var ErrNoBrowser = errors.New("there is no chromium on this machine: install Debian's package chromium")

// Browser is one tab of a headless Chromium with an empty profile.
type Browser struct {
	tab context.Context // chromedp keeps the tab in it
	end func()
	dir string

	mu       sync.Mutex
	requests []string
	faults   []string
}

// StartBrowser starts the browser, which reaches this machine and nothing else. The caller calls Stop. The error may be
// ErrNoBrowser.
func StartBrowser(ctx context.Context) (*Browser, error) {
	path, err := exec.LookPath("chromium")
	if err != nil {
		return nil, ErrNoBrowser
	}
	dir, err := os.MkdirTemp("", "apigw-guardian-browser-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the browser: %w", err)
	}
	allocator, endAllocator := chromedp.NewExecAllocator(ctx, options(path, dir)...)
	tab, endTab := chromedp.NewContext(allocator)
	b := &Browser{tab: tab, dir: dir, end: func() { endTab(); endAllocator() }}
	if err := b.listen(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the browser: %w", err), b.Stop())
	}
	return b, nil
}

func options(path, dir string) []chromedp.ExecAllocatorOption {
	return append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.UserDataDir(filepath.Join(dir, "profile")),
		chromedp.NoSandbox,
		chromedp.DisableGPU,
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-domain-reliability", true),
		// A name that is not of this machine is not looked up.
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
	)
}

// Stop ends the browser and removes its profile.
func (b *Browser) Stop() error {
	b.end()
	if err := os.RemoveAll(b.dir); err != nil {
		return fmt.Errorf("remove the directory of the browser: %w", err)
	}
	return nil
}

// violation is what watchPolicy logs before a violation of the page's security policy.
const violation = "security policy violated: "

// listen hears of requests and faults from now on. Each page logs what its security policy has stopped, from its first
// script on.
func (b *Browser) listen() error {
	if err := chromedp.Listen(b.tab, b.hear); err != nil {
		return err
	}
	script := `document.addEventListener("securitypolicyviolation",
		(event) => console.error(` + "`" + violation + "${event.violatedDirective} ${event.blockedURI} ${event.sample}`" + `));`
	_, networkErr := chromedp.Call(b.tab, network.Enable, network.EnableParams{})
	_, runtimeErr := chromedp.Call(b.tab, runtime.Enable, cdp.Empty{})
	return errors.Join(b.Prepare(script), networkErr, runtimeErr)
}

// Prepare makes each page run a script before its own, from the next one on.
func (b *Browser) Prepare(script string) error {
	_, err := chromedp.Call(b.tab, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: script})
	return err
}

func (b *Browser) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch event := event.(type) {
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, event.Request.URL)
	case *runtime.EventExceptionThrown:
		fault := event.ExceptionDetails.Text
		if thrown := event.ExceptionDetails.Exception; thrown != nil {
			fault += ": " + thrown.Description
		}
		b.faults = append(b.faults, fault)
	case *runtime.EventConsoleAPICalled:
		if event.Type == runtime.ConsoleAPICalledTypeError {
			b.faults = append(b.faults, fmt.Sprintf("console: %s", event.Args[0].Value))
		}
	}
}

// Do runs actions in the tab, one after the other.
func (b *Browser) Do(actions ...chromedp.Action[chromedp.Void]) error {
	return chromedp.Do(b.tab, actions...)
}

// Appearance is how a page is to be shown.
type Appearance struct {
	Width, Height int64
	// Scheme is light or dark.
	Scheme string
}

// Show sets how pages look from now on.
func (b *Browser) Show(as Appearance) error {
	scheme := &emulation.MediaFeature{Name: "prefers-color-scheme", Value: as.Scheme}
	_, err := chromedp.Call(b.tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{scheme}})
	return errors.Join(err, b.Do(chromedp.EmulateViewport(as.Width, as.Height)))
}

// waitInterval is how often Wait looks.
const waitInterval = 20 * time.Millisecond

// Wait returns when a JavaScript expression is true in the page, or what it was at the end of the browser's context.
func (b *Browser) Wait(ctx context.Context, expression string) error {
	for {
		isTrue, err := chromedp.Run(b.tab, chromedp.Evaluate[bool]("Boolean("+expression+")"))
		if err == nil && isTrue {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w (%v)", expression, context.Cause(ctx), err)
		case <-time.After(waitInterval):
		}
	}
}

// Text returns a text that a JavaScript expression yields.
func (b *Browser) Text(expression string) (string, error) {
	text, err := chromedp.Run(b.tab, chromedp.Evaluate[string]("String("+expression+")"))
	if err != nil {
		return "", fmt.Errorf("read %s in the page: %w", expression, err)
	}
	return text, nil
}

// Faults returns what the page's scripts have thrown or logged as an error, violations of its security policy included.
func (b *Browser) Faults() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.faults
}

// Strangers returns the requests to any other origin than this one, such as "127.0.0.1:8087".
func (b *Browser) Strangers(origin string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var strangers []string
	for _, request := range b.requests {
		// The browser's own icons, such as that of a calendar, are data.
		if to, err := url.Parse(request); err != nil || to.Host != origin && to.Scheme != "data" {
			strangers = append(strangers, request)
		}
	}
	return strangers
}

// Screenshot writes what the browser shows as a PNG file.
func (b *Browser) Screenshot(path string) error {
	picture, err := chromedp.Run(b.tab, chromedp.CaptureScreenshot())
	if err != nil {
		return fmt.Errorf("take a screenshot: %w", err)
	}
	if err := os.WriteFile(path, picture, 0o600); err != nil {
		return fmt.Errorf("keep the screenshot: %w", err)
	}
	return nil
}
