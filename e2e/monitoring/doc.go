// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package monitoring tests the chart's alerts and dashboard with Prometheus' own parser, promtool, and a live scrape by
// Prometheus. It contains no other code.
//
// It is a separate module: Prometheus and its dependencies must not enter the product's go.mod. The module also pins both programs.
package monitoring
