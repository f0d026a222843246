#!/usr/bin/env bash
# Renews build.txt, lock.txt and the lock of images/jupyter: name==version with the hashes of every file of
# that version, for all platforms and for Python 3.11 and newer (3.10 in the image). They contain no
# address, so any mirror of the index serves.
set -euo pipefail
cd "$(dirname "$0")/.."

compile() {  # OUTPUT, then what to resolve
    local output="$1"
    shift
    uv pip compile --quiet --universal --python-version "${PYTHON_LEAST:-3.11}" --generate-hashes --no-header \
        --no-emit-index-url --no-emit-find-links --no-annotate --output-file "$output" "$@"
}

build_input="$(mktemp --suffix=.txt)"
trap 'rm -f "$build_input"' EXIT
echo "setuptools>=77,<90" > "$build_input"
compile requirements/build.txt "$build_input"
compile requirements/lock.txt pyproject.toml --group dev
echo "jupyterlab>=4.4,<4.5" > "$build_input"
PYTHON_LEAST=3.10 compile images/jupyter/requirements.txt "$build_input"
if grep -nE '://' requirements/*.txt images/jupyter/requirements.txt; then
    echo "the lock must not contain addresses" >&2
    exit 1
fi
