// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Command bench measures the page of audit web in a real browser, and prints tables for docs/benchmarks.md: P10.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/apigw-guardian/apigw-guardian/e2e/auditweb"
	"github.com/apigw-guardian/apigw-guardian/e2e/program"
	"github.com/apigw-guardian/apigw-guardian/e2e/records"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

// paintWatch is run in the page before its own scripts. It notes when a frame with the first record in it was done, in
// milliseconds since the page was asked for: the task after a frame's callbacks runs after its painting.
const paintWatch = `new MutationObserver((_, observer) => {
	if (document.querySelector("#rows tr")) {
		observer.disconnect();
		requestAnimationFrame(() => setTimeout(() => { window.recordsPainted = performance.now(); }));
	}
}).observe(document, { childList: true, subtree: true });`

// opening is one opening of the review: how long until audit web has read the records and prints its address, and then when
// the page and its records are painted, both since the page was asked for.
type opening struct{ ready, first, records time.Duration }

// rounds is how often the page is opened, over manyRecords: as many as the guard keeps.
const (
	rounds      = 7
	manyRecords = 10_000
)

func main() { program.Main("bench", run) }

// run starts a cluster and fills it with records. Each round is a new audit web, and a new browser with an empty cache.
func run(ctx context.Context) (err error) {
	if parts := os.Getenv("BENCH_PARTS"); parts != "" && !slices.Contains(strings.Fields(parts), "P10") {
		return nil
	}
	guardian, err := program.Guardian()
	if err != nil {
		return err
	}
	cluster, err := testbed.Start(ctx, program.Config())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Stop()) }()
	if err := cluster.InstallCRDs(ctx); err != nil {
		return err
	}
	if err := records.Fill(ctx, cluster.AdminConfig(), manyRecords); err != nil {
		return err
	}
	return measure(ctx, cluster, guardian)
}

func measure(ctx context.Context, cluster *testbed.Cluster, guardian string) error {
	var ready, first, records []time.Duration
	for range rounds {
		took, err := openOnce(ctx, cluster, guardian)
		if err != nil {
			return err
		}
		ready, first, records = append(ready, took.ready), append(first, took.first), append(records, took.records)
	}
	fmt.Printf("\n| P10 the page over %d records | median | longest |\n|---|---|---|\n", manyRecords)
	fmt.Printf("| first contentful paint | %s | %s |\n", milliseconds(median(first)), milliseconds(slices.Max(first)))
	fmt.Printf("| timeline and records painted | %s | %s |\n", milliseconds(median(records)), milliseconds(slices.Max(records)))
	fmt.Printf("| before: `audit web` prints its address | %s | %s |\n", milliseconds(median(ready)), milliseconds(slices.Max(ready)))
	return nil
}

func openOnce(ctx context.Context, cluster *testbed.Cluster, guardian string) (took opening, err error) {
	browser, err := auditweb.StartBrowser(ctx)
	if err != nil {
		return opening{}, err
	}
	defer func() { err = errors.Join(err, browser.Stop()) }()
	start := time.Now()
	review, err := auditweb.StartReview(ctx, cluster, guardian)
	if err != nil {
		return opening{}, err
	}
	took.ready = time.Since(start)
	defer func() { err = errors.Join(err, review.Stop()) }()
	if err := errors.Join(browser.Prepare(paintWatch), browser.Do(chromedp.Navigate(review.Address.String()))); err != nil {
		return opening{}, err
	}
	const firstPaint = `performance.getEntriesByName("first-contentful-paint")[0]?.startTime`
	if err := browser.Wait(ctx, "window.recordsPainted && "+firstPaint); err != nil {
		return opening{}, err
	}
	var errFirst, errRecords error
	took.first, errFirst = duration(browser, firstPaint)
	took.records, errRecords = duration(browser, "window.recordsPainted")
	return took, errors.Join(errFirst, errRecords)
}

// duration reads milliseconds from the page.
func duration(browser *auditweb.Browser, expression string) (time.Duration, error) {
	text, err := browser.Text(expression)
	if err != nil {
		return 0, err
	}
	milliseconds, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s in the page: %w", expression, err)
	}
	return time.Duration(milliseconds * float64(time.Millisecond)), nil
}

func median(of []time.Duration) time.Duration {
	slices.Sort(of)
	return of[len(of)/2]
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}
