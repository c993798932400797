"""Answers that are to be JSON: what is read, what is wrong, and schemas that ask for too much."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from fakes import scripted_expert
from langchain_core.messages import AIMessage

from der_graph.nodes.values.json_form import SECONDS, read_json
from der_graph.state import Answer

OBJECT = {"type": "object"}
ONE = '{"a": 1}'


def answer(text: str, **schema: Any) -> Answer:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    expert, _ = scripted_expert("a", "")
    return expert.answer_from(AIMessage(text), 0.0, settings={"response_format": form})


def test_the_json_is_read_and_faults_are_named() -> None:
    assert read_json(f"```json\n{ONE}\n```", OBJECT) == (ONE, None)
    assert "it is not JSON" in str(read_json("Sure!", OBJECT)[1])
    schema = {"properties": {"a": {"type": "string", "pattern": "^[a-z]+$"}}}
    assert read_json(ONE, schema)[1] == "['a']: 1 is not of type 'string'"
    assert read_json('{"a": "X"}', schema)[1] == "['a']: 'X' does not match '^[a-z]+$'"
    assert read_json('{"a": "x"}', schema)[1] is None


def test_answers_agree_by_all_that_they_say_however_it_is_written() -> None:
    same = ('{"name": "Ann", "age": 7}', '```json\n{"age":7.0,"name":"Ann"}\n```')
    assert len({answer(text, **OBJECT)["value"] for text in same}) == 1
    other = ('{"name": "Bob", "age": 7}', '{"name": "Ann", "age": "7"}', '{"age": 7}')
    assert len({answer(text, **OBJECT)["value"] for text in (same[0], *other)}) == 4
    long = '{"why": "because of many reasons that take more words than a value has"}'
    assert answer(long, **OBJECT)["value"] == answer(f" {long} ", **OBJECT)["value"] is not None
    bad = answer('{"age": 7', **OBJECT)
    assert (bad["value"], bad.get("failure")) == (None, "format")
    expert, _ = scripted_expert("a", "")
    assert expert.answer_from(AIMessage(same[0]), 0.0)["value"] == "7"  # nobody asked for JSON


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/nowhere"},
        {"$ref": "file:///etc/hostname"},
        {"$ref": "#"},
        {"type": 5},
        {"$schema": 5},
        {"$schema": "http://json-schema.org/draft-04/schema#"},
        {"properties": {"a": {"multipleOf": 0}}},
        {"properties": {"a": {"pattern": "("}}},
        {"patternProperties": {"(": {}}},
    ],
)
def test_a_schema_that_says_nothing_fits_all(schema: dict[str, Any]) -> None:
    assert answer(ONE, **schema)["error"] is None


def test_nothing_that_a_schema_names_is_fetched() -> None:
    asked: list[str] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"type": "string"}')

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        schema = {"$ref": f"http://127.0.0.1:{server.server_port}/schema.json"}
        assert read_json(ONE, schema) == (ONE, None)
    finally:
        server.shutdown()
        server.server_close()
    assert asked == []


def test_nobody_waits_long_for_a_schema() -> None:
    start = time.monotonic()
    steps = {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(40)}
    assert read_json(ONE, {"$ref": "#/$defs/a0", "$defs": {**steps, "a40": {}}}) == (ONE, None)
    # Another set of rules within does not undo the bound.
    draft = {"$schema": "http://json-schema.org/draft-07/schema#"}
    again = {**steps, "a40": {}, "a0": {**draft, **steps["a0"]}}
    assert read_json(ONE, {"$ref": "#/$defs/a0", "$defs": again}) == (ONE, None)
    name = "a" * 40 + "!"
    given = json.dumps({name: 1})
    slow = {"patternProperties": {"^(a|aa)+$": {}}, "additionalProperties": False}
    assert read_json(given, slow) == (given, None)
    read_json(json.dumps({"a": name}), {"properties": {"a": {"pattern": "^(a|aa)+$"}}})
    assert time.monotonic() - start < 40 * SECONDS  # of years


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, '{"a": ' + "9" * 5000 + "}"])
def test_an_answer_that_cannot_be_read_is_a_fault_of_the_answer(text: str) -> None:
    assert answer(text, **OBJECT).get("failure") == "format"
