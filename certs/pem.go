// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
)

// The types of PEM blocks that hold a key, as openssl writes them.
const (
	blockPKCS8     = "PRIVATE KEY"
	blockPKCS1     = "RSA PRIVATE KEY"
	blockSEC1      = "EC PRIVATE KEY"
	blockEncrypted = "ENCRYPTED PRIVATE KEY"

	blockCertificate = "CERTIFICATE"
)

var (
	pemBegin      = []byte("-----BEGIN ")
	byteOrderMark = []byte("\xef\xbb\xbf")
)

// decodeBlocks returns the PEM blocks of a file. Text around them does not count. The reason, "" for none, never quotes the input.
func decodeBlocks(data []byte) (blocks []*pem.Block, reason string) {
	rest := bytes.ReplaceAll(data, byteOrderMark, nil) // of editors on Windows
	for {
		before := bytes.Count(rest, pemBegin)
		block, after := pem.Decode(rest)
		// pem.Decode skips what it cannot decode.
		if block == nil && before > 0 || block != nil && before-bytes.Count(after, pemBegin) > 1 {
			return nil, fmt.Sprintf("block %d is not valid PEM", len(blocks)+1)
		}
		if block == nil {
			break
		}
		blocks, rest = append(blocks, block), after
	}
	if len(blocks) == 0 {
		return nil, "it has no PEM block"
	}
	return blocks, ""
}

// parseCertificates returns the certificates of a file, one at least, and ignores other blocks.
func parseCertificates(data []byte) (certificates []*x509.Certificate, reason string) {
	blocks, reason := decodeBlocks(data)
	if reason != "" {
		return nil, reason
	}
	for i, block := range blocks {
		if block.Type != blockCertificate {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Sprintf("block %d (%s) cannot be parsed", i+1, block.Type)
		}
		certificates = append(certificates, certificate)
	}
	if len(certificates) == 0 {
		return nil, "it has no block " + blockCertificate + ", only " + typesOf(blocks)
	}
	return certificates, ""
}

// parseKey returns the first private key of a file, and ignores other blocks, such as the EC PARAMETERS of openssl.
func parseKey(data []byte) (key crypto.Signer, reason string) {
	blocks, reason := decodeBlocks(data)
	if reason != "" {
		return nil, reason
	}
	for i, block := range blocks {
		var parsed any
		var err error
		switch block.Type {
		case blockPKCS8:
			parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case blockPKCS1:
			parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case blockSEC1:
			parsed, err = x509.ParseECPrivateKey(block.Bytes)
		case blockEncrypted:
		default:
			continue
		}
		at := fmt.Sprintf("block %d (%s)", i+1, block.Type)
		if block.Type == blockEncrypted || block.Headers["DEK-Info"] != "" {
			return nil, at + " is encrypted: decrypt it with openssl pkey"
		}
		if err != nil {
			return nil, at + " cannot be parsed: use an RSA key, an ECDSA key with a named curve, or an Ed25519 key"
		}
		signer, ok := parsed.(crypto.Signer)
		if !ok {
			return nil, at + " is a key that cannot sign"
		}
		return signer, ""
	}
	return nil, "it has no private key, only " + typesOf(blocks)
}

// typesOf names the blocks. A type is no key material, but it is text of the file.
func typesOf(blocks []*pem.Block) string {
	const maxTypes, maxType = 4, 32
	var types []string
	for _, block := range blocks[:min(len(blocks), maxTypes)] {
		types = append(types, fmt.Sprintf("%.*s", maxType, block.Type))
	}
	return strings.Join(types, ", ")
}
