# SPDX-FileCopyrightText: The apigw-guardian Authors
# SPDX-License-Identifier: Apache-2.0
#
# The image holds one static binary and nothing else: no shell, no package manager, no user but a number.
#
#   docker build --build-arg VERSION=v1.0.0 --build-arg COMMIT=$(git rev-parse HEAD) .
#
# With a binary that is built already, and without any network (make build first):
#
#   buildah build --target prebuilt .
#
# Two builds of one commit make one digest if the time of the files is given, too: --timestamp of buildah, SOURCE_DATE_EPOCH
# and rewrite-timestamp of docker. Whoever wants a base with certificates and time zones, such as a distroless one, names it
# by its digest: --build-arg BASE=NAME@sha256:...

# The toolchain of go.mod; a test compares them.
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
