"""OpenAI's protocol of responses, which its agents use, over the same conversations.

    {"input": ..., "instructions": ..., "tools": [...]} ──read_response_request──> ChatRequest
    Outcome ──ResponsesReply──> one `response` object, or its events

Nothing is kept between requests: who wants to go on sends the items of before again. Knows nothing of HTTP.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from der_graph.server.chat_replies import Outcome, summary_of, to_json
from der_graph.server.chat_requests import ChatRequest, chat_request, read_object
from der_graph.server.failures import RequestError
from der_graph.server.parameters import check_names, of_type, wrong

# Their names in chat completions.
_SAME = {
    "max_output_tokens": "max_completion_tokens",
    **{
        name: name
        for name in "model temperature top_p top_logprobs parallel_tool_calls stream der user metadata store "
        "safety_identifier service_tier prompt_cache_key prompt_cache_retention".split()
    },
}
_NAMES_HERE = {
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
}
_READ = frozenset({*_SAME, "input", "instructions", "tools", "tool_choice", "text", "reasoning"})
_NOTHING_ASKED = {"include", "truncation", "background", "stream_options", "max_tool_calls"}
_ECHO = "instructions temperature top_p tools tool_choice parallel_tool_calls max_output_tokens text metadata"


def read_response_request(body: bytes) -> ChatRequest:
    """Read a request.

    Raises:
        RequestError: If it cannot be understood, or asks for what there is not; names the parameter.
    """
    given = read_object(body)
    for name in ("previous_response_id", "conversation", "prompt"):
        if given.get(name):
            message = (
                f"'{name}' is not supported here: nothing is kept; send the whole conversation"
            )
            raise RequestError(400, message, param=name, code="unsupported_parameter")
    if given.get("background"):
        message = "'background' is not supported here: leave it out"
        raise RequestError(400, message, param="background", code="unsupported_parameter")
    if "input" not in given:
        raise RequestError(400, "'input' is missing", param="input", code="missing_parameter")
    chat: dict[str, Any] = {new: given[name] for name, new in _SAME.items() if name in given}
    chat["messages"], places = _messages(given)
    if "tools" in given:
        chat["tools"] = [_tool(each, f"tools[{i}]") for i, each in enumerate(_list(given, "tools"))]
    choice = given.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "function":
        choice = {"type": "function", "function": {"name": choice.get("name")}}
    chat["tool_choice"] = choice
    if "text" in given:
        chat["response_format"] = _form(of_type(given["text"], "text", dict, "an object"))
    if "reasoning" in given:
        effort = of_type(given["reasoning"], "reasoning", dict, "an object").get("effort")
        chat["reasoning_effort"] = effort
    if chat.get("top_logprobs"):
        chat["logprobs"] = True
    unknown = given.keys() - _READ - _NOTHING_ASKED
    try:
        request = chat_request({name: value for name, value in chat.items() if value is not None})
    except RequestError as error:
        raise _renamed(error, places) from None
    echo = {name: given[name] for name in _ECHO.split() if name in given}
    ignored = tuple(sorted({*request.ignored, *(str(name)[:80] for name in unknown)}))
    return replace(request, include_usage=True, ignored=ignored, echo=echo)


def _renamed(error: RequestError, places: Sequence[Sequence[str]]) -> RequestError:
    """An error about a field, by the name that it has here."""
    if error.param is not None:
        here = _name_here(error.param, places)
        error.message = error.message.replace(error.param, here)
        for there, so_here in (
            ("parts of type 'text'", "parts of type 'input_text'"),
            ("the last message must be the user's, or a tool's", f"'input': {_ENDS}"),
        ):
            error.message = error.message.replace(there, so_here)
        error.param = here
    return error


def _name_here(param: str, places: Sequence[Sequence[str]]) -> str:
    """The name of a field of chat completions in this protocol.

    Args:
        param: Its name there, such as `messages[1].tool_calls[0].function.name`.
        places: For each message what it was made of; several, where those are the calls of one answer.
    """
    for new, old in _NAMES_HERE.items():
        if param.split(".")[0] == new:
            return param.replace(new, old, 1).replace(f"{old}.json_schema", old, 1)
    if (in_tool := re.fullmatch(r"(tools\[\d+\]|tool_choice)\.function(.*)", param)) is not None:
        return "".join(in_tool.groups())
    found = re.fullmatch(r"messages\[(\d+)\](?:\.tool_calls\[(\d+)\](?:\.function)?)?(.*)", param)
    if found is None or int(found[1]) >= len(places):
        return re.sub(r"^messages\b.*", "input", param)
    made_of = places[int(found[1])]
    place = made_of[min(int(found[2] or 0), len(made_of) - 1)]
    item, _, output = place.partition(".")
    if not item.endswith("]"):  # a text, of which there are no fields
        return place
    if found[2] is not None:
        return f"{item}{'.call_id' if found[3] == '.id' else found[3]}"
    field = found[3].replace(".tool_call_id", ".call_id").replace(".image_url.url", ".image_url")
    return item + (field.replace(".content", f".{output}", 1) if output else field)


def _list(given: Mapping[str, Any], name: str) -> list[Any]:
    found: list[Any] = of_type(given[name], name, list, "a list")
    return found


def _tool(tool: Any, where: str) -> dict[str, Any]:
    of_type(tool, where, dict, "an object")
    if tool.get("type") != "function":
        return dict(tool)  # refused, with the reason, where tools are read
    names = ("name", "description", "parameters", "strict")
    function = {name: tool[name] for name in names if tool.get(name) is not None}
    return {"type": "function", "function": function}


def _form(text: Mapping[str, Any]) -> dict[str, Any] | None:
    check_names(text, "text", ("format", "verbosity"))
    form = text.get("format")
    if not isinstance(form, dict) or form.get("type") != "json_schema":
        return form
    names = ("name", "description", "schema", "strict")
    return {
        "type": "json_schema",
        "json_schema": {name: form[name] for name in names if form.get(name) is not None},
    }


def _messages(given: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[list[str]]]:
    """The conversation as messages of chat completions, and for each what it was made of."""
    messages: list[dict[str, Any]] = []
    places: list[list[str]] = []
    if given.get("instructions"):
        text = of_type(given["instructions"], "instructions", str, "a string")
        messages.append({"role": "system", "content": text})
        places.append(["instructions"])
    items = given["input"]
    if isinstance(items, str):
        return [*messages, {"role": "user", "content": items}], [*places, ["input"]]
    if not isinstance(items, list) or not items:
        raise wrong("input", items, "a string, or a list with at least one item")
    for i, item in enumerate(items):
        where = f"input[{i}]"
        of_type(item, where, dict, "an object")
        kind = item.get("type", "message")
        if kind == "message":
            messages.append({"role": item.get("role"), "content": _content(item.get("content"))})
        elif kind == "function_call":
            call = {
                "id": item.get("call_id"),
                "function": {"name": item.get("name"), "arguments": item.get("arguments")},
            }
            if messages and messages[-1].get("tool_calls"):
                messages[-1]["tool_calls"].append(call)  # calls of one answer
                places[-1].append(where)
            else:
                messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        elif kind == "function_call_output":
            output = _content(item.get("output"))
            messages.append(
                {"role": "tool", "tool_call_id": item.get("call_id"), "content": output}
            )
            places.append([f"{where}.output"])
        elif kind != "reasoning":  # thoughts of before are no part of the conversation
            raise RequestError(
                400,
                f"{where}: items of type {str(kind)[:40]!r} are not supported here",
                param=where,
                code="unsupported_content",
            )
        if len(places) < len(messages):
            places.append([where])
    if not places or places[-1] == ["instructions"]:
        raise RequestError(400, f"'input' has no message: {_ENDS}", param="input")
    return messages, places


_ENDS = "its last item must be the user's message, or a tool's output"


def _content(content: Any) -> Any:
    """Parts of a message in the form of chat completions."""
    if not isinstance(content, list):
        return content
    parts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("input_text", "output_text"):
            parts.append({"type": "text", "text": part.get("text")})
        elif kind == "input_image":
            image = {"url": part.get("image_url"), "detail": part.get("detail") or "auto"}
            parts.append({"type": "image_url", "image_url": image})
        elif kind == "input_file":
            file = {
                name: part[name] for name in ("file_data", "file_id", "filename") if part.get(name)
            }
            parts.append({"type": "file", "file": file})
        else:
            parts.append(part)
    return parts


@dataclass
class ResponsesReply:
    """Writes one response; see `der_graph.server.chat_replies.Reply`.

    Attributes:
        model: The model that was asked.
        cost_unit: What costs count.
        ignored: Parameters of the request without effect.
        echo: What is repeated of the request.
        id: Of the response.
        created: Seconds since 1970.
    """

    model: str
    cost_unit: str
    ignored: tuple[str, ...] = ()
    echo: Mapping[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: f"resp_{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))
    _message: str = field(default_factory=lambda: f"msg_{uuid.uuid4().hex}")
    _number: int = -1
    _open: bool = False
    _text: str = ""

    def whole(self, outcome: Outcome) -> dict[str, Any]:
        """The response in one piece."""
        cut = outcome.finish in ("length", "content_filter")
        reason = {"length": "max_output_tokens", "content_filter": "content_filter"}
        tokens, (cached, thought) = outcome.tokens, outcome.token_details
        return {
            **self._head("incomplete" if cut else "completed"),
            "incomplete_details": {"reason": reason[outcome.finish]} if cut else None,
            "output": self._output(outcome),
            "usage": {
                "input_tokens": tokens["input_tokens"],
                "input_tokens_details": {
                    "cached_tokens": cached,
                    "cache_write_tokens": 0,
                },
                "output_tokens": tokens["output_tokens"],
                "output_tokens_details": {"reasoning_tokens": thought},
                "total_tokens": tokens["total_tokens"],
            },
            "der": summary_of(outcome, self.cost_unit, self.ignored),
        }

    def begin(self) -> list[bytes]:
        """What opens a stream."""
        response = self._head("in_progress")
        return [
            self._sent("response.created", response=response),
            self._sent("response.in_progress", response=response),
        ]

    def text(self, piece: str) -> list[bytes]:
        """A piece of the answer."""
        events = [] if self._open else self._opened()
        self._text += piece
        return [
            *events,
            self._sent("response.output_text.delta", **self._part(), delta=piece, logprobs=[]),
        ]

    def event(self, event: Mapping[str, Any]) -> list[bytes]:
        """An event of the route. The protocol has none of the kind, and its clients are strict: nothing."""
        return []

    def close(self, outcome: Outcome, said: bool) -> list[bytes]:
        """What ends a stream; as in `Reply`."""
        events = [] if said or not outcome.answer else self.text(outcome.answer)
        if self._open:
            part = self._text_part(self._text)
            item = self._message_item(self._text, "completed")
            events += [
                self._sent(
                    "response.output_text.done", **self._part(), text=self._text, logprobs=[]
                ),
                self._sent("response.content_part.done", **self._part(), part=part),
                self._sent("response.output_item.done", output_index=0, item=item),
            ]
        response = self.whole(outcome)
        if self._open:
            response["output"][0] = self._message_item(self._text, "completed")
        for index, item in enumerate(response["output"]):
            if item["type"] == "function_call":
                events += self._call(item, index)
        events.append(self._sent(f"response.{response['status']}", response=response))
        return events

    def failed(self, error: Mapping[str, Any]) -> list[bytes]:
        """An error in the middle of a stream."""
        given = error["error"]
        response = {
            **self._head("failed"),
            "error": {"code": given["code"] or "server_error", "message": given["message"]},
        }
        return [self._sent("response.failed", response=response)]

    def _head(self, status: str) -> dict[str, Any]:
        defaults: dict[str, Any] = {
            "instructions": None,
            "temperature": None,
            "top_p": None,
            "tools": [],
            "tool_choice": "auto",
            "parallel_tool_calls": True,
            "max_output_tokens": None,
            "text": {"format": {"type": "text"}},
            "metadata": {},
        }
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": self.model,
            "output": [],
            "usage": None,
            "previous_response_id": None,
            "store": False,
            **defaults,
            **self.echo,
        }

    def _output(self, outcome: Outcome) -> list[dict[str, Any]]:
        items = []
        if outcome.answer or not outcome.tool_calls:
            items.append(self._message_item(outcome.answer, "completed"))
        for call in outcome.tool_calls:
            items.append(
                {
                    "type": "function_call",
                    "id": f"fc_{uuid.uuid4().hex}",
                    "call_id": call["id"],
                    "name": call["name"],
                    "arguments": to_json(call["args"]),
                    "status": "completed",
                }
            )
        return items

    def _message_item(self, text: str, status: str) -> dict[str, Any]:
        content = [self._text_part(text)] if status == "completed" else []
        return {
            "type": "message",
            "id": self._message,
            "status": status,
            "role": "assistant",
            "content": content,
        }

    def _text_part(self, text: str) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _part(self) -> dict[str, Any]:
        return {"item_id": self._message, "output_index": 0, "content_index": 0}

    def _opened(self) -> list[bytes]:
        self._open = True
        item = self._message_item("", "in_progress")
        return [
            self._sent("response.output_item.added", output_index=0, item=item),
            self._sent("response.content_part.added", **self._part(), part=self._text_part("")),
        ]

    def _call(self, item: Mapping[str, Any], index: int) -> list[bytes]:
        begun = {**item, "arguments": "", "status": "in_progress"}
        where = {"item_id": item["id"], "output_index": index}
        given = item["arguments"]
        return [
            self._sent("response.output_item.added", output_index=index, item=begun),
            self._sent("response.function_call_arguments.delta", **where, delta=given),
            self._sent(
                "response.function_call_arguments.done", **where, arguments=given, name=item["name"]
            ),
            self._sent("response.output_item.done", output_index=index, item=item),
        ]

    def _sent(self, kind: str, **content: Any) -> bytes:
        self._number += 1
        event = {"type": kind, "sequence_number": self._number, **content}
        return f"event: {kind}\ndata: {to_json(event)}\n\n".encode()
