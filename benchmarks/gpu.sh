#!/bin/sh
# Every GPU measurement in one call, under nine minutes: bash benchmarks/gpu.sh [--smoke] [--out FILE]
# WHEELS may name a folder of wheels to install beside what is there (pydantic, pyyaml), for a machine without a network.
set -eu
cd "$(dirname "$0")/.."
if [ -n "${WHEELS:-}" ]; then
  python3 -m pip install --quiet --no-index --no-deps --target "${TMPDIR:-/tmp}/tuneline-wheels" "$WHEELS"/*.whl
  export PYTHONPATH="${TMPDIR:-/tmp}/tuneline-wheels${PYTHONPATH:+:$PYTHONPATH}"
fi
exec python3 -m benchmarks.gpu "$@"
