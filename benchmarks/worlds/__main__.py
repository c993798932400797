"""Worlds whose best policy is known: how much of it does `der train` find with its defaults?

    python -m benchmarks.worlds [--worlds pipeline liars random-17] [--seeds 3] [--prices 0.05,0.2,0.6,1.5]
                                [--questions 600] [--out runs/worlds] [--jobs 1]

Trains DER on each world and seed and sets it beside every baseline and the exact optimum, on 1,500 test
questions. Writes results.json, worlds.md and worlds.png. Results that are there already are not measured
again, so a run that was stopped goes on; a new --out, or an empty one, measures anew.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from .measure import TEST_QUESTIONS, Result, measure
from .pools import WORLDS, world_of
from .report import draw, table


def prices(text: str) -> list[float]:
    """Read a list of prices."""
    return [float(part) for part in text.split(",")]


def known(name: str) -> str:
    """Check the name of a world."""
    try:
        return world_of(name).name
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.worlds", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--worlds", nargs="+", type=known, default=list(WORLDS), metavar="W",
        help="by name; random-SEED is a pool that is drawn; default: all that have a name",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each world")
    parser.add_argument("--first-seed", type=int, default=0, help="of these trainings")
    parser.add_argument("--prices", type=prices, default=[0.05, 0.2, 0.6, 1.5], metavar="P,P,...")
    parser.add_argument("--questions", type=int, default=600, help="for training")
    parser.add_argument("--tests", type=int, default=TEST_QUESTIONS, help="test questions")
    parser.add_argument(
        "--chat", action="store_true", help="experts are chat models: training tries few routes"
    )
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    parser.add_argument("--out", type=Path, default=Path("runs/worlds"), help="folder")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "results.json"
    asked = {"questions": args.questions, "tests": args.tests, "chat": args.chat}
    stored: list[Result] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    done = {
        (each["world"], each["seed"]): each
        for each in stored
        if asked.items() <= {"chat": False, **each}.items()
        and list(each["prices"]) == [f"{p:g}" for p in args.prices]
    }
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    wanted = [(world, seed) for seed in seeds for world in args.worlds]
    missing = [key for key in wanted if key not in done]
    start = time.perf_counter()
    say(f"{len(missing)} trainings to go, {len(wanted) - len(missing)} are there")
    # A process each, so that all trainings begin alike.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.jobs, mp_context=context, max_tasks_per_child=1) as workers:
        futures = {
            workers.submit(measure, *key, args.questions, args.prices, args.tests, args.chat): key
            for key in missing
        }
        for number, future in enumerate(as_completed(futures), 1):
            result = done[futures[future]] = future.result()
            write(path, json.dumps([done[key] for key in sorted(done)], indent=1) + "\n")
            shares = ", ".join(f"{row['DER']['share']:.3f}" for row in result["prices"].values())
            left = (time.perf_counter() - start) / number * (len(missing) - number)
            say(
                f"{number}/{len(missing)} {result['world']} seed {result['seed']}: share {shares}, "
                f"trained in {result['train_seconds']:.0f} s, about {left / 60:.0f} min left"
            )
    results = [done[key] for key in sorted(wanted, key=lambda key: args.worlds.index(key[0]))]
    write(args.out / "worlds.md", table(results))
    draw(results, args.out)
    print(table(results))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


if __name__ == "__main__":
    main()
