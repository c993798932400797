#!/usr/bin/env bash
# Installs the package in each of the ways a user may, into a fresh environment each, and tries it outside the
# checkout beside a `nodes.py` and a `policies.py` of the user's own. Dependencies are borrowed from the
# environment of $PYTHON, so nothing is downloaded but the build tool.
#     PYTHON=.venv/bin/python scripts/check_install.sh
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
python=$("$python" -c 'import sys; print(sys.executable)')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A copy of what git knows: no leftovers of earlier builds.
(cd "$root" && git ls-files -z --cached --others --exclude-standard) |
  (cd "$root" && xargs -0 -I{} sh -c '[ -e "{}" ] && echo "{}" || true') |
  tar -C "$root" -cf - -T - | tar -C "$work" -xf - --one-top-level=checkout

echo "==> building the archives"
"$python" -m build --outdir "$work/dist" "$work/checkout" > "$work/build.log" 2>&1 ||
  { tail -20 "$work/build.log"; exit 1; }
wheel=$(echo "$work"/dist/*.whl)
"$python" - "$wheel" "$work/checkout" <<'END'
import sys, zipfile, pathlib
names = [n for n in zipfile.ZipFile(sys.argv[1]).namelist()]
top = {n.split("/")[0] for n in names}
assert len(top) == 2 and "der_graph" in top, f"the wheel holds more than the package: {sorted(top)}"
package = pathlib.Path(sys.argv[2]) / "der_graph"
expected = {
    str(p.relative_to(package.parent))
    for p in package.glob("**/*")
    if p.is_file() and "__pycache__" not in p.parts
}
for name in ("nodes", "policies"):  # not every Python follows links in a glob
    folder = package.parent / name
    expected |= {f"der_graph/{name}/{p.relative_to(folder)}" for p in folder.rglob("*")
                 if p.is_file() and "__pycache__" not in p.parts}
missing = sorted(expected - set(names))
assert not missing, f"not in the wheel: {missing}"
print(f"    wheel: {len(names)} files, {pathlib.Path(sys.argv[1]).stat().st_size / 1e6:.1f} MB")
END

borrow=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir "$work/elsewhere"
echo 'raise RuntimeError("the user'"'"'s own nodes.py was imported")' > "$work/elsewhere/nodes.py"
cp "$work/elsewhere/nodes.py" "$work/elsewhere/policies.py"
cat > "$work/elsewhere/app.py" <<'END'
import importlib, pathlib, sys
import der_graph
home = pathlib.Path(der_graph.__file__).resolve().parent
for name in ("nodes.rules", "nodes.hub", "policies.observation", "policies.quality", "cli"):
    importlib.import_module(f"der_graph.{name}")
from der_graph import create_der_graph, load_agent, load_pool
create_der_graph(load_pool("demo"), agent=load_agent("demo")).compile(name="der")
assert "nodes" not in sys.modules and "policies" not in sys.modules
print(f"    {der_graph.__version__} from {home}")
END

try() { # name, what to install...
  local name=$1 env="$work/env-$1"
  shift
  echo "==> $name"
  "$python" -m venv "$env"
  local site
  site=$("$env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  "$env/bin/pip" install --quiet --no-deps --disable-pip-version-check "$@"
  echo "$borrow" > "$site/borrowed.pth"
  (cd "$work/elsewhere" && "$env/bin/python" app.py && "$env/bin/der" --help > /dev/null)
  (cd "$work/elsewhere" && "$env/bin/python" - "$work" <<'END'
import pathlib, sys, der_graph
home = pathlib.Path(der_graph.__file__).resolve()
assert str(home).startswith(str(pathlib.Path(sys.argv[1]).resolve())), f"another copy was imported: {home}"
END
  )
}

try wheel "$wheel"
try archive "$work"/dist/*.tar.gz
try folder "$work/checkout"
try editable -e "$work/checkout"

# As after `git clone` without links (Windows): each link is a text file that holds its target.
rm "$work/checkout/der_graph/nodes" "$work/checkout/der_graph/policies"
printf ../nodes > "$work/checkout/der_graph/nodes"
printf ../policies > "$work/checkout/der_graph/policies"
rm -rf "$work/checkout/build" "$work"/checkout/*.egg-info
try editable-without-links -e "$work/checkout"
echo "==> all ways of installing work"
