#!/usr/bin/env bash
# Prints the path of a Python that has the engines' own packages, at the versions
# of the packs, for make test-engines; scripts/engines-python.txt pins what these
# bring. It makes a virtual environment in the cache the first time; nothing is installed on the system.
set -euo pipefail

packages=(onnxruntime==1.31.1 openvino==2026.4.1 ai-edge-litert==2.3.0 torch==2.15.0 executorch==1.5.1)

cd "$(dirname "$0")/.."
pins=scripts/engines-python.txt
cache=${OSCINE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/oscine}
dir=$cache/engines-python/$({ printf '%s\n' "$(python3 --version)" "${packages[@]}" && cat "$pins"; } | sha256sum | cut -c1-16)
if [[ ! -e $dir/done ]]; then
	rm -rf "$dir"
	mkdir -p "$(dirname "$dir")"
	if ! python3 -m venv "$dir" >&2; then
		echo "engines-python: python3 -m venv failed; on Debian: apt-get install python3-venv" >&2
		exit 1
	fi
	scripts/progress.sh 'engines-python: install' "$dir/bin/pip" install --quiet --disable-pip-version-check -c "$pins" "${packages[@]}" >&2
	touch "$dir/done"
fi
echo "$dir/bin/python"
