#!/usr/bin/env bash
# Installs others' clients for Node.js, pinned by the package-lock.json of a
# folder, for the tests that run them unchanged, and prints the folder that has
# them. It does nothing where they are there already.
# usage: node-clients.sh FOLDER
set -euo pipefail

cd "$(dirname "$0")/.."
digest=$(sha256sum "$1/package-lock.json" | cut -c 1-16)
folder=${OSCINE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/oscine}/node-clients-$digest
if [[ ! -e $folder/complete ]]; then
	echo "node-clients: installing into $folder" >&2
	rm -rf "$folder"
	mkdir -p "$folder"
	cp "$1/package.json" "$1/package-lock.json" "$folder/"
	progress=$PWD/scripts/progress.sh
	(cd "$folder" && "$progress" 'node-clients: install' npm ci --silent --ignore-scripts --no-audit --no-fund >&2)
	touch "$folder/complete"
fi
echo "$folder"
