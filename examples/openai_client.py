"""The ensemble behind OpenAI's client: plain answers, a budget, and a stream with the route beside it.

Run it with `python examples/openai_client.py`; it serves the shipped pool from this process. Elsewhere the
server is a process of its own: `der serve`.
"""

from __future__ import annotations

import argparse
from typing import Any

from openai import OpenAI

from der_graph.server.server import create_app, in_background

QUESTION = (
    "A library has 12 shelves with 35 books each. 48 books are lent out. How many are there now?"
)


def ask(client: OpenAI, question: str, **budget: Any) -> tuple[str, list[str], float]:
    """Answer, experts asked, cost."""
    done = client.chat.completions.create(
        model="der", messages=[{"role": "user", "content": question}], extra_body={"der": budget}
    )
    route: Any = (done.model_extra or {})["der"]  # what the protocol does not know is kept here
    return done.choices[0].message.content or "", route["experts"], route["cost"]


def watch(client: OpenAI, question: str) -> list[str]:
    """The lines of a stream: decisions and drafts as they happen, then the answer."""
    lines, answer = [], ""
    stream = client.chat.completions.create(
        model="der", messages=[{"role": "user", "content": question}], stream=True
    )
    for chunk in stream:
        event: Any = (chunk.model_extra or {}).get("der")
        if event and event["type"] == "der.decision":
            lines.append(f"agent: {event['choice']}")
        elif event and event["type"] == "der.answer":
            lines.append(f"{event['expert']}: {event['text']}")
        answer += chunk.choices[0].delta.content or ""
    return [*lines, f"answer: {answer.strip()}"]


def main(address: str) -> None:
    with OpenAI(base_url=f"{address}/v1", api_key="none") as client:
        print("models:", ", ".join(model.id for model in client.models.list()))
        answer, experts, cost = ask(client, QUESTION)
        print(f"{answer}   ({' > '.join(experts)}, {cost:.3g})")
        answer, experts, cost = ask(client, QUESTION, max_steps=1)
        print(f"{answer}   ({' > '.join(experts)}, {cost:.3g}), one call at most")
        print("\n".join(watch(client, QUESTION)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="OpenAI's client before the ensemble.")
    parser.add_argument("--url", help="a server that runs already")
    given = parser.parse_args()
    if given.url:
        main(given.url)
    else:
        with in_background(create_app("demo")) as here:
            main(here)
