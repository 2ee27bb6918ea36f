#!/usr/bin/env bash
# Installs others' clients, pinned by their hashes in a file of requirements, for
# the tests that run them unchanged, and prints the Python that has them. It does
# nothing where they are there already. The default are clients of inference.
# usage: python-clients.sh [REQUIREMENTS]
set -euo pipefail

cd "$(dirname "$0")/.."
pins=${1:-internal/serve/testdata/python-clients.txt}
digest=$(sha256sum "$pins" | cut -c 1-16)
folder=${OSCINE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/oscine}/python-clients-$digest
if [[ ! -e $folder/complete ]]; then
	echo "python-clients: installing into $folder" >&2
	rm -rf "$folder"
	python3 -m venv "$folder" >&2
	scripts/progress.sh "python-clients: install $(grep -c == "$pins") packages" "$folder/bin/python" -m pip install -q --disable-pip-version-check --no-deps --require-hashes --only-binary :all: -r "$pins" >&2
	touch "$folder/complete"
fi
echo "$folder/bin/python"
