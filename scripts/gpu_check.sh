#!/usr/bin/env bash
# Measures der-graph on the GPU of this machine in under nine minutes, without network.
#     scripts/gpu_check.sh OUT [--tiny]        OUT/gpu.json and OUT/gpu.md
#     scripts/gpu_check.sh --bundle wheels     download the small packages that a bare machine lacks (with network)
# Needs torch and transformers for $PYTHON (default python3); what else is needed is taken from wheels/ at the
# top of the checkout, if it is there. Large models have random weights, made from their configurations.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
# 17 MB in all.
small=(langgraph langchain-core pydantic PyYAML filelock pytest pytest-timeout pytest-socket hypothesis)

if [ "${1:-}" = --bundle ]; then
  folder=${2:?give a folder for the wheels}
  "$python" -m pip download --only-binary :all: -c "$root/requirements/constraints.txt" -d "$folder" "${small[@]}"
  du -sh "$folder"
  exit 0
fi

out=${1:?give a folder for the results, or --bundle FOLDER}
shift
if [ -d "$root/wheels" ]; then
  "$python" -m venv --system-site-packages "$out/venv"
  "$out/venv/bin/python" -m pip install -q --no-index --find-links "$root/wheels" "${small[@]}"
  python=$out/venv/bin/python
fi
cd "$root"
export PYTHONPATH=$root HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
exec "$python" scripts/gpu_check.py --out "$out" "$@"
