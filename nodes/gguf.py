"""GGUF files become ordinary model folders, once, in the user's cache.

    file.gguf ──transformers, dequantised──> temporary folder ──rename──> <cache>/models/<name>-<key>

transformers can run GGUF weights packed, but on a CPU that is slow, and reading them takes 15 to 45 s either
way. So they are converted at first use: safetensors in bfloat16 (half the disk of float32, and finer than
any 4-bit source), tokenizer and chat template beside them. The rename makes it atomic, a lock file makes it
safe under two processes, and a manifest of sizes shows an entry that is not whole, which is then remade.
Knows nothing of experts.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

from der_graph.errors import ExpertError, require

CONVERTER_VERSION = 1
"""Raise it when the converted folder changes: older entries are then left alone and no longer used."""

MANIFEST = "der_graph_manifest.json"
_SAMPLE = (
    4 << 20
)  # bytes read at either end of a file to recognise it; all of a 100 GB file would take minutes


def cache_folder() -> Path:
    """The folder of converted models: `$DER_CACHE`, or `der-graph` in the user's cache folder."""
    own = os.environ.get("DER_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    if not shared and sys.platform == "win32":
        shared = os.environ.get("LOCALAPPDATA")
    if not shared and sys.platform == "darwin":
        shared = "~/Library/Caches"
    return Path(shared or "~/.cache").expanduser() / "der-graph"


def file_key(path: Path) -> str:
    """Recognises a file by its size and both its ends."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_SAMPLE))
        if size > 2 * _SAMPLE:
            file.seek(-_SAMPLE, os.SEEK_END)
        digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def converted_folder(name: str, key: str) -> Path:
    """Where the converted model of a source lies, or will lie. The key also holds the versions."""
    versions = f"{CONVERTER_VERSION}|{'.'.join(version('transformers').split('.')[:2])}"
    digest = hashlib.sha256(f"{key}|{versions}".encode()).hexdigest()[:16]
    return cache_folder() / "models" / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}-{digest}"


def is_whole(folder: Path) -> bool:
    """Is a converted folder there, with every file that was written, at its full size?"""
    try:
        sizes = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return bool(sizes) and all((folder / file).stat().st_size == n for file, n in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def convert(name: str, key: str, fetch: Callable[[Path], Path]) -> Path:
    """Convert a GGUF file unless that was done before.

    Args:
        name: For messages and the folder's name.
        key: Identifies the source.
        fetch: Gets a folder for temporary files, gives the path of the GGUF file. Called only if needed.

    Returns:
        The folder with safetensors, config and tokenizer.

    Raises:
        ExpertError: If the file cannot be read, or the cache folder cannot be written.
    """
    folder = converted_folder(name, key)
    if is_whole(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not is_whole(folder):  # another process may have made it while this one waited
                _convert(name, folder, fetch)
    except OSError as error:
        raise ExpertError(
            f"cannot convert '{name}' into the cache folder {cache_folder()}: {error}; "
            "set DER_CACHE to a folder that can be written and has room"
        ) from error
    return folder


def _convert(name: str, folder: Path, fetch: Callable[[Path], Path]) -> None:
    start = time.perf_counter()
    print(
        f"der-graph: converting {name} for first use; this happens once and takes a minute or two ...",
        file=sys.stderr,
        flush=True,
    )
    with tempfile.TemporaryDirectory(prefix="tmp-", dir=folder.parent) as temporary:
        made = Path(temporary) / "model"
        _write_model(fetch(Path(temporary)), made)
        sizes = {file.name: file.stat().st_size for file in made.iterdir()}
        (made / MANIFEST).write_text(json.dumps(sizes, indent=1), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)  # not whole, or we would not be here
        made.replace(folder)
    print(
        f"der-graph: {name} is ready after {time.perf_counter() - start:.0f} s, kept in {folder}",
        file=sys.stderr,
        flush=True,
    )


def _write_model(source: Path, target: Path) -> None:
    require("gguf", extra="gguf", why="reading GGUF files")
    import torch
    import transformers

    where: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(source.parent), **where)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            str(source.parent),
            quantization_config=transformers.GgufConfig(dequantize=True),
            dtype=torch.float32,
            **where,
        )
    except OSError:
        raise
    except Exception as error:
        raise ExpertError(
            f"cannot read the GGUF file {source}: {type(error).__name__}: {error}"
        ) from error
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config  # the weights are plain numbers now
    model.bfloat16().save_pretrained(target)
    tokenizer.save_pretrained(target)


def count_parameters(path: Path) -> int:
    """Count the parameters of a GGUF file from its header, without reading the weights.

    Raises:
        ExpertError: If it is not a GGUF file.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ValueError("it does not begin with 'GGUF'")
            _, tensors, entries = struct.unpack("<IQQ", file.read(20))
            for _ in range(entries):
                _skip_string(file)
                _skip_value(file, _number(file, "<I"))
            return sum(_tensor_size(file) for _ in range(tensors))
    except (ValueError, KeyError, struct.error) as error:
        raise ExpertError(f"{path} is not a GGUF file that can be read: {error}") from error


# Widths in bytes of GGUF's value types; 8 is a string, 9 an array.
_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def _number(file: BinaryIO, layout: str) -> int:
    return int(struct.unpack(layout, file.read(struct.calcsize(layout)))[0])


def _skip_string(file: BinaryIO) -> None:
    file.seek(_number(file, "<Q"), os.SEEK_CUR)


def _skip_value(file: BinaryIO, kind: int) -> None:
    if kind == 8:
        _skip_string(file)
    elif kind == 9:
        inner, count = _number(file, "<I"), _number(file, "<Q")
        if inner in _WIDTHS:
            file.seek(_WIDTHS[inner] * count, os.SEEK_CUR)
        else:
            for _ in range(count):
                _skip_value(file, inner)
    else:
        file.seek(_WIDTHS[kind], os.SEEK_CUR)


def _tensor_size(file: BinaryIO) -> int:
    _skip_string(file)
    size = 1
    for _ in range(_number(file, "<I")):
        size *= _number(file, "<Q")
    file.seek(12, os.SEEK_CUR)  # type and offset
    return size
