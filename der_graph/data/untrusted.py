"""Reading small files that may be anything: a pipe that never ends, a bomb, too deep a nesting.

What is wrong comes as `OSError` or `ValueError`; who reads turns that into an error of the project.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

MOST_BYTES = 16 * 2**20
"""Largest file that is read as a whole."""


def check_regular(path: Path) -> int:
    """Check that a path is an ordinary file, which reading cannot wait for.

    Returns:
        Its size in bytes.

    Raises:
        OSError: If it is missing, or a pipe, a device or a folder.
    """
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(f"{path} is a folder")
    if not stat.S_ISREG(found.st_mode):
        raise OSError(f"{path} is no ordinary file, but a pipe, socket or device")
    return found.st_size


def read_text(path: Path, most_bytes: int = MOST_BYTES) -> str:
    """The text of a small file, UTF-8.

    Raises:
        OSError: If it cannot be read, or is larger than allowed.
        UnicodeDecodeError: If it is no UTF-8.
    """
    size = check_regular(path)
    if size > most_bytes:
        raise OSError(f"{path} has {size} bytes; at most {most_bytes} are read")
    return path.read_text(encoding="utf-8-sig")  # as Windows writes it


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: If it is none, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
