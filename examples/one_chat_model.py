"""DER wherever a chat model goes: in a chain, for many questions at once, as a stream.

Run it with `python examples/one_chat_model.py`; it loads the shipped pool of real models.
"""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from der_graph import ChatDER


def build_chain(der: ChatDER) -> Any:
    """A chain as with any other chat model."""
    prompt = ChatPromptTemplate([("human", "{question}")])
    return prompt | der | StrOutputParser()


async def watch(der: ChatDER, question: str) -> list[str]:
    """Follow a route while it is going on: decisions and drafts are events, the stream is the answer."""
    seen = []
    async for event in der.astream_events(question, version="v2"):
        if event["event"] == "on_custom_event" and event["name"] == "der.decision":
            decision: Any = event["data"]
            seen.append(decision["choice"])
    return seen


def main(der: ChatDER | None = None) -> dict[str, Any]:
    """Run all of it; gives what was shown."""
    der = der or ChatDER()
    question = "What is 12 + 30?"

    text = build_chain(der).invoke({"question": question})
    print(f"{question} {text}")

    answer = der.invoke(question, max_steps=1)  # a budget for this call alone
    told = answer.response_metadata
    print(f"asked: {', '.join(told['der_experts'])}; {told['der_cost']:g} {told['der_cost_unit']}")

    answers = asyncio.run(der.abatch([f"What is {n} + 5?" for n in range(4)]))
    print("many at once:", ", ".join(str(each.content) for each in answers))

    streamed = "".join(str(chunk.content) for chunk in der.stream(question))
    route = asyncio.run(watch(der, question))
    print("route:", " -> ".join(route))
    return {"text": text, "answers": len(answers), "streamed": streamed, "route": route}


if __name__ == "__main__":
    main()
