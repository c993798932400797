#!/usr/bin/env bash
# Write requirements/constraints.txt anew: the newest versions that fit together, for every Python that
# pyproject.toml allows, with markers where they differ. Needs uv (pip install uv) and the package index.
#     scripts/update_constraints.sh [--keep]     --keep: pins that still fit stay as they are
# Run it, then `make test` in a fresh environment, before committing the result.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

TORCH=2.13.0 # moves by hand: see the head of the file that is written
out=requirements/constraints.txt
pins=$(mktemp)
trap 'rm -f "$pins"' EXIT
upgrade=(--upgrade)
if [ "${1:-}" = --keep ]; then
  cp "$out" "$pins"
  upgrade=()
fi

# All extras but vllm, whose releases hold many others, torch among them, at versions of their own.
echo "torch==$TORCH" |
  uv pip compile pyproject.toml --extra demo --extra all --extra embeddings --extra dev --extra docs \
    --universal --python-version 3.10 "${upgrade[@]}" --quiet \
    --no-header --no-annotate --no-sources --constraint - --output-file "$pins"

{
  cat <<HEAD
# Versions that were tested together (make install, make test and .ci/run use them):
#     pip install -c requirements/constraints.txt "der-graph[demo]"
# Written by scripts/update_constraints.sh from a resolve of all extras but vllm on Python 3.10 to 3.13.
# torch is held at one version: where an index or a folder offers its CPU build (2.13.0+cpu), pip takes
# that, and no CUDA packages come along. What torch's CUDA builds need is left to torch's own pins.
# No hashes here: pip takes them for everything or for nothing, refuses them for an editable install, and torch's
# build differs by index. requirements/weights.txt has them.
HEAD
  grep -Ev '^(#|nvidia|cuda|triton)|emscripten. *$' "$pins"
} > "$out.new"
mv "$out.new" "$out"
echo "$out: $(grep -c '==' "$out") pins"
