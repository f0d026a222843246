#!/usr/bin/env bash
# Renews build.txt and lock.txt: name==version with the hashes of every file of that version, for all
# platforms and for Python 3.11 and newer. Contains no address, so any mirror of the index serves.
set -euo pipefail
cd "$(dirname "$0")/.."

compile() {  # OUTPUT, then what to resolve
    local output="$1"
    shift
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
        --no-emit-index-url --no-emit-find-links --no-annotate --output-file "$output" "$@"
}

build_input="$(mktemp --suffix=.txt)"
trap 'rm -f "$build_input"' EXIT
echo "setuptools>=77,<90" > "$build_input"
compile requirements/build.txt "$build_input"
compile requirements/lock.txt pyproject.toml --group dev
if grep -nE '://' requirements/*.txt; then
    echo "the lock must not contain addresses" >&2
    exit 1
fi
