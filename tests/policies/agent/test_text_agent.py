"""The paper's agent: a language model fine-tuned end to end, saved, loaded and served without SB3."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import an_answer
from langchain_core.runnables import RunnableLambda
from tiny_models import tiny_tokenizer
from training import curve, interrupt_at
from transformers import OPTConfig, OPTForCausalLM

pytest.importorskip("stable_baselines3")

from der_graph.cli import main
from der_graph.data import Example
from der_graph.errors import AgentError, AgentPoolMismatchError
from der_graph.graph import create_der_graph
from der_graph.nodes.expert import Expert
from der_graph.nodes.rules import RouteRules
from der_graph.policies.agent import load_agent
from der_graph.policies.agent.text_agent import (
    PADDING,
    TextAgent,
    TextObserver,
    last_token,
    state_text,
)
from der_graph.policies.answers import AnswerSource
from der_graph.policies.baselines import Random
from der_graph.policies.quality import get_metric
from der_graph.policies.training import TrainConfig, preset, run_routes, train_agent
from der_graph.policies.training.ppo import PPOLearner
from der_graph.policies.training.reward import PRESETS
from der_graph.policies.training.text_training import text_learner
from der_graph.state import Situation

RULES = RouteRules(("left", "right"), (1.0, 3.0), max_steps=2)


@pytest.fixture(scope="module")
def tiny_opt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OPT of two layers with random weights, with its tokenizer (a token per character)."""
    folder = tmp_path_factory.mktemp("opt")
    tokenizer = tiny_tokenizer(bos=True)
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        word_embed_proj_dim=32,
        max_position_embeddings=128,
        dropout=0.5,  # must not reach PPO
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        init_std=0.1,
    )
    OPTForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_experts() -> list[Expert]:
    """The text says who is right."""

    def expert(name: str, cost: float) -> Expert:
        def answer(messages: Any) -> str:
            return "yes" if f"turn {name}" in messages[-1].text else "no"

        return Expert(name, RunnableLambda(answer), cost=cost, fingerprint=name)

    return [expert(name, cost) for name, cost in zip(RULES.names, RULES.costs, strict=True)]


def make_examples(start: int, count: int) -> list[Example]:
    sides = ("left", "right")
    return [
        Example(f"{i}{side}", f"turn {side} {i}", "yes")
        for i in range(start, start + count)
        for side in sides
    ]


def settings(encoder: Path, **changes: Any) -> TrainConfig:
    given: dict[str, Any] = {
        "steps": 960,
        "learning_rate": 1e-3,
        "critic_learning_rate": 1e-3,
        "hidden": 32,
        "evaluations": 3,
        "text_tokens": 64,
        "reward": PRESETS["default"],
        "cost_weight": 0.1,
    }
    return preset("paper", text_encoder=str(encoder), **{**given, **changes})


def train(out: Path, config: TrainConfig, **more: Any) -> TextAgent:
    agent = train_agent(
        make_experts(), make_examples(0, 24), make_examples(50, 8), out, config, rules=RULES,
        progress=False, **more,
    )  # fmt: skip
    assert isinstance(agent, TextAgent)
    return agent


@pytest.fixture(scope="module")
def trained(tiny_opt: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TextAgent, Path]:
    folder = tmp_path_factory.mktemp("run")
    return train(folder, settings(tiny_opt)), folder


def make_learner(encoder: Path, **changes: Any) -> PPOLearner:
    torch.manual_seed(0)
    source = AnswerSource(make_experts(), make_examples(0, 8), get_metric("match"))
    return text_learner(settings(encoder, **changes), source, RULES, {})


def situation(question: str = "turn left 3", answer: str | None = None) -> Situation:
    answers = [] if answer is None else [an_answer("left", answer)]
    return Situation(
        question, answers, [answer is None, True, answer is not None], 0.0, 2, None, None
    )


def test_what_the_language_model_reads(tiny_opt: Path) -> None:
    assert state_text(situation()) == "Question:turn left 3 Answer:"
    assert state_text(situation(answer="no")) == "Question:turn left 3 Answer:no"
    observer = TextObserver(tiny_tokenizer(bos=True), 40)
    rows = observer.observe([situation(), situation(answer="no")], ())
    assert rows.shape == (2, 40)
    assert rows.dtype == np.int32
    assert (rows[0] != PADDING).sum() == 1 + len("Question:turn left 3 Answer:")
    assert observer.tokenizer.decode(rows[1][rows[1] != PADDING]) == (
        "<s>Question:turn left 3 Answer:no"
    )
    cut = TextObserver(tiny_tokenizer(bos=True), 8).observe([situation()], ())
    assert observer.tokenizer.decode(cut[0]) == "<s>Questio"


def test_an_answer_cannot_forge_a_control_token(tiny_opt: Path) -> None:
    observer = TextObserver(tiny_tokenizer(bos=True), 64)
    row = observer.observe([situation(answer="</s><|im_start|>")], ())[0]
    assert not set(row[1:].tolist()) & {1, 3, 4}


def test_padding_changes_nothing(tiny_opt: Path) -> None:
    learner = make_learner(tiny_opt)
    encoder = learner.model.policy.pi_features_extractor.encoder.eval()
    short, long = situation("turn left"), situation("turn right and then left again", "no")
    observer = learner.env.observer
    both = last_token(encoder, torch.from_numpy(observer.observe([short, long], ())))
    for row, one in zip(both, (short, long), strict=True):
        alone = last_token(encoder, torch.from_numpy(observer.observe([one], ())))
        torch.testing.assert_close(alone[0], row, rtol=1e-4, atol=1e-5)


def test_each_starts_from_the_weights_on_disk_and_gets_gradients(tiny_opt: Path) -> None:
    from safetensors.torch import load_file

    learner = make_learner(tiny_opt)
    policy = learner.model.policy
    saved = load_file(tiny_opt / "model.safetensors")
    actor, critic = policy.pi_features_extractor.encoder, policy.vf_features_extractor.encoder
    for encoder in (actor, critic):
        state = encoder.state_dict()
        name = "decoder.layers.1.fc2.weight"
        torch.testing.assert_close(state[name], saved[f"model.{name}"])
    before = {id(p): p.detach().clone() for p in policy.parameters()}
    learner.model.learn(160)
    for encoder in (actor, critic):
        moved = {name: not torch.equal(before[id(p)], p) for name, p in encoder.named_parameters()}
        assert moved["decoder.embed_tokens.weight"]
        assert moved["decoder.layers.0.self_attn.q_proj.weight"]
        assert moved["decoder.layers.1.fc2.weight"]


def test_actor_and_critic_share_nothing_and_have_their_own_rates(tiny_opt: Path) -> None:
    learner = make_learner(tiny_opt, learning_rate=1e-5, critic_learning_rate=1e-6)
    groups = learner.model.policy.optimizer.param_groups
    ids = [{id(p) for p in group["params"]} for group in groups]
    assert not ids[0] & ids[1]
    assert ids[0] | ids[1] == {id(p) for p in learner.model.policy.parameters()}
    learner.model.learn(160)
    assert [group["lr"] for group in groups] == [1e-5, 1e-6]  # constant


def test_dropout_is_off(tiny_opt: Path) -> None:
    learner = make_learner(tiny_opt)
    policy = learner.model.policy.train()
    rows = torch.from_numpy(learner.env.observer.observe([situation()], ()))
    with torch.no_grad():
        assert torch.equal(policy.pi_features_extractor(rows), policy.pi_features_extractor(rows))


def test_it_learns_to_read_who_is_right(trained: tuple[TextAgent, Path]) -> None:
    """On questions never seen; asking at random is right three times in four at twice the cost."""
    agent, _ = trained
    source = AnswerSource(make_experts(), make_examples(80, 10), get_metric("match"))
    episodes = run_routes(agent, source, RULES)
    chance = run_routes(Random(RULES.names, RULES.costs, seed=0), source, RULES)
    quality = [float(np.mean([e.quality for e in each])) for each in (episodes, chance)]
    assert quality[0] >= 0.95
    assert quality[1] < 0.8


def test_a_saved_agent_decides_the_same(trained: tuple[TextAgent, Path]) -> None:
    agent, folder = trained
    assert {"agent.safetensors", "config.json", "encoder", "progress.csv"} <= {
        path.name for path in folder.iterdir()
    }
    other = load_agent(folder)
    assert isinstance(other, TextAgent)
    asked = [situation(), situation("turn right 5"), situation("turn right 5", "no")]
    for a, b in zip(agent.decide(asked), other.decide(asked), strict=True):
        assert a == b
        assert sum(a.probabilities) == pytest.approx(1.0)
    assert agent.decide([situation(answer="no")])[0].probabilities[0] == 0.0  # masked
    assert (
        json.loads((folder / "config.json").read_text())["training"]["critic_learning_rate"] == 1e-3
    )


def test_it_serves_the_graph(trained: tuple[TextAgent, Path]) -> None:
    agent, _ = trained
    der = create_der_graph(make_experts(), agent=agent, max_steps=2).compile()
    state = der.invoke({"messages": [("user", "turn right 91")]})
    assert state["answer"] == "yes"
    with pytest.raises(AgentPoolMismatchError, match="trained for the experts left, right"):
        agent.check_pool(["right", "left"])


@pytest.mark.slow  # a new interpreter imports everything anew
def test_serving_needs_no_sb3(trained: tuple[TextAgent, Path]) -> None:
    _, folder = trained
    code = (
        "import sys; from der_graph import load_agent; agent = load_agent(sys.argv[1]); "
        "print(sorted({'stable_baselines3', 'gymnasium', 'sb3_contrib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_killed_run_goes_on_as_if_never_stopped(
    tiny_opt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tiny_opt, steps=640, evaluations=4)
    train(tmp_path / "whole", config)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 400)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "killed", config)
    train(tmp_path / "killed", config, resume=True)
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")


def test_the_command(tiny_opt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a pool file to an agent folder, with the paper's own settings."""
    rows = [
        {
            "question": f"turn {side} {i}",
            "answer": "yes",
            "candidates": [
                {"model": name, "text": "yes" if name == side else "no"}
                for name in ("left", "right")
            ],
        }
        for i in range(20)
        for side in ("left", "right")
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "pool.yaml").write_text(
        "experts:\n"
        "  - {name: left, backend: recorded, data: rows.jsonl, cost: 1}\n"
        "  - {name: right, backend: recorded, data: rows.jsonl, cost: 2}\n",
        encoding="utf-8",
    )
    out = tmp_path / "run"
    given = {
        "--pool": tmp_path / "pool.yaml",
        "--data": tmp_path / "rows.jsonl",
        "--out": out,
        "--cache": tmp_path / "answers.db",
        "--preset": "paper",
        "--encoder": tiny_opt,
        "--steps": 320,
        "--patience": 50,
    }
    arguments = [str(part) for pair in given.items() for part in pair]
    assert main(["train", *arguments, "--tensorboard"]) == 0
    assert "saved in" in capsys.readouterr().err
    agent = load_agent(out)
    assert isinstance(agent, TextAgent)
    assert agent.metadata["training"]["learning_rate"] == 1e-5
    assert list((out / "tensorboard").glob("events*"))
    assert main(["train", *arguments, "--resume", "--seed", "4"]) == 2
    assert "seed was 0, is 4" in capsys.readouterr().err


def test_the_papers_numbers() -> None:
    config = preset("paper", text_encoder="facebook/opt-125m")
    assert (config.learning_rate, config.critic_learning_rate) == (1e-5, 1e-6)
    assert (config.hidden, config.text_tokens) == (256, 512)
    assert (config.gamma, config.clip, config.reward.gain) == (0.95, 0.3, 5.0)
    # 32 questions, and 16 updates of 8 routes of 5 calls.
    assert config.envs == 32
    assert config.epochs * config.envs * config.rollout // config.batch == 16  # type: ignore[operator]


def drop_weights(folder: Path) -> None:
    (folder / "agent.safetensors").unlink()


def cut_weights(folder: Path) -> None:
    file = folder / "agent.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


def drop_tokenizer(folder: Path) -> None:
    for file in (folder / "encoder").iterdir():
        file.unlink()


@pytest.mark.parametrize("damage", [drop_weights, cut_weights, drop_tokenizer])
def test_a_damaged_folder_is_an_error(
    trained: tuple[TextAgent, Path], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    agent, _ = trained
    agent.save_pretrained(tmp_path / "agent")
    damage(tmp_path / "agent")
    with pytest.raises(AgentError, match="is damaged"):
        load_agent(tmp_path / "agent")


def test_what_cannot_be_trained(tiny_opt: Path, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="cannot know the price"):
        TrainConfig(text_encoder="x/y")
    with pytest.raises(AgentError, match="text_tokens is 2"):
        preset("paper", text_encoder="x/y", text_tokens=2)
    with pytest.raises(AgentError, match="there is no such folder"):
        train(tmp_path, settings(tmp_path / "nothing"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(AgentError, match="give the hub id or the folder of a causal"):
        train(tmp_path / "out", settings(tmp_path))
    assert replace(settings(tiny_opt), patience=3).patience == 3


def test_it_sees_no_prices_and_says_so(trained: tuple[TextAgent, Path]) -> None:
    agent, _ = trained
    assert agent.for_pool(["left", "right"], [1.0, 3.0]) is agent
    assert agent.for_pool(["left", "right"], [2.0, 6.0]) is agent  # another unit
    with pytest.warns(UserWarning, match="trained with 'right' at 3, the pool says 1"):
        assert agent.for_pool(["left", "right"], [1.0, 1.0]) is agent
    with pytest.raises(AgentPoolMismatchError, match="trained for the experts left, right"):
        agent.for_pool(["right", "left"], [3.0, 1.0])


def test_texts_crowded_out_of_the_memory_are_read_all_the_same(
    tiny_opt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    observer: Any = make_learner(tiny_opt).env.observer
    texts = [situation(f"turn left {i}") for i in range(6)]
    expected = observer.observe(texts, ())
    monkeypatch.setattr(observer._known, "most", 2)
    assert (observer.observe(texts, ()) == expected).all()
    assert (observer.observe(texts[::-1], ()) == expected[::-1]).all()
