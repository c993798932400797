#!/usr/bin/env bash
# Clients of the server that do not go with the versions of requirements/constraints.txt: each in an environment
# of its own, in front of der-graph's. Needs `make install-dev` and the package index.
#     PYTHON=.venv/bin/python scripts/check_clients.sh [CLIENT ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-.venv/bin/python}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
packages() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }

[ $# -gt 0 ] || set -- litellm instructor openai-agents
for client in "$@"; do
  "$python" -m venv "$folder/$client"
  own="$folder/$client/bin/python"
  packages "$python" > "$(packages "$own")/zz_der_graph.pth" # after the client's own
  "$own" -m pip install --quiet --disable-pip-version-check "$client"
  echo "==> $("$own" -m pip list --format freeze 2> /dev/null | grep -iE "^($client|openai)==" | tr '\n' ' ')"
  "$own" -m pytest -q -p no:cacheprovider tests/server/test_clients.py -k "${client//-/_}" | tee "$folder/log"
  ! grep -q skipped "$folder/log" # a client that cannot be imported
done
