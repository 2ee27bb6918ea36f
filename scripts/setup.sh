#!/usr/bin/env bash
# Installs what building and testing Oscine needs and this machine lacks.
# It says what and why first, touches nothing that is there, and may be run
# any number of times. For Debian 12 and 13 and Ubuntu 24.04, amd64 and arm64.
#
#   scripts/setup.sh          install what is missing
#   scripts/setup.sh --demo   the same, without what only tests need
#   scripts/setup.sh --check  only say what is missing; exit status 1 if any
set -euo pipefail

case ${1:-} in
'' | --demo | --check) ;;
*)
	echo "setup: unknown argument $1; see the head of scripts/setup.sh" >&2
	exit 2
	;;
esac
mode=${1:-}

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

# need_for_tests is need, unless only the demo is to run: these bring hundreds of
# packages.
need_for_tests() {
	[[ $mode == --demo ]] || need "$@"
}

has() { command -v "$1"; }

static_libc() { compgen -G '/usr/lib/*-linux-gnu*/libc.a'; }

static_seccomp() { compgen -G '/usr/lib/*-linux-gnu*/libseccomp.a'; }

debian_keyring() { compgen -G '/usr/share/keyrings/debian-archive-keyring*' || compgen -G '/etc/apt/trusted.gpg.d/debian-archive-*'; }

# Debian's own apt names a mirror of Debian's packages; elsewhere debootstrap's default is taken.
debian_mirror() { [[ ${OSCINE_DEBIAN_MIRROR:-} ]] || grep -qx 'ID=debian' /etc/os-release || has debootstrap; }

need ca-certificates 'certificates of the servers that modules and packages come from' test -s /etc/ssl/certs/ca-certificates.crt
need git 'the version that programs report is the commit' has git
need debian-archive-keyring 'signatures of the Debian packages that go onto the image' debian_keyring
need debootstrap 'names a mirror of these packages, which apt on this system does not' debian_mirror
need xz-utils 'unpacks Debian packages and kernel modules' has xz
need e2fsprogs 'mke2fs makes the data partition' has mke2fs
need gcc 'builds the container runtime of hosted nodes (runc, with cgo)' has gcc
need libc6-dev 'the same: links runc statically' static_libc
need libseccomp-dev 'the same: system call filters of containers' static_seccomp
need pkg-config 'the same: finds libseccomp' has pkg-config
need python3-pip 'fetches the pinned wheels of engines for make packs' has pip3
need_for_tests python3-venv "others' clients of inference, which tests run unchanged" python3 -c 'import ensurepip'
need_for_tests hwloc-nox 'lstopo, which tests compare the map of the hardware with' has lstopo-no-graphics
need_for_tests npm "others' TUF client, which tests run unchanged" has npm

# Go is not installed from a distribution: what these carry is older than what
# go.mod asks for. From 1.21 on the go command fetches the right one itself.
wanted_go=$(awk '$1 == "go" {print $2}' go.mod)

# find_go comes before packages are installed, so that nobody waits for these first.
find_go() {
	local have
	if ! has go >/dev/null; then
		echo "setup: Go $wanted_go is needed, and there is no go command in PATH or /usr/local/go/bin." >&2
		echo "setup: install it from https://go.dev/dl/ (or any Go from 1.21 on), then run this again." >&2
		return 1
	fi
	have=$(GOTOOLCHAIN=local go version | awk '{print $3}')
	if [[ $have =~ ^go1\.([0-9]+) ]] && ((BASH_REMATCH[1] < 21)); then
		echo "setup: Go $wanted_go is needed, and $(command -v go) is $have, which cannot fetch it as Go does from 1.21 on." >&2
		echo "setup: install Go $wanted_go from https://go.dev/dl/ and put it first in PATH, then run this again." >&2
		return 1
	fi
}

# fetch_go has the go command fetch the version that go.mod asks for, where it is
# another one.
fetch_go() {
	if ! scripts/progress.sh "setup: fetch Go $wanted_go" go list -m >"$log"; then
		cat "$log" >&2
		echo "setup: go.mod asks for Go $wanted_go, and $(command -v go) could not fetch it; its words are above." >&2
		echo "setup: install Go $wanted_go from https://go.dev/dl/, or leave GOTOOLCHAIN unset so that Go fetches it." >&2
		return 1
	fi
}

if ((${#missing[@]})); then
	echo "setup: missing on this machine:"
	for i in "${!missing[@]}"; do
		printf '  %-24s %s\n' "${missing[i]}" "${reasons[i]}"
	done
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if [[ $mode == --check ]]; then
	find_go && fetch_go && ((${#missing[@]} == 0))
	exit
fi
find_go
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
		sudo true # asks for the password here, before progress is shown
	fi
	apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get)
	command=("${apt[@]}" install -q --no-install-recommends "${missing[@]}")
	echo "setup: ${command[*]}"
	install() {
		("${command[@]}" --assume-no 2>/dev/null || true) | sed -n -E 's/^(Need to get|After this)/setup: \1/p'
		scripts/progress.sh 'setup: install' "${command[@]}" -y >"$log"
	}
	refresh() { scripts/progress.sh 'setup: fetch the lists of packages' "${apt[@]}" update -q >"$log"; }
	# The lists may be absent or old; a first try without fetching them is quick.
	if ! install && ! { refresh && install; }; then
		tail -n 20 "$log" >&2
		echo "setup: apt-get could not install them; its last words are above." >&2
		exit 1
	fi
fi
fetch_go
if [[ $mode == --demo ]]; then
	echo "setup: this machine has what building and trying Oscine needs."
else
	echo "setup: this machine has what building and testing Oscine needs."
fi
