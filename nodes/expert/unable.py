"""Who need not be asked: experts that cannot call tools, see the attachments or read so long a prompt."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.messages import HumanMessage

from der_graph.nodes.expert.expert import Expert
from der_graph.nodes.ktp import KTPTemplate
from der_graph.nodes.model_settings import can_call_tools, modalities, wants_tools
from der_graph.state import Task, answers_of


def unable_experts(experts: Sequence[Expert], ktp: KTPTemplate, task: Task) -> dict[str, str]:
    """The experts that need not be asked, by name, and why: `no_tools`, `no_inputs` or `context_length`.

    Args:
        experts: The pool.
        ktp: The graph's template.
        task: What is asked; its decision is not looked at.
    """
    settings, attachments = task.get("settings") or {}, task.get("attachments") or []
    wants = modalities([HumanMessage(list(attachments))]) if attachments else set()
    texts = [task["question"], *(answer["text"] for answer in answers_of(task["route"]))]
    texts += [message.text for message in (*task["messages"], *task["tail"])]
    size = sum(map(len, texts))
    found = {}
    for expert in experts:
        limit = expert.longest_prompt
        if wants_tools(settings) and not can_call_tools(expert.model):
            found[expert.name] = "no_tools"
        elif wants - expert.reads:
            found[expert.name] = "no_inputs"
        elif limit is None or 4 * size <= limit // 4:
            continue  # there is nothing to count
        elif not expert.can_read(expert.prompt_for(task, ktp)):
            found[expert.name] = "context_length"
    return found
