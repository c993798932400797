#!/usr/bin/env bash
# Measures der-graph on the GPU of this machine in under nine minutes, without network.
#     scripts/gpu_check.sh OUT [--tiny]                OUT/gpu.json and OUT/gpu.md
#     scripts/gpu_check.sh --bundle wheels [3.12]      download what a bare machine with this Python lacks
# Needs torch and transformers for $PYTHON (default python3); what else is needed, and the transformers that this
# is tested with, is taken from wheels/ at the top of the checkout, if it is there. Large models have random
# weights, made from their configurations.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}

if [ "${1:-}" = --bundle ]; then
  folder=${2:?give a folder for the wheels}
  version=${3:-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')}
  # pip compares names of platforms letter by letter.
  where=(--only-binary :all: --python-version "$version" --implementation cp -c "$root/requirements/constraints.txt" -d "$folder")
  for platform in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1; do
    where+=(--platform "${platform}_x86_64")
  done
  "$python" -m pip download -q "${where[@]}" langgraph langchain-core pydantic PyYAML filelock psutil pytest pytest-timeout \
    pytest-socket hypothesis
  "$python" -m pip download -q "${where[@]}" --no-deps transformers tokenizers
  rm -f "$folder"/zstandard-*.whl  # LangSmith does without, and it is the largest of the small ones
  du -sh "$folder" # 28 MB
  exit 0
fi

out=${1:?give a folder for the results, or --bundle FOLDER}
shift
mkdir -p "$out"
out=$(cd "$out" && pwd)
export PYTHONPATH=$root HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false LANGSMITH_TRACING=false
if [ -d "$root/wheels" ]; then
  packages=$(mktemp -d)
  trap 'rm -rf "$packages"' EXIT
  for wheel in "$root"/wheels/*.whl; do # a bare machine may have no pip
    "$python" -m zipfile -e "$wheel" "$packages"
  done
  PYTHONPATH=$packages:$PYTHONPATH
fi
cd "$root"
"$python" scripts/gpu_check.py --out "$out" "$@"
