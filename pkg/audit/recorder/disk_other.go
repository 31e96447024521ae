// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package recorder

import "os"

func datasync(file *os.File) error { return file.Sync() }

// lock does nothing: the guard runs on Linux.
func lock(*os.File) error { return nil }
