#!/usr/bin/env bash
# Write requirements/constraints.txt anew: the newest versions that fit together, for every Python that
# pyproject.toml allows, with markers where they differ. Needs uv (pip install uv) and the package index.
# Run it, then `make test` in a fresh environment, before committing the result.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

TORCH=2.13.0 # moves by hand: see the head of the file that is written
out=requirements/constraints.txt
pins=$(mktemp)
trap 'rm -f "$pins"' EXIT

echo "torch==$TORCH" |
  uv pip compile pyproject.toml --all-extras --universal --python-version 3.10 --upgrade --quiet \
    --no-header --no-annotate --no-sources --constraint - --output-file "$pins"

{
  cat <<HEAD
# Versions that were tested together (make install, make test and .ci/run use them):
#     pip install -c requirements/constraints.txt "der-graph[demo]"
# Written by scripts/update_constraints.sh from a resolve of all extras on Python 3.10 to 3.13.
# torch is held at one version: where an index or a folder offers its CPU build (2.13.0+cpu), pip takes
# that, and no CUDA packages come along. What torch's CUDA builds need is left to torch's own pins.
HEAD
  grep -Ev '^(nvidia|cuda|triton)|emscripten. *$' "$pins"
} > "$out.new"
mv "$out.new" "$out"
echo "$out: $(grep -c '==' "$out") pins"
