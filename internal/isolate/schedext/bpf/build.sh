#!/bin/sh
# Compiles the scheduler. Without clang the object in the tree stays as it is.
set -eu
cd "$(dirname "$0")"
if ! command -v clang >/dev/null; then
	echo "schedext: no clang (14 or later): scheduler.o stays as it is" >&2
	exit 0
fi
clang -target bpf -mcpu=v3 -O2 -g -Wall -Wno-unused -c scheduler.bpf.c -o scheduler.o
llvm-strip -g scheduler.o
