#!/usr/bin/env bash
# Runs a command that may take long. After two seconds it says what is done; a
# terminal also shows for how long and the last line of the output. What the
# command prints, except Go's downloads, follows when it has ended, and all of
# it where it failed. The exit status is the command's.
# usage: progress.sh TEXT COMMAND...
set -euo pipefail

text=$1
shift
log=$(mktemp)
SECONDS=0

follow() {
	sleep 2 >/dev/null 2>&1
	if [[ ! -t 2 ]]; then
		echo "$text ..." >&2
		return
	fi
	local line width
	width=$(stty size <&2 2>/dev/null | cut -d ' ' -f 2)
	while kill -0 $$ 2>/dev/null; do
		line=$(printf '%s %4d s  %s' "$text" "$SECONDS" "$(tail -n 1 "$log" | tr -dc '[:print:]')")
		printf '\r\033[K%s' "${line:0:$((${width:-80} - 1))}" >&2
		sleep 1 >/dev/null 2>&1
	done
}

follow &
follower=$!
trap 'kill "$follower" 2>/dev/null || true; rm -f "$log"' EXIT
status=0
"$@" >"$log" 2>&1 || status=$?
kill "$follower" 2>/dev/null || true
wait "$follower" 2>/dev/null || true
if [[ -t 2 ]]; then
	printf '\r\033[K' >&2
fi
if ((status)); then
	cat "$log"
else
	if ((SECONDS >= 2)); then
		echo "$text: $SECONDS s" >&2
	fi
	grep -v '^go: downloading ' "$log" || true
fi
exit "$status"
