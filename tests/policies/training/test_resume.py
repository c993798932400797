"""A training run that was stopped, by a person or a full disk, goes on as if it never was."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file
from toy import WordEncoder, toy_examples, toy_experts, toy_rules
from training import SMALL, curve, interrupt_at, train

pytest.importorskip("stable_baselines3")

from der_graph.errors import AgentError
from der_graph.policies.agent import DERAgent
from der_graph.policies.training import TrainConfig, train_agent

pytestmark = pytest.mark.usefixtures("short_lessons")


def test_a_killed_run_goes_on_as_if_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(SMALL, steps=4096, evaluations=8)
    whole = train(tmp_path / "whole", config)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2500)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "killed", config)
    resumed = train(tmp_path / "killed", config, resume=True)
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")
    for name, tensor in whole.network.state_dict().items():
        assert tensor.equal(resumed.network.state_dict()[name]), name


def test_a_run_killed_before_ppo_goes_on_with_the_next_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from der_graph.policies.training.routes.learner import TreeLearner

    config = replace(SMALL, steps=1024, evaluations=1, ensemble=3)
    whole = train(tmp_path / "whole", config)
    assert not (tmp_path / "whole" / "routes.pt").exists()
    learn = TreeLearner.learn
    taught: list[Any] = []

    def counted(self: TreeLearner, worth: Any, stopped: Any) -> None:
        taught.append(self)
        if len(taught) == 3:
            raise KeyboardInterrupt
        learn(self, worth, stopped)

    monkeypatch.setattr(TreeLearner, "learn", counted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", config)
    with pytest.raises(AgentError, match="seed was 0, is 1"):
        train(tmp_path / "killed", replace(config, seed=1), resume=True)
    lines: list[str] = []
    assert (tmp_path / "killed" / "routes.pt").is_file()
    resumed = train(tmp_path / "killed", config, resume=True, say=lines.append)
    assert "going on after 2 of 3 networks that learnt from routes" in lines
    assert len(taught) == 4  # the third network alone
    for name, tensor in whole.network.state_dict().items():
        assert tensor.equal(resumed.network.state_dict()[name]), name
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")
    # What another run left is not taken for this one's.
    (tmp_path / "whole" / "routes.pt").write_bytes(b"of before")
    taught[:] = [None, None]
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "whole", config)
    with pytest.raises(AgentError, match="nothing to resume"):
        train(tmp_path / "whole", config, resume=True)


@pytest.mark.parametrize(("seconds", "kept"), [(0.0, 2048), (1e6, 0)])
def test_checkpoints_between_evaluations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, kept: int
) -> None:
    """One that is old enough is replaced by the next update; the first is written before any."""
    config = replace(SMALL, steps=4096, evaluations=1)
    whole = train(tmp_path / "whole", config)
    monkeypatch.setattr("der_graph.policies.training.progress.SECONDS_A_CHECKPOINT", seconds)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2500)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "killed", config)
    lines: list[str] = []
    resumed = train(tmp_path / "killed", config, resume=True, say=lines.append)
    assert f"going on from step {kept:,}" in lines
    assert not any(line.startswith("learnt in") for line in lines)  # routes are not learnt again
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")
    for name, tensor in whole.network.state_dict().items():
        assert tensor.equal(resumed.network.state_dict()[name]), name


def test_more_steps_extend_a_finished_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on from its end, at the learning rate and with the evaluations of the longer run."""
    from der_graph.policies.training import ppo

    short, long = (replace(SMALL, steps=steps, evaluations=4) for steps in (1024, 3072))
    train(tmp_path / "whole", short)
    first = curve(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")

    rates: list[float] = []
    original = ppo._Linear.__call__

    def watched(self: Any, remaining: float) -> float:
        rates.append(original(self, remaining))
        return rates[-1]

    lines: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(ppo._Linear, "__call__", watched)
        extended = train(tmp_path / "whole", long, resume=True, say=lines.append)
    assert "going on from step 1,024" in lines
    ends = [1536, 2048, 2560, 3072]
    assert sorted(set(rates))[:4] == [
        pytest.approx(SMALL.learning_rate * (1 - step / 3072)) for step in reversed(ends)
    ]
    rows = curve(tmp_path / "whole")
    assert rows[:2] == first
    assert [row["time/steps"] for row in rows] == [str(step) for step in (512, 1024, *ends)]
    assert [bool(row["dev/utility"]) for row in rows[2:]] == [True, False, True, True]

    with monkeypatch.context() as patch:
        interrupt_at(patch, 2600)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "killed", long, resume=True)
    resumed = train(tmp_path / "killed", long, resume=True)
    assert curve(tmp_path / "killed") == rows
    for name, tensor in extended.network.state_dict().items():
        assert tensor.equal(resumed.network.state_dict()[name]), name


def test_resuming_a_finished_run_changes_nothing_and_says_what_would(tmp_path: Path) -> None:
    config = replace(SMALL, steps=1500)  # ends at 1,536, with the update
    train(tmp_path, config)
    before = (tmp_path / "agent.safetensors").read_bytes(), curve(tmp_path)
    lines: list[str] = []
    train(tmp_path, config, resume=True, say=lines.append)
    assert ((tmp_path / "agent.safetensors").read_bytes(), curve(tmp_path)) == before
    assert "the run had ended at step 1,536; more --steps extend it" in lines
    fewer = replace(config, steps=1000)
    with pytest.raises(AgentError, match=r"steps was 1500, is 1000.*steps may be more"):
        train(tmp_path, fewer, resume=True)


def test_an_agent_is_not_judged_by_what_it_was_not_taught(tmp_path: Path) -> None:
    """Other answers make other features of a question, with which the agent would seem to be worse."""
    config = replace(SMALL, steps=512, warm_start="routes")
    train(tmp_path, config)
    lines: list[str] = []
    train(tmp_path, config, resume=True, say=lines.append)
    assert not any("answers to the training questions have changed" in line for line in lines)
    file = tmp_path / "agent.safetensors"
    tensors = load_file(file)
    [axes] = [name for name in tensors if name.endswith("question_axes")]
    save_file({**tensors, axes: -tensors[axes]}, file)
    before = file.read_bytes(), (tmp_path / "config.json").read_bytes()
    train(tmp_path, config, resume=True, say=lines.append)
    assert any("answers to the training questions have changed" in line for line in lines)
    assert (file.read_bytes(), (tmp_path / "config.json").read_bytes()) == before


def test_more_steps_are_new_patience(tmp_path: Path) -> None:
    impatient = replace(SMALL, steps=4096, evaluations=8, patience=1, learning_rate=0.0)
    train(tmp_path, impatient)
    ended = int(curve(tmp_path)[-1]["time/steps"])
    assert ended < 4096
    train(tmp_path, replace(impatient, steps=8192), resume=True)
    assert int(curve(tmp_path)[-1]["time/steps"]) > ended


def test_the_learning_rate_ends_at_zero_and_not_below() -> None:
    from der_graph.policies.training.ppo import _Linear

    assert [_Linear(2.0)(left) for left in (1.0, 0.5, 0.0, -0.02)] == [2.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("warm_start", "step", "said"),
    [
        ("none", 100, "no checkpoint yet"),
        ("routes", 100, "--resume goes on from step 0"),
        ("none", 1500, "--resume goes on from step 1,024"),
    ],
)
def test_ctrl_c_says_the_way_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_start: Any, step: int, said: str
) -> None:
    interrupt_at(monkeypatch, step)
    lines: list[str] = []
    config = replace(SMALL, steps=2048, evaluations=2, warm_start=warm_start)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, config, say=lines.append)
    assert said in lines[-1]
    assert (tmp_path / "checkpoint.pt").exists() == ("goes on" in said)


def read_events(folder: Path) -> Any:
    """What TensorBoard would show."""
    module = "tensorboard.backend.event_processing.event_accumulator"
    events = pytest.importorskip(module).EventAccumulator(str(folder))
    events.Reload()
    return events


def test_tensorboard_has_the_keys_of_the_curve(tmp_path: Path) -> None:
    train(tmp_path, replace(SMALL, steps=2048, evaluations=2), tensorboard=tmp_path / "events")
    events = read_events(tmp_path / "events")
    rows = curve(tmp_path)
    for key in events.Tags()["scalars"]:
        expected = [(int(r["time/steps"]), float(r[key])) for r in rows if r.get(key)]
        found = [(event.step, event.value) for event in events.Scalars(key)]
        if key != "time/seconds":
            assert found == [(step, pytest.approx(value, rel=1e-5)) for step, value in expected]
    assert {"rollout/quality", "dev/utility", "route/share_facts", "train/approx_kl"} <= set(
        events.Tags()["scalars"]
    )


def test_a_resumed_tensorboard_has_each_step_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(SMALL, steps=3072, evaluations=3)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 1600)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, config, tensorboard=tmp_path / "events")
    train(tmp_path, config, resume=True, tensorboard=tmp_path / "events")
    events = read_events(tmp_path / "events")
    steps = [event.step for event in events.Scalars("rollout/quality")]
    assert steps == list(range(512, 3073, 512))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files may grow to so many bytes, as on a full disk; then there is room again, and the run goes on."""
    resource = pytest.importorskip("resource", reason="needs a limit on the size of files")
    from der_graph.policies.training.progress import TrainingProgress

    config = replace(SMALL, steps=4096, evaluations=8)
    whole = train(tmp_path / "whole", config)
    original = TrainingProgress._save_checkpoint
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def save(self: TrainingProgress) -> None:
        if self.model.num_timesteps == 2048:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingProgress, "_save_checkpoint", save)
        try:
            with pytest.raises(AgentError, match=r"checkpoint\.pt cannot be written .*--resume"):
                train(tmp_path / "full", config)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "full").glob("*.part"))
    resumed = train(tmp_path / "full", config, resume=True)
    assert curve(tmp_path / "full") == curve(tmp_path / "whole")
    for name, tensor in whole.network.state_dict().items():
        assert tensor.equal(resumed.network.state_dict()[name]), name


def test_a_row_cut_short_is_dropped(tmp_path: Path) -> None:
    from der_graph.policies.training.progress import drop_later_rows

    path = tmp_path / "progress.csv"
    path.write_text("time/steps,a,b\n512,1,2\n1024,3,4\n1536,5,6\n10", encoding="utf-8")
    drop_later_rows(path, 1024)
    assert path.read_text(encoding="utf-8").splitlines() == [
        "time/steps,a,b",
        "512,1,2",
        "1024,3,4",
    ]


def test_resuming_something_else(tmp_path: Path) -> None:
    experts, config = toy_experts(), replace(SMALL, steps=1024)
    given: dict[str, Any] = {
        "experts": experts,
        "examples": toy_examples(60, seed=1),
        "dev": toy_examples(20, seed=2),
        "rules": toy_rules(experts),
        "metric": "match",
        "ktp": "default",
    }

    def run(resume: bool, **other: Any) -> None:
        train_agent(
            out=tmp_path, config=config, encoder=WordEncoder(), progress=False, resume=resume,
            **{**given, **other},
        )  # fmt: skip

    run(False)
    changes: dict[str, dict[str, Any]] = {
        "the training questions": {"examples": toy_examples(60, seed=7)},
        "the dev questions": {"dev": toy_examples(20, seed=7)},
        "the metric": {"metric": "exact"},
        "the Knowledge Transfer Prompt": {"ktp": "paper"},
        "the rules of a route": {"rules": toy_rules(experts, max_steps=2)},
        "the experts": {"experts": [replace(experts[0], fingerprint="new"), *experts[1:]]},
    }
    for what, change in changes.items():
        with pytest.raises(AgentError, match=rf"other settings \({what} changed\)"):
            run(True, **change)
    run(True)


def test_a_run_goes_on_where_calls_cost_what_they_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(SMALL, steps=1024, cost_weight_range=TrainConfig().cost_weight_range)
    experts = [replace(each, second_price=1e-3) for each in toy_experts()]
    for resume in (False, True):
        agent = train_agent(
            experts, toy_examples(60, seed=1), toy_examples(20, seed=2), tmp_path, config,
            rules=toy_rules(experts), encoder=WordEncoder(), progress=False, resume=resume,
        )  # fmt: skip
        assert isinstance(agent, DERAgent)
        assert agent.cost_weight_range[1] == pytest.approx(18, rel=0.2)
        # As of slower calls.
        monkeypatch.setattr("der_graph.policies.training.preflight._BEYOND", 2.4)


def test_resuming_what_cannot_be_resumed(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(AgentError, match="nothing to resume"):
        train(tmp_path, replace(SMALL, steps=1024), resume=True, say=lines.append)
    assert not any("first answers" in line for line in lines)
    train(tmp_path, replace(SMALL, steps=1024))
    with pytest.raises(AgentError, match="seed was 0, is 5"):
        train(tmp_path, replace(SMALL, steps=1024, seed=5), resume=True)
    (tmp_path / "checkpoint.pt").write_bytes(b"half a file")
    with pytest.raises(AgentError, match="damaged"):
        train(tmp_path, replace(SMALL, steps=1024), resume=True)


def test_a_new_run_does_not_go_on_in_the_files_of_an_older_one(tmp_path: Path) -> None:
    short = replace(SMALL, steps=2048)
    train(tmp_path / "once", short)
    train(tmp_path / "twice", replace(short, seed=3))
    train(tmp_path / "twice", short)
    assert curve(tmp_path / "twice") == curve(tmp_path / "once")
