#!/bin/sh
# Link the V8 and Ada headers out of the module cache to the two ignored folders that cgo.go
# names. cgo cannot name another module's folder by itself, and a copy would drift from the
# archive it describes. Safe to run at any time; it changes nothing that is already right.
set -eu
cd "$(dirname "$0")"

link() { # link NAME MODULE SUBFOLDER
	dir=$(go list -m -f '{{.Dir}}' "$2")
	if [ -z "$dir" ]; then
		go mod download "$2"
		dir=$(go list -m -f '{{.Dir}}' "$2")
	fi
	if [ ! -d "$dir$3" ]; then
		echo "link-headers.sh: $2 has no folder $dir$3: run 'go mod download' and try again" >&2
		exit 1
	fi
	[ "$(readlink "$1" 2>/dev/null || true)" = "$dir$3" ] || ln -sfn "$dir$3" "$1"
}

link v8include github.com/tommie/v8go /deps/include
link adainclude github.com/ada-url/goada ""
