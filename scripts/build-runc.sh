#!/usr/bin/env bash
# Builds runc, the container runtime of hosted nodes, as a static program from
# the version that go.mod pins. It is the one program that needs cgo, for
# libseccomp; without a C compiler it is left out, with a line that says so.
set -euo pipefail

out=$1
if ! command -v gcc >/dev/null || ! compgen -G '/usr/lib/*-linux-gnu*/libseccomp.a' >/dev/null; then
	echo "runc is left out: gcc or libseccomp-dev is missing (make setup installs them); hosted nodes use the system's runc or crun" >&2
	exit 0
fi
CGO_ENABLED=1 go build -trimpath -tags seccomp,netgo,osusergo -ldflags '-s -w -extldflags -static' -o "$out" github.com/opencontainers/runc
