#!/bin/sh
# Regenerates schema/gen from the schema files with the compiler plugin pinned in go.mod.
set -eu
cd "$(dirname "$0")"
go=${GO:-go}
std=$("$go" list -m -f '{{.Dir}}' capnproto.org/go/capnp/v3)/std
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
"$go" build -o "$tools/capnpc-go" capnproto.org/go/capnp/v3/capnpc-go
rm -f gen/*.capnp.go
PATH="$tools:$PATH" capnp compile -I "$std" -ogo:gen ./*.capnp
