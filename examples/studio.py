"""The graph for `langgraph dev` and LangGraph Studio, which `langgraph.json` leads here.

    pip install 'langgraph-cli[inmem]'
    langgraph dev

The demo pool by default; your own with DER_POOL=my.yaml DER_AGENT=runs/first. Everything is loaded while this
module is imported, before the server's event loop runs: it does not allow calls that block. It brings its own
checkpointer, so the graph is compiled without one.
"""

from __future__ import annotations

import os
from typing import Any

from der_graph import DERContext, create_der_graph, load_agent, load_pool


def build() -> Any:
    pool = load_pool(os.environ.get("DER_POOL", "demo"))
    pool.preload()
    agent = load_agent(os.environ.get("DER_AGENT", "demo"))
    der = create_der_graph(pool, agent=agent).compile(name="der")
    question = {"messages": [("user", "What is 1 + 1?")]}
    der.invoke(question, context=DERContext(max_steps=1))  # loads what the agent needs
    return der


graph = build()
