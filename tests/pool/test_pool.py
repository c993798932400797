from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes import scripted_expert
from tiny_models import save_tiny

from der_graph.errors import ExpertError, PoolError, UnknownExpertError
from der_graph.nodes.huggingface import HuggingFaceChat
from der_graph.nodes.ktp import TEMPLATES
from der_graph.nodes.reliability.charge import TokenPrices
from der_graph.pool.pool import Pool, check_pool, load_pool, pool_from, pool_path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model `experts/tiny` and a data file, for pool files to lie in."""
    folder = tmp_path_factory.mktemp("pool")
    save_tiny(folder / "experts" / "tiny")
    row = {
        "instruction": "Q?",
        "input": "",
        "output": "a",
        "candidates": [{"model": "r", "text": "a"}],
    }
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    return folder


def pool_file(folder: Path, text: str) -> Path:
    path = folder / "pool.yaml"
    path.write_text(text, encoding="utf-8")
    return path


FULL = """
experts:
  - name: tiny
    backend: huggingface
    model: experts/tiny
    description: small
    system: Be brief.
    prompt_format: "Q: {text}\\nA:"
    stop: ["\\n"]
    generation: {max_new_tokens: 3}
    reasoning: false
    ktp: {first: "{question}", transfer: "{answer}", max_answer_tokens: 9}
  - name: again
    backend: huggingface
    model: experts/tiny
    cost: 0.5
    token_prices: {input: 1, output: 2}
    ktp: paper
    reasoning: ["[", "]"]
  - {name: r, backend: recorded, data: rows.jsonl, cost: 2}
settings: {max_steps: 3, cost_unit: parameters_b, ktp: default_all, repeat_experts: true}
"""


def test_a_pool_file_becomes_experts(tiny: Path) -> None:
    pool = load_pool(pool_file(tiny, FULL))
    assert pool.names == ("tiny", "again", "r")
    assert [expert.name for expert in pool] == list(pool.names)
    assert len(pool) == 3
    assert "tiny" in pool
    first, second, third = pool
    assert isinstance(first.model, HuggingFaceChat)
    assert first.cost == pytest.approx(first.model.parameters_b, rel=1e-3)
    assert first.model.reasoning is None
    assert first.system == "Be brief."
    assert first.ktp is not None
    assert (first.ktp.transfer, first.ktp.max_answer_tokens) == ("{answer}", 9)
    assert second.token_prices == TokenPrices(1, 2)
    assert second.ktp is TEMPLATES["paper"]
    assert second.model.reasoning == ("[", "]")  # type: ignore[attr-defined]
    assert third.ktp is TEMPLATES["none"]
    assert (pool.settings.max_steps, pool.settings.repeat_experts) == (3, True)
    assert pool.settings.ktp is TEMPLATES["default_all"]
    lines: list[str] = []
    pool.preload(lines.append)
    assert lines == ["loading tiny (1 of 3)", "loading again (2 of 3)", "loading r (3 of 3)"]
    answers = [expert.ask([expert.prompt([], "Q?", [], TEMPLATES["none"])])[0] for expert in pool]
    assert answers[0]["output_tokens"] <= 3
    assert answers[2]["text"] == "a"


@pytest.mark.parametrize(("output", "warned"), [(0.6, False), (0.0006, True), (0.0, False)])
def test_check_pool_doubts_prices_of_less_than_a_million_tokens(
    tiny: Path, output: float, warned: bool
) -> None:
    path = pool_file(
        tiny,
        "experts: [{name: a, backend: huggingface, model: experts/tiny, cost: 0.01, "
        f"token_prices: {{input: 0.1, output: {output}}}}}]\nsettings: {{cost_unit: usd}}\n",
    )
    lines = [line for line in check_pool(path) if line.startswith("warning: a: token_prices")]
    assert bool(lines) == warned
    if warned:
        assert "0.0006" in lines[0]


def test_check_pool_has_a_line_for_each_expert(tiny: Path) -> None:
    lines = check_pool(pool_file(tiny, FULL))
    assert len(lines) == 3
    assert lines[0].startswith("tiny   huggingface")
    assert str(tiny / "experts" / "tiny") in lines[0]
    assert "B parameters, cost" in lines[0]
    assert "cost at most 0.5" in lines[1]
    assert "r in " in lines[2]


def test_fingerprints_follow_what_answers_depend_on(tiny: Path) -> None:
    one = load_pool(pool_file(tiny, FULL)).fingerprint
    assert load_pool(pool_file(tiny, FULL)).fingerprint == one
    assert load_pool(pool_file(tiny, FULL.replace("Be brief.", "Be long."))).fingerprint != one
    assert (
        load_pool(
            pool_file(tiny, FULL.replace("max_new_tokens: 3", "max_new_tokens: 4"))
        ).fingerprint
        != one
    )
    assert load_pool(pool_file(tiny, FULL.replace("ktp: paper", "ktp: default"))).fingerprint != one
    assert load_pool(pool_file(tiny, FULL.replace("cost: 2", "cost: 3"))).fingerprint == one


HF = "experts: [{name: a, backend: huggingface, model: experts/tiny"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the pool file is empty"),
        ("a: [", "not YAML"),
        ("- a", "a pool file is a mapping"),
        ("experts: []", "there are no experts"),
        ("settings: {}", "field 'experts' is missing"),
        ("experts: [a]", "expert number 1: an expert is a mapping"),
        ("experts: [{name: a}]", "expert 'a': field 'backend' is missing; allowed: huggingface"),
        (
            "experts: [{name: a, backend: hugingface}]",
            "unknown backend 'hugingface'; did you mean 'huggingface'",
        ),
        ("experts: [{backend: huggingface, model: x}]", "expert number 1: field 'name' is missing"),
        (HF + ", devise: cpu}]", "expert 'a': unknown field 'devise'; did you mean 'device'"),
        (HF + ", dtype: int8}]", "dtype is 'int8'; allowed: .*float32"),
        (HF + ", cost: -1}]", "expert 'a': cost is -1"),
        (HF + ", cost: cheap}]", "cost is 'cheap'"),
        (
            HF + ", generation: {max_tokns: 1}}]",
            "expert 'a': .*unknown generation setting 'max_tokns'",
        ),
        (HF + ", prompt_format: '{txt}'}]", r"unknown field \{txt\}"),
        (HF + ", ktp: papr}]", "expert 'a': ktp 'papr' is unknown; choose one of: default"),
        (HF + ", ktp: {transfer: '{x}'}}]", r"unknown field \{x\}"),
        (
            HF + ", ktp: {transfr: '{answer}'}}]",
            "unknown field|field 'ktp.transfer' is missing|ktp",
        ),
        (HF + ", adapter: nothing}]", "adapter '.*nothing': there is no such folder"),
        (
            HF + "}, {name: a, backend: huggingface, model: experts/tiny}]",
            "two experts are named 'a'",
        ),
        (HF.replace("name: a", "name: 'a:b'") + "}]", "'a:b': a name is not empty and has no"),
        (HF.replace("name: a", "name: END") + "}]", "reserved"),
        (HF.replace("name: a", "name: __interrupt__") + "}]", "reserved"),
        (HF.replace("name: a", 'name: "a\\u00a0b"') + "}]", "try 'a-b'"),
        (HF.replace("name: a", 'name: "a\\e[31m"') + "}]", "characters that cannot be seen"),
        (HF + "}]\nexperts: []", "line 2: field 'experts' is there twice; remove one of them"),
        (HF + ", cost: 1, cost: 2}]", "line 1: field 'cost' is there twice"),
        ("experts: !!set {a, b}", "line 1: values of type !!set are not allowed"),
        (
            HF.replace("tiny", "gone") + "}]",
            "expert 'a': model 'experts/gone': there is no such folder",
        ),
        (HF.replace("experts/tiny", "./gone") + "}]", "no such folder"),
        (HF.replace("experts/tiny", "gone.gguf") + "}]", "no such GGUF file"),
        (HF.replace("experts/tiny", "org/name") + "}]", "cost is missing"),
        (HF + "}]\nsettings: {cost_unit: usd}", "cost is missing"),
        (HF + "}]\nsettings: {cost_unit: eur}", "settings: cost_unit is 'eur'; allowed"),
        (HF + "}]\nsettings: {max_steps: 0}", "settings: max_steps is 0"),
        (
            HF + "}]\nsettings: {max_steps: true}",
            "max_steps is 'True': input should be a valid integer",
        ),
        (HF + ", cost: yes}]", "expert 'a': cost is 'True': input should be a valid number"),
        (HF + ", cost: 1, skill: {de: true}}]", "expert 'a': skill.* is {'de': 'True'}"),
        (HF + ", timeout: off}]", "expert 'a': timeout is 'False': input should be a valid number"),
        (
            HF + ", token_prices: {input: .inf, output: 1}}]",
            "expert 'a': token_prices.input is inf: input should be a finite number",
        ),
        (
            HF + "}]\nsettings: {maxsteps: 1}",
            "settings: unknown field 'maxsteps'; did you mean 'max_steps'",
        ),
        (HF + "}]\nexprts: 1", "unknown field 'exprts'; did you mean 'experts'"),
        (
            "experts: [{name: r, backend: recorded, data: gone.jsonl, cost: 1}]",
            "data 'gone.jsonl': there is no",
        ),
        ("experts: [{name: r, backend: recorded, data: rows.jsonl}]", "cost is missing"),
        (
            "experts: [{name: l, backend: langchain, model: 'x:y', cost: 1, "
            "settings: {api_key: '${DER_NO_KEY}'}}]",
            "expert 'l': .*environment variable DER_NO_KEY is not set",
        ),
    ],
)
def test_faults_are_named_in_one_line(tiny: Path, text: str, says: str) -> None:
    path = pool_file(tiny, text)
    with pytest.raises(PoolError, match=says) as caught:
        load_pool(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_field_without_a_value_is_left_out(tiny: Path) -> None:
    """As where all that stood below it is commented out."""
    entry = "{name: a, backend: huggingface, model: experts/tiny, cost: 1, generation: , system: }"
    for end in ("settings:", "settings:\n  max_steps:"):
        pool = load_pool(pool_file(tiny, f"experts:\n- {entry}\n{end}\n"))
        assert (pool.names, pool.settings.max_steps) == (("a",), 4)
    for text in (f"experts:\n- {entry}\nsetings:\n", f"experts:\n- {entry[:-1]}, genaration: }}\n"):
        with pytest.raises(PoolError, match="did you mean"):
            load_pool(pool_file(tiny, text))


def test_what_experts_share_may_stand_beside_them(tiny: Path) -> None:
    text = (
        "x-small: &small {backend: huggingface, model: experts/tiny, cost: 1}\n"
        "experts: [{<<: *small, name: a}, {<<: *small, name: b, cost: 2}]\n"
    )
    assert [(each.name, each.cost) for each in load_pool(pool_file(tiny, text))] == [
        ("a", 1.0),
        ("b", 2.0),
    ]


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match="there is no such pool file"):
        load_pool(tmp_path / "none.yaml")
    with pytest.raises(PoolError, match="no such pool file"):
        load_pool(tmp_path)
    (tmp_path / "pool.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PoolError, match="cannot be read"):
        load_pool(tmp_path)


def test_environment_variables_are_expanded(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DER_TEST_FOLDER", "experts")
    for written in ("${DER_TEST_FOLDER}", "${DER_TEST_FOLDER:-other}", "${DER_TEST_NONE:-experts}"):
        text = HF.replace("experts/tiny", f"'{written}/tiny'") + "}]"
        model: Any = load_pool(pool_file(tiny, text))["a"].model
        assert model.model == str(tiny / "experts" / "tiny")


def test_pools_in_python() -> None:
    experts = [scripted_expert(name, "x")[0] for name in ("a", "b")]
    pool = pool_from(experts, max_steps=2, ktp="paper")
    assert pool["b"] is experts[1]
    assert pool.settings.ktp is TEMPLATES["paper"]
    with pytest.raises(UnknownExpertError, match="there is no expert 'c'; the pool has: a, b"):
        pool["c"]
    with pytest.raises(PoolError, match="no experts"):
        Pool(())
    with pytest.raises(PoolError, match="two experts are named 'a'"):
        pool_from([experts[0], experts[0]])
    pool.preload()  # nothing to load


def test_preload_names_the_expert_that_fails(tiny: Path) -> None:
    text = "experts: [{name: r, backend: recorded, data: rows.jsonl, model: other, cost: 1}]"
    with pytest.raises(ExpertError, match=r"expert 'r': .*no answers of a model named 'other'"):
        load_pool(pool_file(tiny, text)).preload()


def test_loading_a_pool_loads_no_model(tiny: Path) -> None:
    path = pool_file(tiny, FULL)
    code = (
        "import sys; from der_graph.pool.pool import check_pool, load_pool\n"
        f"load_pool({str(path)!r}).fingerprint; check_pool({str(path)!r})\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_the_demo_pool_is_well_formed() -> None:
    from der_graph.pool.pool_file import read_pool_file

    path = pool_path("demo")
    content: Any = read_pool_file(path)
    assert [section.name for section in content.experts] == [
        "smollm2",
        "gemma",
        "translator",
        "calculator",
    ]
    if all((path.parent / "experts" / name).is_dir() for name in ("translator", "calculator")):
        assert load_pool().settings.max_steps == 3


def test_a_model_that_is_there_twice_is_said(tiny: Path) -> None:
    entry = "  - {{name: {0}, backend: huggingface, model: experts/tiny, cost: 1{1}}}\n"
    told = [
        ("a", ""),
        ("b", ", description: fast"),
        ("c", ", system: Be brief."),
        ("d", ", stop: [x]"),
    ]
    text = "experts:\n" + "".join(entry.format(*each) for each in told)
    lines = check_pool(pool_file(tiny, text))
    (warning,) = [line for line in lines if line.startswith("warning")]
    assert warning.startswith("warning: a and b are the same model with the same settings")
    assert not any("warning" in line for line in check_pool("demo"))
