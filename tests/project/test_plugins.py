"""Extensions of another package: the examples of docs/extending.md, installed and used."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes import an_answer
from toy import toy_examples, toy_experts

from der_graph.cli import main
from der_graph.data import Example
from der_graph.errors import AgentError, DataError, MetricError, PluginError, PoolError
from der_graph.nodes.ktp import ktp_template
from der_graph.plugins import KINDS, find_plugin, plugins
from der_graph.policies.evaluation import evaluate
from der_graph.policies.observation import (
    FeatureNames,
    ObservationConfig,
    Observer,
    SentenceEncoder,
    make_encoder,
)
from der_graph.policies.quality import get_metric
from der_graph.pool import load_pool
from der_graph.state import Situation


def install(folder: Path, name: str, code: str, entries: str) -> None:
    """What pip leaves of a package: a module, and its metadata."""
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    info = folder / f"{name}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(entries)


@pytest.fixture
def installed(tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    text = (repo_root / "docs" / "extending.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    (toml,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    entries = re.sub(r'\[project\.entry-points\."(.*)"\]', r"[\1]", toml).replace('"', "")
    install(tmp_path, "my_extensions", code, entries)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("my_extensions", None)


def situation(question: str) -> Situation:
    return Situation(question, [], [True, True, False])


@pytest.mark.usefixtures("installed")
def test_every_kind_has_its_example() -> None:
    assert {kind: len(plugins(kind)) for kind in KINDS} == dict.fromkeys(KINDS, 1)


def test_a_backend(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = installed / "pool.yaml"
    file.write_text(
        'experts:\n  - {name: parrot, backend: echo, cost: 1, prefix: "${WHO} said: ", ktp: review}\n'
    )
    monkeypatch.setenv("WHO", "Ann")
    (parrot,) = load_pool(file)
    prompt = parrot.prompt([], "Hello?", [], ktp_template("review"))
    assert parrot.ask([prompt])[0]["text"] == "Ann said: Hello?"
    assert "Ann" not in str(parrot.fingerprint)
    file.write_text("experts:\n  - {name: parrot, backend: echo, cost: 1, prefx: x}\n")
    with pytest.raises(
        PoolError, match=r"expert 'parrot': unknown field 'prefx'; did you mean 'prefix'"
    ):
        load_pool(file)
    file.write_text("experts:\n  - {name: parrot, backend: ecko, cost: 1}\n")
    with pytest.raises(
        PoolError, match=r"allowed: huggingface, vllm, langchain, recorded, python, echo"
    ):
        load_pool(file)


@pytest.mark.usefixtures("installed")
def test_a_metric_and_a_template() -> None:
    example = Example("1", "Why?", "x")
    answers = [an_answer(text="x" * 100), an_answer(text="x")]
    assert get_metric("brevity").score(answers, [example] * 2) == [0.0, 1.0]
    with pytest.raises(MetricError, match=r"metric 'brevity'.*argument"):
        get_metric("brevity", most=3)
    with pytest.raises(MetricError, match=r"choose one of: match, .*, brevity"):
        get_metric("brevityy")
    assert "<draft>" in ktp_template("review").transfer
    with pytest.raises(
        PoolError, match=r"choose one of: default, paper, default_all, none, review"
    ):
        ktp_template("revew")


@pytest.mark.usefixtures("installed")
def test_a_baseline_is_in_the_evaluation() -> None:
    from der_graph.policies.baselines import Random

    experts = toy_experts()
    agent = Random([e.name for e in experts], [e.cost for e in experts])
    found = evaluate(
        experts, agent, toy_examples(4), get_metric("match"), baselines=["dearest"], progress=False
    )
    assert [m.name for m in found.methods][-1] == "dearest"
    dearest = max(range(len(experts)), key=lambda i: experts[i].cost)
    # Where its answer counts for nothing END is masked, and the cheapest is asked after it.
    assert [e.experts[0] for e in found.episodes["dearest"]] == [dearest] * 4
    with pytest.raises(DataError, match=r"choose from: single, .*, oracle, dearest"):
        evaluate(experts, agent, toy_examples(1), get_metric("match"), baselines=["x"])


@pytest.mark.usefixtures("installed")
def test_an_encoder_and_a_feature() -> None:
    encoder = make_encoder("letters")
    vectors = encoder.encode(["aab", "baa", ""])
    assert vectors[0] == pytest.approx(vectors[1])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0)
    assert isinstance(make_encoder("org/model"), SentenceEncoder)
    names = FeatureNames(("step", "answered")).plus(["has_digits"])
    observer = Observer.fit(
        ObservationConfig(question_dims=1, answer_dims=0),
        ["a", "b"],
        [1.0, 2.0],
        encoder,
        questions=["one two", "three", "four five"],
        answers=[],
        qualities=np.array([[0, 1], [1, 0], [1, 1]], dtype=np.float32),
        features=names,
    )
    seen = observer.observe([situation("What is 2 + 2?"), situation("Why?")], [0.1, 0.1])
    assert seen[:, 2].tolist() == [1.0, 0.0]
    assert observer.context_size == 4
    with pytest.raises(
        AgentError, match=r"the feature 'has_numbers' is brought by no installed package"
    ):
        Observer(
            observer.config, ["a"], [1.0], encoder, observer.arrays, names.plus(["has_numbers"])
        )


@pytest.mark.usefixtures("installed")
def test_der_plugins_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins"]) == 0
    shown = capsys.readouterr().out
    assert (
        "backends (der_graph.pool.Backend)\n  der-graph: huggingface, vllm, langchain, recorded, python\n"
        in shown
    )
    assert "  echo: my_extensions:Echo (package my_extensions 1.2)\n" in shown


def test_what_cannot_be_used_says_why(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(
        installed,
        "broken",
        "import no_such_module\n",
        "[der_graph.metrics]\nbroken = broken:X\n[der_graph.ktp_templates]\nfive = math:pi\n"
        "[der_graph.features]\nhas_digits = broken:Other\n",
    )
    with pytest.raises(
        PluginError, match=r"metrics 'broken' .broken:X. cannot be imported.*no_such_module"
    ):
        get_metric("broken")
    with pytest.raises(PluginError, match=r"ktp_templates 'five' is 3\.14.*must be a KTPTemplate"):
        ktp_template("five")
    with pytest.raises(PluginError, match=r"two packages bring features 'has_digits'"):
        find_plugin("features", "has_digits")
    (installed / "broken-1.2.dist-info" / "entry_points.txt").write_text(
        "[der_graph.metrics]\nbroken = broken:X\n"
    )
    assert main(["plugins"]) == 2
    assert "  broken: CANNOT BE USED: metrics 'broken'" in capsys.readouterr().out


def test_own_names_always_mean_der_graphs_own(installed: Path) -> None:
    entries = "[der_graph.metrics]\nmatch = my_extensions:Brevity\n"
    install(installed, "greedy", "", entries)
    assert type(get_metric("match")).__name__ == "PairMetric"
