"""Measure everything and write docs/results.md with its pictures: `make results`.

    python benchmarks/results.py [--data ../shared/data] [--only comparison,ablations] [--render] [--fast]

Every stage is a benchmark of its own that leaves a JSON in `--runs`; those that are there and current are not
run again, so an interrupted run goes on (`results_stages`). Then the page (`results_page` and its template)
and the plots (`results_plots`) are made of the JSONs alone, and the marked tables of README.md of the page:
the same JSONs give the same files. A section for which nothing was measured stays as it is.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from results_page import filled_in, load_results, page
from results_plots import draw
from results_stages import ROOT, STAGES, Places, adopt, run_all, stage


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("DER_DATA") or ROOT.parent / "shared" / "data"),
        help="folder with recorded_pool/ (default: DER_DATA, else ../shared/data)",
    )
    parser.add_argument("--runs", type=Path, help="folder of the JSONs (default: runs/results)")
    parser.add_argument("--docs", type=Path, help="where results.md and images/ go (default: docs)")
    parser.add_argument(
        "--vectors", type=Path, help="file of sentence vectors (default: in --runs)"
    )
    parser.add_argument(
        "--cache", type=Path, help="answer cache of the live pool (default: in --runs)"
    )
    parser.add_argument("--only", help=f"stages to run, of: {', '.join(s.name for s in STAGES)}")
    parser.add_argument("--force", action="store_true", help="run stages that are current too")
    parser.add_argument("--render", action="store_true", help="run nothing: page and pictures only")
    parser.add_argument(
        "--fast",
        action="store_true",
        help="a few rows and steps, to see that it works; not into docs",
    )
    parser.add_argument(
        "--adopt", action="append", default=[], metavar="STAGE=FILE",
        help="take a JSON that this stage's very command made before",
    )  # fmt: skip
    args = parser.parse_args(argv)
    runs = args.runs or ROOT / "runs" / ("results-fast" if args.fast else "results")
    docs = args.docs or (runs / "docs" if args.fast else ROOT / "docs")
    runs.mkdir(parents=True, exist_ok=True)
    # Of this run alone, so that all is measured from nothing where the folder is empty.
    vectors = args.vectors or runs / "recorded_vectors.npz"
    cache = args.cache or runs / "answers.db"
    places = Places(args.data.absolute(), runs.absolute(), vectors.absolute(), cache.absolute())
    for told in args.adopt:
        name, _, file = told.partition("=")
        adopt(stage(name), Path(file), places)
    if not args.render:
        wanted = [stage(name) for name in args.only.split(",")] if args.only else list(STAGES)
        run_all(wanted, places, fast=args.fast, force=args.force)
    results = load_results(places.runs)
    docs.mkdir(parents=True, exist_ok=True)
    pictures = draw(results, docs / "images")
    file = docs / "results.md"
    text = page(results, pictures, file.read_text("utf-8") if file.is_file() else "")
    file.write_text(text, encoding="utf-8")
    if docs == ROOT / "docs":
        readme = ROOT / "README.md"
        readme.write_text(filled_in(readme.read_text("utf-8"), text), encoding="utf-8")
    print(
        f"{docs / 'results.md'}: {', '.join(n for n in results if n != 'took') or 'nothing measured yet'}"
    )


if __name__ == "__main__":
    main()
