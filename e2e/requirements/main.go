// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command requirements prints what this machine lacks to run the node of `make e2e`, a sentence to a line. It prints nothing
// where a node can be expected to run.
package main

import (
	"fmt"

	"github.com/apigw-guardian/apigw-guardian/e2e/node"
)

func main() {
	for _, sentence := range node.Requirements() {
		fmt.Println(sentence)
	}
}
