"""How local models come into memory: once, shared, on a device, with an adapter."""

from __future__ import annotations

import gc
import sys
import time
import types
import weakref
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_models import QUESTIONS, save_tiny, tiny_model, tiny_tokenizer

from der_graph.errors import ExpertError, MissingDependencyError, PoolError
from der_graph.nodes.huggingface import HuggingFaceChat


def test_models_are_loaded_once_at_first_use_and_shared(folder: Path) -> None:
    one = HuggingFaceChat(model=str(folder))
    other = HuggingFaceChat(
        model=str(folder), prompt_format="{text}", generation={"max_new_tokens": 1}
    )
    assert one._loaded is None
    assert one.parameters_b == pytest.approx(
        sum(p.numel() for p in tiny_model().parameters()) / 1e9
    )
    assert one.count_tokens("hello") == 5
    assert one._loaded is None  # counting needs the tokenizer alone
    assert one.load() is other.load()
    assert one.parameters_b == pytest.approx(other.load().model.num_parameters() / 1e9)


def test_types(folder: Path) -> None:
    assert HuggingFaceChat(model=str(folder)).load().model.dtype == torch.float32
    half = HuggingFaceChat(model=str(folder), dtype="bfloat16", generation={"max_new_tokens": 2})
    assert half.load().model.dtype == torch.bfloat16
    assert half.invoke("hello").usage_metadata is not None


def test_from_pipeline(folder: Path) -> None:
    pipe = transformers.pipeline("text-generation", model=str(folder), max_new_tokens=5)
    chat = HuggingFaceChat.from_pipeline(pipe, model="mine")
    message = chat.invoke("hello")
    assert message.response_metadata["model_name"] == "mine"
    assert message.usage_metadata["output_tokens"] == 5  # type: ignore[index]
    longer = HuggingFaceChat.from_pipeline(pipe, generation={"max_new_tokens": 12})
    expected = HuggingFaceChat(model=str(folder), generation={"max_new_tokens": 12}).invoke("hello")
    assert longer.invoke("hello").content == expected.content
    with pytest.raises(PoolError, match="pipeline with model and tokenizer"):
        HuggingFaceChat.from_pipeline("gpt2")


def test_chats_around_one_pipeline_share_the_thread_that_runs_it(chat: HuggingFaceChat) -> None:
    pipe = chat.load().pipeline
    one, two = HuggingFaceChat.from_pipeline(pipe), HuggingFaceChat.from_pipeline(pipe)
    assert one.load() is two.load()


def test_an_error_does_not_keep_what_the_model_held(chat: HuggingFaceChat) -> None:
    """Or the tensors of a batch that was too large would still be there when half of it is tried."""
    held: list[weakref.ref[Any]] = []

    def work() -> None:
        tensors = torch.zeros(1)
        held.append(weakref.ref(tensors))
        raise RuntimeError("out of memory")

    gc.disable()
    try:
        with pytest.raises(RuntimeError):
            chat.load().run(work)
        give_up = time.monotonic() + 5  # the model's thread may still be letting go
        while held[0]() is not None and time.monotonic() < give_up:
            time.sleep(0.01)
        assert held[0]() is None
    finally:
        gc.enable()


def test_a_tokenizer_without_padding(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, pad=False)
    chat = HuggingFaceChat(model=str(folder), generation={"max_new_tokens": 6})
    assert chat.load().tokenizer.pad_token == "</s>"
    singles = [chat.invoke(question).content for question in QUESTIONS[:3]]
    assert [message.content for message in chat.batch(QUESTIONS[:3])] == singles


# peft, as the test itself uses it, asks transformers in a way that is about to be dropped.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_a_lora_adapter_is_merged(folder: Path, tmp_path: Path, chat: HuggingFaceChat) -> None:
    peft = pytest.importorskip("peft")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(r=4, target_modules="all-linear", lora_alpha=64)
    )
    torch.manual_seed(1)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            weight.data.normal_(0, 0.3)
    adapted.save_pretrained(tmp_path / "adapter")
    changed = HuggingFaceChat(
        model=str(folder), adapter=str(tmp_path / "adapter"), generation={"max_new_tokens": 12}
    )
    assert type(changed.load().model).__name__ == "LlamaForCausalLM"  # no adapter layers are left
    assert changed.invoke("hello").content != chat.invoke("hello").content
    assert changed.fingerprint != chat.fingerprint
    with pytest.raises(PoolError, match="adapter_config"):
        HuggingFaceChat(model=str(folder), adapter=str(tmp_path))


def test_a_model_that_also_sees_images_writes_text(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tokenizer = tiny_tokenizer()
    size = len(tokenizer)
    text = {
        "vocab_size": size, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4},
    }  # fmt: skip
    seen = {
        "depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32
    }  # fmt: skip
    torch.manual_seed(3)
    config = transformers.Qwen2_5_VLConfig(
        text_config=text,
        vision_config=seen,
        image_token_id=size - 1,
        video_token_id=size - 2,
        vision_start_token_id=size - 3,
        vision_end_token_id=size - 4,
    )
    model: Any = transformers.Qwen2_5_VLForConditionalGeneration(config)
    for weight in model.parameters():
        weight.data.mul_(8)  # answers that depend on the prompt
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    chat = HuggingFaceChat(model=str(tmp_path), generation={"max_new_tokens": 8}, device="cpu")
    capfd.readouterr()
    alone = [chat.invoke(question).text for question in QUESTIONS[:3]]
    assert [answer.text for answer in chat.batch(QUESTIONS[:3])] == alone
    assert len(set(alone)) > 1
    assert "not supported" not in "".join(capfd.readouterr())
    assert chat.load().context_length == 256


def test_what_cannot_be_loaded_says_why(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PoolError, match="no such folder"):
        HuggingFaceChat(model=str(tmp_path / "nothing"))
    with pytest.raises(PoolError, match=r"device 'cuda:9': this machine has \d+ CUDA"):
        HuggingFaceChat(model=str(folder), device="cuda:9").load()
    with pytest.raises(PoolError, match="device 'gpu' is unknown"):
        HuggingFaceChat(model=str(folder), device="gpu").load()
    with pytest.raises(PoolError, match="dtype 'int3'"):
        HuggingFaceChat(model=str(folder), dtype="int3").load()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ExpertError, match="could not be loaded"):
        HuggingFaceChat(model=str(tmp_path)).load()


def test_quantization_reaches_what_loads_the_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Any]] = []
    given: list[dict[str, Any]] = []
    weights = ("Int8WeightOnlyConfig", "Int4WeightOnlyConfig", "Float8WeightOnlyConfig")
    for package in ("bitsandbytes", "torchao", "torchao.quantization"):
        module = types.ModuleType(package)
        module.__spec__ = ModuleSpec(package, None)
        vars(module).update({name: (lambda name=name: name) for name in weights})
        monkeypatch.setitem(sys.modules, package, module)

    def config_of(name: str) -> Any:
        def made(*args: Any, **settings: Any) -> str:
            asked.append((name, args or settings))
            return name

        return made

    def from_pretrained(*_: Any, **settings: Any) -> Any:
        given.append(settings)
        raise OSError("that is enough")

    monkeypatch.setattr(transformers, "TorchAoConfig", config_of("torchao"))
    monkeypatch.setattr(transformers, "BitsAndBytesConfig", config_of("bitsandbytes"))
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    for name in ("4bit", "8bit", "int8", "int4", "float8"):
        quantized: Any = name
        with pytest.raises(ExpertError, match="that is enough"):
            HuggingFaceChat(model=str(folder), quantization=quantized, device="cpu").load()
    assert asked == [
        ("bitsandbytes", {"load_in_4bit": True}),
        ("bitsandbytes", {"load_in_8bit": True}),
        *(("torchao", (name,)) for name in weights),
    ]
    for settings, (package, _) in zip(given, asked, strict=True):
        assert settings["quantization_config"] == package
        assert settings["device_map"] == {"": torch.device("cpu")}


@pytest.mark.parametrize(
    ("quantization", "package"),
    [("4bit", "bitsandbytes"), ("8bit", "bitsandbytes"), ("int4", "torchao")],
)
def test_the_package_that_is_missing_is_named(
    quantization: Any, package: str, folder: Path
) -> None:
    if find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(MissingDependencyError, match=f"pip install {package}$"):
        HuggingFaceChat(model=str(folder), quantization=quantization, device="cpu").load()


def test_types_and_attention_on_a_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from der_graph.nodes.huggingface import loading

    cuda = torch.device("cuda")
    for native, stored, expected in (
        (True, torch.float32, torch.bfloat16),
        (True, torch.float16, torch.float16),
        (False, torch.float32, torch.float16),  # what is emulated is slow
        (False, torch.bfloat16, torch.bfloat16),
    ):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)  # noqa: B023
        assert loading.half_dtype(torch, stored) == expected
    assert loading.fast_attention(torch.device("cpu")) is None
    monkeypatch.setattr(loading, "has_flash_attention", lambda: False)
    assert loading.fast_attention(cuda) is None
    monkeypatch.setattr(loading, "has_flash_attention", lambda: True)
    assert loading.fast_attention(cuda) == "flash_attention_2"


def test_a_model_that_does_not_fit_says_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, device: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(transformers.LlamaForCausalLM, "to", full)
    with pytest.raises(ExpertError, match=r"does not fit on cpu .*offload: true .*der pool check"):
        HuggingFaceChat(model=str(folder), dtype="bfloat16", device="cpu").load()


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (MemoryError("Memory footprint 2 is more than available memory 1"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
        (None, False),
    ],
    ids=str,
)
def test_what_is_a_lack_of_memory(error: BaseException | None, memory: bool) -> None:
    from der_graph.nodes.huggingface.loading import ran_out_of_memory

    assert ran_out_of_memory(error) is memory


def test_fingerprints_follow_what_answers_depend_on(folder: Path, tmp_path: Path) -> None:
    one = HuggingFaceChat(model=str(folder)).fingerprint
    assert HuggingFaceChat(model=str(folder), device="cpu").fingerprint == one
    assert HuggingFaceChat(model=str(folder), stop=["x"]).fingerprint != one
    assert HuggingFaceChat(model=str(folder), generation={"max_new_tokens": 9}).fingerprint != one
    other = save_tiny(tmp_path, seed=1)
    assert HuggingFaceChat(model=str(other)).fingerprint != one


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu(folder: Path) -> None:
    settings: dict[str, Any] = {
        "model": str(folder),
        "generation": {"max_new_tokens": 12},
        "dtype": "float32",
    }
    gpu = HuggingFaceChat(**settings)
    assert gpu.load().model.device.type == "cuda"
    cpu = HuggingFaceChat(**settings, device="cpu")
    expected = [message.content for message in cpu.batch(QUESTIONS)]
    assert [message.content for message in gpu.batch(QUESTIONS)] == expected
    assert "".join(str(chunk.content) for chunk in gpu.stream(QUESTIONS[0])) == expected[0]
