#!/usr/bin/env bash
# Runs every fuzz target of the module for the given time each, and ends at
# the first that fails; its input is then under the package's testdata/fuzz.
set -euo pipefail

time=${1:?usage: fuzz.sh TIME, such as 30s}
grep -rl --include='*_test.go' '^func Fuzz' cmd internal | xargs -n 1 dirname | sort -u | while read -r folder; do
	go test -list '^Fuzz' "./$folder" | grep '^Fuzz' | while read -r target; do
		echo "fuzz ./$folder $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x "./$folder"
	done
done
