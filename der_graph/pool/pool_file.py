"""The pool file, as it is written: every field, its meaning and what is allowed.

    pool.yaml ──yaml.safe_load──> dict ──PoolFile──> checked values, or one PoolError that names the fault

Checks what can be seen in the file alone; `pool.py` makes experts of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import yaml
from pydantic import BaseModel, Field, StrictFloat, ValidationError, create_model

from der_graph.data.untrusted import read_text
from der_graph.errors import PluginError, PoolError, cut, did_you_mean
from der_graph.plugins import find_plugin, known_names
from der_graph.pool.backends import (
    BACKENDS,
    Backend,
    CostUnit,
    ExpertSection,
    KTPSection,
    Section,
    TokenPricesSection,
)

_MOST_BYTES = 4 * 2**20
_MOST_NODES = 100_000


class SettingsSection(Section):
    """What holds for the whole pool."""

    max_steps: int = Field(default=4, ge=1)
    """Longest route, in calls."""
    cost_unit: CostUnit = "parameters_b"
    ktp: str | KTPSection | None = None
    """The Knowledge Transfer Prompt of experts without one of their own."""
    repeat_experts: bool = False
    """May an expert be asked twice on one route?"""
    second_price: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Price of a second of a call, in the cost unit, added to what else it costs: waiting is a cost too."""
    agent: str | None = None
    """Who decides where nobody says: `planner` (where left out), `demo`, an agent's folder or Hub id."""
    profile: str | None = None
    """What `der probe` found out about the experts, relative to the pool file; the planner reads it."""
    parallel: int = Field(default=1, ge=1)
    """How many experts the first step of a route asks at once."""
    hedge: StrictFloat | str | None = None
    """When an expert takes its time, so that the next best is asked too: seconds, or a percentile of its own
    times such as `p95`; never where left out."""


class PoolFile(Section):
    """A whole pool file."""

    experts: list[Backend] = Field(min_length=1)
    data: str | list[str] | None = None
    """Data file with candidates, or several, relative to this file: experts without a `backend` replay what
    they answered there."""
    settings: SettingsSection = Field(default_factory=SettingsSection)


def read_pool_file(path: Path, *, recorded: bool = False) -> PoolFile:
    """Read and check a pool file.

    Args:
        path: The file.
        recorded: Are there recorded answers beside it, for experts of which it says a price alone?

    Raises:
        PoolError: If it is missing, empty, not YAML, or has a fault; names file, expert, field, what was
            given and what is allowed.
    """
    try:
        text = read_text(path, _MOST_BYTES)
    except FileNotFoundError:
        raise PoolError(f"{path}: there is no such pool file; give a path, or 'demo'") from None
    except (OSError, UnicodeDecodeError) as error:
        raise PoolError(f"{path}: the pool file cannot be read ({error})") from None
    try:
        content = load_yaml(text)
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
        raise PoolError(f"{path}: not YAML: {' '.join(str(error).split())[:300]}") from None
    if content is None:
        raise PoolError(
            f"{path}: the pool file is empty; it needs 'experts:' with at least one expert"
        )
    if not isinstance(content, dict):
        raise PoolError(
            f"{path}: a pool file is a mapping with 'experts:' and 'settings:', "
            f"and this is a {type(content).__name__}"
        )
    # As in files of compose and GitLab: a place for what several experts share, by anchors and `<<`.
    content = {key: value for key, value in content.items() if not str(key).startswith("x-")}
    _name_recorded(content, recorded)
    try:
        return _model_of(content).model_validate(content)
    except ValidationError as error:
        raise PoolError(f"{path}: {_explain(error, content)}") from None


def _name_recorded(content: dict[str, Any], recorded: bool) -> None:
    """Name the backend of experts that replay the pool's recorded answers: they need not say it."""
    own = content.get("data") is not None
    entries = content.get("experts")
    for entry in entries if isinstance(entries, list) and (own or recorded) else ():
        if not isinstance(entry, dict) or entry.get("backend") is not None:
            continue
        if own or entry.get("model") is None:
            entry["backend"] = "recorded"


def _model_of(content: dict[str, Any]) -> type[PoolFile]:
    """The layout of a file: the built-in backends, and those of other packages that it names."""
    entries = content.get("experts")
    named = (
        {e["backend"] for e in entries if isinstance(e, dict) and isinstance(e.get("backend"), str)}
        if isinstance(entries, list)
        else set()
    )
    sections: Any = ExpertSection
    for name in sorted(named - set(BACKENDS)):
        found = find_plugin("backends", name)
        if found is None:
            continue
        if not (isinstance(found, type) and issubclass(found, Backend)):
            raise PluginError(f"backends '{name}' is {found!r}; it must be a subclass of Backend")
        sections = sections | found
    entry = Annotated[sections, Field(discriminator="backend")]
    return create_model("PoolFile", __base__=PoolFile, experts=(list[entry], Field(min_length=1)))


def load_yaml(text: str) -> Any:
    """What a YAML text says, with a bound on what its aliases unfold to.

    Raises:
        YAMLError: If it is none, names a field twice, unfolds to more than is allowed, or is nested too
            deeply.
    """
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _unfolded(node, {}) > _MOST_NODES:
                raise yaml.YAMLError(f"its aliases unfold to more than {_MOST_NODES} values")
            _check_nodes(node, set())
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply, or holds itself") from None


def _check_nodes(node: yaml.Node, seen: set[int]) -> None:
    """Refuse what YAML allows and no pool file means: a field that is there twice, and sets and the like."""
    if id(node) in seen:
        return
    seen.add(id(node))
    where = f"line {node.start_mark.line + 1}"
    if node.tag.rpartition(":")[2] in ("set", "omap", "pairs", "binary"):
        raise yaml.YAMLError(
            f"{where}: values of type !!{node.tag.rpartition(':')[2]} are not allowed"
        )
    if isinstance(node, yaml.SequenceNode):
        for each in node.value:
            _check_nodes(each, seen)
    if isinstance(node, yaml.MappingNode):
        names = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    line = key.start_mark.line + 1
                    raise yaml.YAMLError(
                        f"line {line}: field {cut(key.value)!r} is there twice; remove one of them"
                    )
                names.add(key.value)
            _check_nodes(key, seen)
            _check_nodes(value, seen)


def _unfolded(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for when every alias is written out."""
    if id(node) not in known:
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        total = 1
        for part in parts:
            for each in part if isinstance(part, tuple) else (part,):
                total += _unfolded(each, known)
        known[id(node)] = total
    return known[id(node)]


def _explain(error: ValidationError, content: dict[str, Any]) -> str:
    """One line about the first fault."""
    fault = error.errors(include_url=False)[0]
    location = list(fault["loc"])
    where, section = _place(location, content)
    field = ".".join(str(part) for part in location)
    given = _shown(fault["input"])
    kind = fault["type"]
    if kind == "extra_forbidden":
        allowed = sorted(section.model_fields) if section is not None else []
        hint = did_you_mean(location[-1], allowed)
        return f"{where}unknown field '{field}'; {hint}allowed: {', '.join(allowed)}"
    if kind == "missing":
        return f"{where}field '{field}' is missing"
    if kind in ("model_attributes_type", "model_type", "dict_type") and not field:
        return f"{where}an expert is a mapping with 'name', 'backend' and 'model', not {given}"
    if kind == "union_tag_not_found":
        return f"{where}field 'backend' is missing; allowed: {known_names('backends', BACKENDS)}"
    if kind == "union_tag_invalid":
        tag = str(fault["input"].get("backend"))
        hint = did_you_mean(tag, BACKENDS)
        return f"{where}unknown backend '{tag}'; {hint}allowed: {known_names('backends', BACKENDS)}"
    if kind == "literal_error":
        return f"{where}{field} is {given}; allowed: {fault.get('ctx', {}).get('expected', '')}"
    if kind == "too_short" and field == "experts":
        return "there are no experts; add at least one"
    return f"{where}{field} is {given}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"


def _place(location: list[Any], content: dict[str, Any]) -> tuple[str, type[BaseModel] | None]:
    """Where a fault is, for people; takes what that says off the location."""
    if location[:1] == ["experts"] and len(location) > 1:
        index = location[1]
        entry = content["experts"][index]
        name = entry.get("name") if isinstance(entry, dict) else None
        del location[:2]
        section: type[BaseModel] | None = Backend
        named = entry.get("backend") if isinstance(entry, dict) else None
        if location and location[0] == named:
            sections = dict(zip(BACKENDS, get_args(ExpertSection), strict=True))
            section = sections.get(location[0]) or find_plugin("backends", location[0])
            del location[0]
        nested: dict[str, type[BaseModel]] = {"ktp": KTPSection, "token_prices": TokenPricesSection}
        if len(location) > 1 and location[0] in nested:
            section = nested[location[0]]
            location[1:] = [part for part in location[1:] if part not in ("str", "KTPSection")]
        return (f"expert '{name}': " if name else f"expert number {index + 1}: "), section
    if location[:1] == ["settings"] and len(location) > 1:
        del location[0]
        return "settings: ", SettingsSection
    return "", PoolFile


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # thousands of digits
        return "a very large number"
    return cut(text, 60)
