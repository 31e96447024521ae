# SPDX-FileCopyrightText: The apigw-guardian Authors
# SPDX-License-Identifier: Apache-2.0
#
# The image contains one static binary: no shell, no package manager, and a numeric user.
#
#   docker build --build-arg VERSION=v1.0.0 --build-arg COMMIT=$(git rev-parse HEAD) .
#
# To build without a network from bin/apigw-guardian (run make build first):
#
#   buildah build --target prebuilt .
#
# For a reproducible digest, also set the time of the files: --timestamp for buildah, SOURCE_DATE_EPOCH and rewrite-timestamp for
# docker. For a base image with certificates and time zones, such as distroless, name it by digest:
# --build-arg BASE=NAME@sha256:...

# Must be the toolchain of go.mod: a test in floors/ compares them.
ARG GO_VERSION=1.26.10
ARG BASE=scratch

FROM golang:${GO_VERSION} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
ARG COMMIT=unknown
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false \
    -ldflags "-s -w -X main.version=${VERSION} -X main.commit=${COMMIT}" -o /apigw-guardian ./cmd/apigw-guardian

FROM ${BASE} AS image
ARG VERSION=dev
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="apigw-guardian" \
      org.opencontainers.image.description="Authorizes API Gateway on a Kubernetes cluster, and guards what it reserves there" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/apigw-guardian/apigw-guardian" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}"
USER 65532:65532
ENTRYPOINT ["/apigw-guardian"]

FROM image AS prebuilt
COPY bin/apigw-guardian /apigw-guardian

FROM image
COPY --from=build /apigw-guardian /apigw-guardian
