"""What a request asks of the experts' models: how to sample, which tools, what form of answer.

    {"temperature": 0, "stop": ["END"], "tools": [...], "response_format": {...}}
        ──check_settings──> known names only
        ──equipped───────> the expert's model, called with what it understands of them
        ──cannot─────────> why an expert cannot do what is asked, or None

The names are those of OpenAI's protocol. Each provider's class gets them by its own names; what a model
has no setting for is left out, as an ensemble has several. Knows nothing of routes.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import Runnable

from der_graph.errors import ChatModelError, did_you_mean
from der_graph.nodes.ktp import quote
from der_graph.nodes.providers.chat import is_a
from der_graph.nodes.quoting import neutralize
from der_graph.nodes.reliability import bare
from der_graph.nodes.reliability.call_limits import TOKEN_LIMITS
from der_graph.nodes.tools import rebound
from der_graph.state import Answer

SAMPLING = (
    "temperature",
    "top_p",
    "max_tokens",
    "stop",
    "seed",
    "logprobs",
    "top_logprobs",
    "presence_penalty",
    "frequency_penalty",
    "reasoning_effort",
)
"""How answers are drawn."""

TOOLS = ("tools", "tool_choice", "parallel_tool_calls", "strict", "tool_settings")
"""Tools, and how they may be called; `tool_settings` are further arguments of `bind_tools`."""

SETTINGS = (*SAMPLING, *TOOLS, "response_format")
"""All that can be asked."""

LANGCHAINS_OWN = frozenset({"stream", "stream_usage", "ls_structured_output_format"})
"""LangChain's own words among the settings of a call, which are for no model."""

# Other names for a setting, among the fields of providers' classes and in their calls.
_ALSO = {
    "max_tokens": TOKEN_LIMITS[1:],
    "stop": (),
}
_ALWAYS = frozenset({"temperature", "max_tokens", "stop"})  # LangChain's standard parameters

_NATIVE = "BaseChatOpenAI ChatAnthropic ChatGroq ChatMistralAI ChatFireworks ChatGoogleGenerativeAI".split()


def check_settings(given: Any) -> dict[str, Any]:
    """Read settings; None counts as left out.

    Raises:
        ChatModelError: If they are no mapping, or one is unknown.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ChatModelError(f"model_settings is {type(given).__name__}; it must be a dict")
    settings = {name: value for name, value in given.items() if value is not None}
    if "max_completion_tokens" in settings:
        settings.setdefault("max_tokens", settings.pop("max_completion_tokens"))
    for name in settings:
        if name not in SETTINGS:
            raise ChatModelError(
                f"model_settings has no setting '{name}'; {did_you_mean(name, SETTINGS)}"
                f"allowed: {', '.join(SETTINGS)}"
            )
    return settings


def wants_tools(settings: Mapping[str, Any]) -> bool:
    """Are there tools that may be called?"""
    return bool(settings.get("tools")) and settings.get("tool_choice") != "none"


def schema_of(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The JSON schema that the answer must fit; an empty one for any JSON object, None for any text."""
    given = settings.get("response_format")
    if not isinstance(given, Mapping) or given.get("type") in (None, "text"):
        return None
    if given["type"] == "json_object":
        return {"type": "object"}
    wrapped = given.get("json_schema")
    schema = wrapped.get("schema") if isinstance(wrapped, Mapping) else None
    return dict(schema) if isinstance(schema, Mapping) else {"type": "object"}


def equipped(model: Runnable[Any, Any], settings: Mapping[str, Any]) -> Runnable[Any, Any]:
    """The model, called with what it understands of the settings; functions and graphs as they are."""
    if not settings:
        return model
    sampling = {name: settings[name] for name in SAMPLING if name in settings}
    try:
        if sampling:
            model = rebound(model, lambda chat: _sampling(chat, sampling))
        if wants_tools(settings):
            model = rebound(model, lambda chat: _with_tools(chat, settings))
        elif "response_format" in settings:
            model = rebound(model, lambda chat: _formatted(chat, settings["response_format"]))
    except NotImplementedError:
        pass  # no chat model, or one without tools: those are not asked where tools are wanted
    return model


def _with_tools(chat: BaseChatModel, settings: Mapping[str, Any]) -> Runnable[Any, Any]:
    given = dict(settings.get("tool_settings") or {})
    takes = inspect.signature(type(chat).bind_tools).parameters
    for name in ("parallel_tool_calls", "strict"):
        # A provider's class that does not know the word would send it on, and be refused.
        foreign = type(chat).__module__.startswith("langchain_") and name not in takes
        if name in settings and not foreign:
            given[name] = settings[name]
    if settings.get("tool_choice") is not None:
        given["tool_choice"] = settings["tool_choice"]
    if "response_format" in settings and "response_format" in takes:
        given["response_format"] = settings["response_format"]
    return chat.bind_tools(settings["tools"], **given)


def can_call_tools(model: Any) -> bool:
    """Can a model be given tools, whatever it is wrapped in? Its class and its profile say."""
    try:
        rebound(model, _with_its_own_tools)
    except NotImplementedError:
        return False
    return True


def _with_its_own_tools(chat: BaseChatModel) -> BaseChatModel:
    profile = getattr(chat, "profile", None) or {}
    without = type(chat).bind_tools is BaseChatModel.bind_tools
    if without or profile.get("tool_calling") is False:
        raise NotImplementedError
    return chat


def writes_json(model: Any) -> bool:
    """Can a model be told to answer in the form of a JSON schema?"""
    chat = bare(model)
    profile = getattr(chat, "profile", None) or {}
    if "structured_output" in profile:
        return bool(profile["structured_output"])
    return is_a(chat, *_NATIVE, "ChatOllama")


def _sampling(chat: BaseChatModel, wanted: Mapping[str, Any]) -> Runnable[Any, Any]:
    names = {name: _own_name(chat, name) for name in wanted}
    own = {found: wanted[name] for name, found in names.items() if found is not None}
    return chat.bind(**own) if own else chat


def has_setting(model: Any, name: str) -> bool:
    """Does a model know a setting of `SAMPLING`?"""
    chat = bare(model)
    return isinstance(chat, BaseChatModel) and _own_name(chat, name) is not None


def _own_name(chat: BaseChatModel, name: str) -> str | None:
    """What a class calls a setting; None if it has none of the kind."""
    known = set(type(chat).model_fields)
    if hasattr(chat, "generation"):  # our own local models
        known |= {"temperature", "top_p", "max_tokens", "seed", "stop"}
        known -= {"logprobs"}  # they always report the mean, and there it is no setting of a call
        return name if name in known else None
    aliases = {str(each.alias) for each in type(chat).model_fields.values() if each.alias}
    for each in (name, *_ALSO.get(name, ())):
        if each in known or each in aliases:
            return each
    return name if name in _ALWAYS else None


def _formatted(chat: BaseChatModel, form: Any) -> Runnable[Any, Any]:
    if not writes_json(chat):
        return chat
    if is_a(chat, "ChatOllama"):
        schema = schema_of({"response_format": form})
        return chat if schema is None else chat.bind(format=schema)
    return chat.bind(response_format=form)


def cut_at_stop(text: str, stop: Sequence[str] | str) -> str:
    """The text up to the first of the stop texts; what a model that knows of none goes on with is cut off."""
    texts = (stop,) if isinstance(stop, str) else stop
    ends = [position for position in (text.find(each) for each in texts if each) if position >= 0]
    return text[: min(ends)].rstrip() if ends else text


FORMAT_ERROR = "the answer is not of the form asked for"
"""How the error of such an answer begins; its text is kept, for the next expert to repair."""

_SCHEMA_ASKED = (
    "\n\nAnswer with JSON alone, without any other words, that is valid under this JSON schema:\n"
    "{schema}"
)
_REPAIR = (
    "\n\nAn earlier answer, quoted between the marks, was not valid: {fault}\n"
    "<earlier_answer>\n{answer}\n</earlier_answer>\nGive a valid one."
)


def json_asked(
    message: BaseMessage,
    settings: Mapping[str, Any],
    answers: Sequence[Answer],
    native: bool,
) -> BaseMessage:
    """The last message of a prompt whose answer is to be JSON.

    Args:
        message: The message.
        settings: Settings with a `response_format`.
        answers: Earlier answers; one of a wrong form is shown, to be repaired.
        native: Is the model told the schema in another way?
    """
    more = ""
    if not native:
        more = _SCHEMA_ASKED.format(schema=json.dumps(schema_of(settings)))
    if answers and (answers[-1]["error"] or "").startswith(FORMAT_ERROR):
        fault = (answers[-1]["error"] or "")[len(FORMAT_ERROR) :].strip(" ()")
        more += _REPAIR.format(fault=neutralize(fault), answer=quote(answers[-1]["text"], 1024))
    if not more or not isinstance(message, HumanMessage):
        return message
    if isinstance(message.content, str):
        return HumanMessage(message.content + more, name=message.name)
    asked = [*message.content, {"type": "text", "text": more.strip()}]
    return HumanMessage(asked, name=message.name)


BLOCKS = {
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "audio": "audio",
    "input_audio": "audio",
    "video": "video",
    "file": "pdf",
    "document": "pdf",
}
"""What kinds of content blocks hold, by the words of model profiles (`image_inputs`, `pdf_inputs` ...)."""


def modalities(messages: Iterable[BaseMessage]) -> set[str]:
    """What messages hold beside text: `image`, `audio`, `video`, `pdf`, or the type of any other block."""
    found = set()
    for message in messages:
        for block in message.content if isinstance(message.content, list) else ():
            kind = "text" if isinstance(block, str) else str(block.get("type", "?"))
            if kind not in (
                "text",
                "reasoning",
                "thinking",
                "tool_use",
                "tool_call",
                "non_standard",
            ):
                found.add(BLOCKS.get(kind, kind))
    return found


def inputs_needed(messages: Iterable[BaseMessage]) -> set[str]:
    """What a model must read to understand messages: `image`, `audio`, `video`, `pdf`.

    Blocks of other types are left to the model: providers have many of their own.
    """
    blocks = [b for m in messages if isinstance(m.content, list) for b in m.content]
    return {kind for kind in map(_input_of, blocks) if kind is not None}


def _input_of(block: Any) -> str | None:
    kind = "text" if isinstance(block, str) else str(block.get("type", "?"))
    return None if _document_text(block) is not None else BLOCKS.get(kind)


def _document_text(block: Any) -> str | None:
    """The text of one of Anthropic's documents that are text."""
    source = block.get("source") if isinstance(block, Mapping) else None
    if not isinstance(source, Mapping) or source.get("type") != "text":
        return None
    return str(source.get("data", ""))


_PROFILED = {kind: f"{kind}_inputs" for kind in ("image", "audio", "video", "pdf")}


def inputs_of(model: Any) -> frozenset[str]:
    """What a model reads beside text, as its profile says."""
    profile = getattr(bare(model), "profile", None) or {}
    return frozenset(kind for kind, name in _PROFILED.items() if profile.get(name))


def inputs_known(model: Any) -> bool:
    """Is it known what a model reads? What is not is left to the model."""
    chat = bare(model)
    profile = getattr(chat, "profile", None) or {}
    # Profiles may speak of other things alone, such as the longest prompt.
    said = any(name in profile for name in _PROFILED.values())
    return said or getattr(chat, "reads_itself", False)


def context_length_of(model: Any) -> int | None:
    """Most tokens of a prompt, where the model or its profile says."""
    chat = bare(model)
    own = getattr(chat, "context_length", None)
    profile = getattr(chat, "profile", None) or {}
    found = own if own is not None else profile.get("max_input_tokens")
    return int(found) if isinstance(found, (int, float)) and found > 0 else None


def without_blocks(messages: Sequence[BaseMessage], kept: frozenset[str]) -> list[BaseMessage]:
    """Messages without the blocks of kinds that a model does not read; a word stands for each.

    A document that is text becomes plain text for models that read no documents.
    """
    return [_without(message, kept) for message in messages]


def _without(message: BaseMessage, kept: frozenset[str]) -> BaseMessage:
    if not isinstance(message.content, list):
        return message
    blocks: list[Any] = []
    for block in message.content:
        kind, text = _input_of(block), _document_text(block)
        if kind is not None and kind not in kept:
            blocks.append({"type": "text", "text": f"[{kind}]"})
        elif text is not None and "pdf" not in kept:
            blocks.append({"type": "text", "text": text})
        else:
            blocks.append(block)
    return message.model_copy(update={"content": blocks}) if blocks != message.content else message
