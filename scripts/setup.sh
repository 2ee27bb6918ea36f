#!/usr/bin/env bash
# Installs what building and testing Oscine needs and this machine lacks.
# It says what and why first, touches nothing that is there, and may be run
# any number of times. For Debian 12 and 13 and Ubuntu 24.04, amd64 and arm64.
#
#   scripts/setup.sh          install what is missing
#   scripts/setup.sh --check  only say what is missing; exit status 1 if any
set -euo pipefail

cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/local/go/bin:/usr/sbin:/sbin"

missing=() # Debian packages
reasons=()

# need PACKAGE REASON TEST... asks for PACKAGE unless TEST succeeds.
need() {
	local package=$1 reason=$2
	shift 2
	if ! "$@" >/dev/null 2>&1; then
		missing+=("$package")
		reasons+=("$reason")
	fi
}

has() { command -v "$1"; }

static_libc() { compgen -G '/usr/lib/*-linux-gnu*/libc.a'; }

static_seccomp() { compgen -G '/usr/lib/*-linux-gnu*/libseccomp.a'; }

debian_keyring() { compgen -G '/usr/share/keyrings/debian-archive-keyring*' || compgen -G '/etc/apt/trusted.gpg.d/debian-archive-*'; }

need ca-certificates 'certificates of the servers that modules and packages come from' test -s /etc/ssl/certs/ca-certificates.crt
need git 'the version that programs report is the commit' has git
need debian-archive-keyring 'signatures of the Debian packages that go onto the image' debian_keyring
need xz-utils 'unpacks Debian packages and kernel modules' has xz
need e2fsprogs 'mke2fs makes the data partition' has mke2fs
need gcc 'builds the container runtime of hosted nodes (runc, with cgo)' has gcc
need libc6-dev 'the same: links runc statically' static_libc
need libseccomp-dev 'the same: system call filters of containers' static_seccomp
need pkg-config 'the same: finds libseccomp' has pkg-config
need python3-venv "others' clients of inference, which tests run unchanged" python3 -c 'import ensurepip'
need hwloc-nox 'lstopo, which tests compare the map of the hardware with' has lstopo-no-graphics
need python3-pip 'fetches the pinned wheels of engines for make packs' has pip3
need npm "others' TUF client, which tests run unchanged" has npm

# Go is not installed from a distribution: what these carry is older than what
# go.mod asks for. From 1.21 on the go command fetches the right one itself.
check_go() {
	local wanted have
	wanted=$(awk '$1 == "go" {print $2}' go.mod)
	if ! has go >/dev/null; then
		echo "setup: Go $wanted is needed and no go command is in PATH." >&2
		echo "setup: install it from https://go.dev/dl/ (or any Go from 1.21 on), then run this again." >&2
		return 1
	fi
	if ! have=$(go env GOVERSION 2>&1); then
		echo "setup: go.mod asks for Go $wanted, and the go command in $(command -v go) cannot provide it:" >&2
		echo "$have" >&2
		echo "setup: install Go $wanted from https://go.dev/dl/, or leave GOTOOLCHAIN unset so that Go fetches it." >&2
		return 1
	fi
}

if ((${#missing[@]})); then
	echo "setup: missing on this machine:"
	for i in "${!missing[@]}"; do
		printf '  %-24s %s\n' "${missing[i]}" "${reasons[i]}"
	done
fi
if [[ ${1:-} == --check ]]; then
	check_go && ((${#missing[@]} == 0))
	exit
fi
if ((${#missing[@]})); then
	if ! has apt-get >/dev/null; then
		echo "setup: this machine has no apt-get: install what the packages above hold by its own means." >&2
		exit 1
	fi
	as_root=()
	if ((EUID != 0)); then
		if ! has sudo >/dev/null; then
			echo "setup: to install them, run as root: apt-get install ${missing[*]}" >&2
			exit 1
		fi
		as_root=(sudo)
	fi
	install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}")
	echo "setup: ${install[*]}"
	log=$(mktemp)
	trap 'rm -f "$log"' EXIT
	# The lists may be absent or old; a first try without fetching them is quick.
	if ! "${install[@]}" >"$log" 2>&1 && ! { "${as_root[@]}" apt-get update -q && "${install[@]}"; } >"$log" 2>&1; then
		tail -n 20 "$log" >&2
		echo "setup: apt-get could not install them; its last words are above." >&2
		exit 1
	fi
fi
check_go
echo "setup: this machine has what building and testing Oscine needs."
