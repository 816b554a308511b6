#!/bin/sh
# Every GPU measurement in one call, under nine minutes: sh benchmarks/gpu.sh [--smoke]
# Stages first, through DeepSpeed; then, in the time that is left, single settings of a step without it.
# WHEELS may name a folder of wheels to install beside what is there (deepspeed and its needs, datasets, pydantic, trl …), for a
# machine without a network; OUT a folder for the two tables.
set -eu
cd "$(dirname "$0")/.."
begun=$(date +%s)
out=${OUT:-benchmarks/results}
if [ -n "${WHEELS:-}" ]; then
  # A source archive of deepspeed builds nothing: its kernels are not used.
  DS_BUILD_OPS=0 python3 -m pip install --quiet --no-index --no-deps --no-build-isolation \
    --target "${TMPDIR:-/tmp}/tuneline-wheels" "$WHEELS"/*
  export PYTHONPATH="${TMPDIR:-/tmp}/tuneline-wheels${PYTHONPATH:+:$PYTHONPATH}"
fi
card=$(python3 -c 'import torch; print(torch.cuda.get_device_name().replace(" ", "-") if torch.cuda.is_available() else "cpu")')
day=$(date +%F)
python3 -m benchmarks.gpu.stages --seconds 420 --out "$out/$day-$card-stages.md" "$@"
left=$((480 - $(date +%s) + begun))
if [ "$left" -gt 30 ]; then
  exec python3 -m benchmarks.gpu.steps --seconds "$left" --out "$out/$day-$card-steps.md" "$@"
fi
