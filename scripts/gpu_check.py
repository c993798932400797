"""What der-graph does on this machine's GPU: correctness first, then figures. Started by gpu_check.sh.

    part ──run──> figures ──after every part──> OUT/gpu.json, OUT/gpu.md

Parts that no time is left for are left out and named. Random weights answer with random words, at the speed
of real ones.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import statistics
import string
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import transformers
from langchain_core.messages import HumanMessage
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from der_graph.errors import DERError
from der_graph.nodes.batching import expected_calls
from der_graph.nodes.expert import Expert
from der_graph.nodes.huggingface import HuggingFaceChat
from der_graph.nodes.huggingface.generation import Request
from der_graph.nodes.huggingface.memory import kv_bytes_per_token

SECONDS = 500  # for all parts; under nine minutes with what comes before
LATE = 20  # seconds after which a part that hangs ends the program, which shows where it hung

# Layers, hidden size, heads, heads of keys and values, size of the MLP, vocabulary.
SIZES = {
    "0.13B": (30, 576, 9, 3, 1536, 49_152),
    "1.5B": (28, 1536, 12, 2, 8960, 151_936),
    "7B": (28, 3584, 28, 4, 18_944, 152_064),
}
TINY = {"tiny": (2, 32, 4, 2, 64, 512)}
PROMPT, ANSWER = 120, 128  # tokens


class Check:
    """The parts, what they found, and the time that is left."""

    def __init__(self, out: Path, *, tiny: bool) -> None:
        self.out, self.tiny = out, tiny
        self.start = time.monotonic()
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.sizes = TINY if tiny else SIZES
        self.flights = (1, 2, 4) if tiny else (1, 8, 32, 128)
        self.answer = 6 if tiny else ANSWER
        self.found: dict[str, Any] = {}
        out.mkdir(parents=True, exist_ok=True)

    def left(self) -> float:
        """Seconds until the end."""
        return SECONDS - (time.monotonic() - self.start)

    def part(self, name: str, work: Callable[[], Any], needs: float) -> None:
        """Run a part if there is time; an error is a finding, and the others go on."""
        if self.left() < needs:
            self.found[name] = {"left_out": f"{self.left():.0f} s left, {needs:.0f} s needed"}
        else:
            began = time.monotonic()
            try:
                self.found[name] = work()
            except Exception as error:
                self.found[name] = {"error": f"{type(error).__name__}: {error}"[:500]}
            self._free()
            print(f"{name}: {self.found[name]} ({time.monotonic() - began:.0f} s)", flush=True)
        (self.out / "gpu.json").write_text(json.dumps(self.found, indent=1) + "\n", "utf-8")
        (self.out / "gpu.md").write_text(page(self.found), "utf-8")

    def _free(self) -> None:
        import gc

        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    # Models -----------------------------------------------------------------------------------------------

    def pipeline(self, size: str, *, seed: int = 0, dtype: Any = None) -> Any:
        """A model of a size with random weights, on the device."""
        layers, hidden, heads, shared, inner, words = self.sizes[size]
        config = transformers.LlamaConfig(
            vocab_size=words,
            hidden_size=hidden,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=shared,
            max_position_embeddings=2048,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
            tie_word_embeddings=False,
        )
        torch.manual_seed(seed)
        if dtype is None:
            dtype = torch.bfloat16 if self.device == "cuda" else torch.float32
        with torch.device(self.device):
            model: Any = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
        return transformers.pipeline(
            "text-generation", model=model.eval(), tokenizer=word_tokenizer(words)
        )

    def chat(self, pipeline: Any, batching: str, number: int = 32) -> HuggingFaceChat:
        """A model in static or in continuous batches."""
        return HuggingFaceChat(
            pipeline=pipeline,
            batching=batching,
            max_batch_size=number,
            generation={"max_new_tokens": self.answer},
            kv_cache_gb=0.01 if self.tiny else None,
        )

    def prompts(self, number: int) -> list[str]:
        """Prompts that differ from their first word on, so that none shares pages with another."""
        return [f"{i} " + "q" * (20 if self.tiny else PROMPT) for i in range(number)]

    # Parts ------------------------------------------------------------------------------------------------

    def card(self) -> dict[str, Any]:
        """What is measured on, and how fast its memory is."""
        found: dict[str, Any] = {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }
        if self.device == "cpu":
            return {**found, "name": "CPU, no figure of a GPU", "bandwidth_gb_s": None}
        total = torch.cuda.get_device_properties(0).total_memory
        source = torch.empty(2 << 30, dtype=torch.uint8, device="cuda")
        target = torch.empty_like(source)
        target.copy_(source)
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(10):
            target.copy_(source)
        torch.cuda.synchronize()
        speed = 10 * 2 * source.numel() / (time.perf_counter() - began) / 1e9
        return {
            **found,
            "name": torch.cuda.get_device_name(0),
            "memory_gb": round(total / 1e9, 1),
            "bandwidth_gb_s": round(speed),
        }

    def tests(self) -> dict[str, Any]:
        """The tests that need a GPU, by pytest."""
        done = subprocess.run(
            # Without this project's own options, which name plugins that a bare machine lacks.
            [
                *(sys.executable, "-m", "pytest", "-q", "-x", "-o", "filterwarnings=default"),
                *("-o", "addopts=--import-mode=importlib", "tests/nodes/huggingface/test_gpu.py"),
            ],
            capture_output=True,
            text=True,
            timeout=min(120, self.left()),
        )
        lines = done.stdout.strip().splitlines()
        if done.returncode:
            print(done.stdout[-4000:], done.stderr[-2000:], flush=True)
            return {"error": " ".join(lines[-1:] or done.stderr.strip().splitlines()[-1:])}
        return {"passed": lines[-1]}

    def equal(self) -> dict[str, Any]:
        """Shares of greedy answers that are those of single calls."""
        size, found = next(iter(self.sizes)), {}
        for dtype in (torch.float32, torch.bfloat16):
            pipeline = self.pipeline(size, dtype=dtype)
            static, joined = self.chat(pipeline, "static"), self.chat(pipeline, "continuous")
            questions = self.prompts(4 if self.tiny else 8)
            single = [static.invoke(question).content for question in questions]
            for name, chat in (("static", static), ("continuous", joined)):
                answers = [each.content for each in chat.batch(questions)]
                same = sum(a == b for a, b in zip(answers, single, strict=True)) / len(single)
                found[f"{name} {str(dtype).removeprefix('torch.')}"] = round(same, 3)
            stop(joined)
        return found

    def speed(self, size: str) -> dict[str, Any]:
        """Tokens a second and seconds to the first token, by requests in flight."""
        pipeline = self.pipeline(size)
        weights = sum(p.numel() * p.element_size() for p in pipeline.model.parameters())
        found: dict[str, Any] = {"weights_gb": round(weights / 1e9, 3)}
        most = max(self.flights)
        for batching in ("static", "continuous"):
            chat = self.chat(pipeline, batching, most)
            self._burst(chat, 2)  # warms up
            for number in self.flights:
                found[f"{batching} {number}"] = self._burst(chat, number)
            # The same arrivals for both: as many as come while a static batch of all would be answered.
            spread = found[f"static {most}"]["seconds"]
            found[f"{batching} {most} staggered"] = self._burst(chat, most, spread)
            if batching == "continuous":
                stop(chat)
        one = max(found[f"{kind} 1"]["tokens_per_s"] for kind in ("static", "continuous"))
        both = [
            found[f"{kind} {most} staggered"]["tokens_per_s"] for kind in ("continuous", "static")
        ]
        found["continuous_over_one_at_a_time"] = round(
            found[f"continuous {most}"]["tokens_per_s"] / one, 2
        )
        found["continuous_over_static_staggered"] = round(both[0] / both[1], 2)
        found |= self._of_limit(pipeline, one)
        if self.device == "cuda":
            found["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
            torch.cuda.reset_peak_memory_stats()
        each = kv_bytes_per_token(pipeline.model.config, pipeline.model.dtype.itemsize)
        found["kv_bytes_per_token"] = each
        return found

    def _of_limit(self, pipeline: Any, tokens_per_s: float) -> dict[str, float]:
        """One stream's share of what the memory allows: each token reads all weights but the embeddings."""
        bandwidth = self.found.get("card", {}).get("bandwidth_gb_s")
        if not bandwidth:
            return {}
        model = pipeline.model
        table = model.get_input_embeddings().weight
        read = sum(p.numel() * p.element_size() for p in model.parameters())
        read -= table.numel() * table.element_size()
        return {"share_of_bandwidth_limit": round(tokens_per_s * read / 1e9 / bandwidth, 3)}

    def _burst(self, chat: HuggingFaceChat, number: int, spread: float = 0.0) -> dict[str, float]:
        """Ask so many at once, or one after another over some seconds; the way of the server."""
        firsts: dict[int, float] = {}
        whole: list[float] = []
        futures: list[Future[Any]] = []
        settings = chat._settings(None, {})
        began = time.perf_counter()
        with expected_calls(1 if spread else number):
            for index, prompt in enumerate(self.prompts(number)):
                if spread:
                    time.sleep(spread / number)
                asked = time.perf_counter()

                def show(_: str, index: int = index, asked: float = asked) -> None:
                    firsts.setdefault(index, time.perf_counter() - asked)

                request = Request([HumanMessage(prompt)], settings, show=show)
                future = chat._queue.join(request, chat.answer_all, chat.max_batch_size)
                future.add_done_callback(
                    lambda _, asked=asked: whole.append(time.perf_counter() - asked)
                )
                futures.append(future)
        results = [future.result() for future in futures]
        seconds = time.perf_counter() - began
        tokens = sum(r.generations[0].message.usage_metadata["output_tokens"] for r in results)
        return {
            "tokens_per_s": round(tokens / seconds, 1),
            "first_token_s": round(statistics.median(firsts.values()), 4) if firsts else 0.0,
            "answer_s": round(statistics.median(whole), 3),
            "seconds": round(seconds, 3),
        }

    def routes(self) -> dict[str, Any]:
        """Routes of two experts: their time over the sum of the generations; and four experts at once."""
        from der_graph import create_der_graph
        from der_graph.policies.baselines import FixedOrder

        size = next(iter(self.sizes))
        chats = [self.chat(self.pipeline(size, seed=i), "auto", 8) for i in range(4)]
        experts = [Expert(f"expert{i}", chat, cost=1.0) for i, chat in enumerate(chats)]
        names = [expert.name for expert in experts]
        graph = create_der_graph(experts, agent=FixedOrder(names, [1.0] * 4, k=2)).compile()
        for chat in chats:
            chat.invoke("warm up")
        spent: list[float] = []
        for chat in chats:
            _timed(chat, spent)
        ratios = []
        for question in self.prompts(5):
            spent.clear()
            began = time.perf_counter()
            graph.invoke({"messages": [("user", question)]})
            ratios.append((time.perf_counter() - began) / sum(spent))
        began = time.perf_counter()
        for chat in chats:
            chat.batch(self.prompts(4))
        apart = time.perf_counter() - began
        began = time.perf_counter()
        settings = [(chat, chat._settings(None, {})) for chat in chats]
        futures = [
            chat._queue.join(Request([HumanMessage(p)], how), chat.answer_all, 8)
            for chat, how in settings
            for p in self.prompts(4)
        ]
        for future in futures:
            future.result()
        together = time.perf_counter() - began
        for chat in chats:
            stop(chat)
        return {
            "route_over_generations": round(statistics.median(ratios), 4),
            "four_experts_apart_s": round(apart, 3),
            "four_experts_at_once_s": round(together, 3),
        }

    def memory(self) -> dict[str, Any]:
        """Answers when the device has no room for all that is asked at once."""
        if self.device == "cpu":
            return {"left_out": "no GPU"}
        found = {}
        pipeline = self.pipeline("1.5B" if not self.tiny else "tiny")
        free, _ = torch.cuda.mem_get_info()
        hog = torch.empty(int(free - 1.2e9), dtype=torch.uint8, device="cuda")
        for batching in ("static", "continuous"):
            chat = self.chat(pipeline, batching, 128)
            answers = chat.batch(self.prompts(128), return_exceptions=True)
            good = sum(not isinstance(each, Exception) for each in answers)
            found[batching] = f"{good} of {len(answers)} answered"
            if batching == "continuous":
                stop(chat)
        del hog
        return found

    def decisions(self) -> dict[str, Any]:
        """Milliseconds of the demo's agent for a new question, its encoder on the CPU or the GPU.

        The encoder is a MiniLM of random weights: as fast as the real one, and the choice does not matter.
        """
        from der_graph.nodes.decision import Situation
        from der_graph.policies.agent import DERAgent
        from der_graph.policies.observation.encoder import SentenceEncoder

        words = 30_522
        config = transformers.BertConfig(
            vocab_size=words,
            hidden_size=384,
            intermediate_size=1536,
            num_hidden_layers=6,
            num_attention_heads=12,
        )
        found = {}
        for device in dict.fromkeys(("cpu", self.device)):
            encoder = SentenceEncoder(device=device)
            model: Any = transformers.BertModel(config).eval().to(device)
            encoder._loaded = (word_tokenizer(words), model)
            agent = DERAgent.from_pretrained(ROOT / "der_graph" / "demo" / "agent", encoder=encoder)
            mask = [*[True] * len(agent.names), False]
            for number in (1,) if self.tiny else (1, 32):
                times = []
                for turn in range(3 if self.tiny else 30):
                    texts = [f"How much is {turn} times {i} ({number})?" for i in range(number)]
                    asked = [Situation(text, mask=mask, max_steps=3) for text in texts]
                    began = time.perf_counter()
                    agent.decide(asked)
                    times.append(1000 * (time.perf_counter() - began))
                found[f"{device} {number}"] = round(statistics.median(times), 2)
        return found

    def demo(self) -> dict[str, Any]:
        """The demo's routes on this device, where its weights are installed."""
        from der_graph import create_der_graph, load_agent, load_pool

        try:
            pool = load_pool("demo")
            for expert in pool:
                expert.model.prepare()
            agent = load_agent("demo")
            graph = create_der_graph(pool, agent=agent).compile()
            graph.invoke({"messages": [("user", "What is 1 + 1?")]})  # loads them
        except (DERError, ImportError) as error:
            return {"left_out": str(error)[:200]}
        began = time.perf_counter()
        states = [graph.invoke({"messages": [("user", text)]}) for text, _ in DEMO]
        seconds = (time.perf_counter() - began) / len(DEMO)
        said = [state["messages"][-1].content for state in states]
        right = sum(answer in text for text, (_, answer) in zip(said, DEMO, strict=True))
        return {"right": f"{right} of {len(DEMO)}", "seconds_a_route": round(seconds, 3)}

    def compiled(self) -> dict[str, Any]:
        """One stream of the largest model with a static cache and compiled steps (transformers' own)."""
        if self.device == "cpu":
            return {"left_out": "no GPU"}
        pipeline = self.pipeline(list(self.sizes)[-1])
        ids = torch.randint(100, 1000, (1, PROMPT), device="cuda")

        def once() -> float:
            torch.cuda.synchronize()
            began = time.perf_counter()
            pipeline.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=ANSWER,
                min_new_tokens=ANSWER,
                do_sample=False,
                cache_implementation="static",
            )
            torch.cuda.synchronize()
            return ANSWER / (time.perf_counter() - began)

        once()
        best = max(once(), once())
        return {"tokens_per_s": round(best, 1), **self._of_limit(pipeline, best)}


ROOT = Path(__file__).parent.parent
DEMO = (
    ("What is 37 * 48?", "1776"),
    ("What is 12 + 30?", "42"),
    (
        "A library has 12 shelves with 35 books each. 48 books are lent out. How many books are in the "
        "library now?",
        "372",
    ),
    ("What is the plural of mouse?", "mice"),
)


def _timed(chat: HuggingFaceChat, spent: list[float]) -> None:
    """Note how long a model takes for what it is asked, from the call to the last token."""
    answerer = chat._answerer()
    begin_all = answerer.begin_all

    def timed(requests: Sequence[Request], cancel: Any = None) -> Any:
        began = time.perf_counter()
        results = begin_all(requests, cancel)
        for each in results:
            if isinstance(each, Future):
                each.add_done_callback(lambda _: spent.append(time.perf_counter() - began))
        if not any(isinstance(each, Future) for each in results):
            spent.append(time.perf_counter() - began)
        return results

    object.__setattr__(answerer, "begin_all", timed)


def stop(chat: HuggingFaceChat) -> None:
    """Give the cache of keys and values back at once."""
    engine = chat._answerer().engine
    if engine is not None:
        engine._idle = 0.01
        chat.invoke("end", max_new_tokens=1)
        until = time.monotonic() + 30
        while engine._serving and time.monotonic() < until:
            time.sleep(0.01)


def word_tokenizer(words: int) -> Any:
    """Characters in, words out: every id of a large vocabulary has a text."""
    special = ("<pad>", "<s>", "</s>")
    known = [*special, *sorted(string.printable)]
    known += [f"w{i}" for i in range(len(known), words)]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="</s>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.decoder = decoders.Fuse()
    core.add_special_tokens(list(special))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def page(found: dict[str, Any]) -> str:
    """The findings as a table of Markdown; `docs/results.md` takes it in."""
    card = found.get("card", {})
    lines = [f"Measured on: {card.get('name', '?')}, torch {card.get('torch', '?')}.", ""]
    speeds = {key[6:]: value for key, value in found.items() if key.startswith("speed ")}
    if any("error" not in each and "left_out" not in each for each in speeds.values()):
        lines += ["| model | batches | in flight | tokens/s | first token, s | whole answer, s |"]
        lines += ["|---|---|---|---|---|---|"]
    for size, each in speeds.items():
        for key, value in each.items():
            if isinstance(value, dict):
                kind, number = key.split(" ", 1)
                lines.append(
                    f"| {size} | {kind} | {number} | {value['tokens_per_s']:g} | "
                    f"{value['first_token_s']:g} | {value['answer_s']:g} |"
                )
    lines += ["", "| what | found |", "|---|---|"]
    for key, value in found.items():
        flat = {k: v for k, v in value.items() if not isinstance(v, dict)}
        lines += [f"| {key}: {name} | {each} |" for name, each in flat.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="der-graph on this machine's GPU.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true", help="tiny models: to see that it works")
    given = parser.parse_args()
    check = Check(given.out, tiny=given.tiny)
    if check.device == "cpu" and not given.tiny:
        raise SystemExit("no CUDA device here; --tiny runs the check with tiny models on the CPU")
    faulthandler.dump_traceback_later(SECONDS + LATE, exit=True)
    check.part("card", check.card, 5)
    if not given.tiny:
        check.part("tests", check.tests, 60)
    # What matters most comes first: the rest is left out where no time is left for it.
    largest, *others = reversed(check.sizes)
    check.part("equal", check.equal, 40)
    check.part(f"speed {largest}", lambda: check.speed(largest), 60)
    check.part("compiled", check.compiled, 90)
    check.part("routes", check.routes, 40)
    check.part("decisions", check.decisions, 10)
    check.part("memory", check.memory, 30)
    for size in others:
        check.part(f"speed {size}", lambda size=size: check.speed(size), 60)
    check.part("demo", check.demo, 30)
    faulthandler.cancel_dump_traceback_later()
    bad = [name for name, value in check.found.items() if "error" in value]
    if bad:
        raise SystemExit(f"failed: {', '.join(bad)}; see {given.out / 'gpu.json'}")


if __name__ == "__main__":
    main()
