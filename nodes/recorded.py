"""An expert that replays recorded answers: research on routing without running a single model.

    question ──look up──> the text that the model gave when it was recorded, with its token count

The human message must be the bare question, so a recorded expert uses the `none` template: what it said was
said without knowledge of others.
"""

from __future__ import annotations

import re
import threading
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_config_list
from pydantic import PrivateAttr

from der_graph.errors import ExpertError, cut
from der_graph.nodes.huggingface.weights import path_digest
from der_graph.nodes.ktp import estimate_tokens
from der_graph.nodes.quoting import neutralize
from der_graph.nodes.reliability.copying import remade

if TYPE_CHECKING:
    from der_graph.data import Candidate


class RecordedChat(BaseChatModel):
    """Replays one model's answers from a data file.

    The answer's `response_metadata` has `der_value` (the answer extracted when it was recorded, or None) and
    `der_scores` (its recorded qualities by name).
    """

    reads_itself: ClassVar[bool] = True
    """What was recorded is replayed as it is."""
    data: str | list[str]
    """Data file with recorded candidates, or several of them; see `der_graph.data`. To a question that is in
    more than one, the answer in the first counts."""
    model: str
    """Name of the model in that file."""

    _answers: dict[str, Candidate] | None = PrivateAttr(default=None)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> RecordedChat:
        """A copy of the settings, which shares what was read."""
        return self.model_copy()

    def __reduce__(self) -> Any:
        return remade(self)

    def load(self) -> None:
        """Read the file unless that was done.

        Raises:
            DataError: If the file cannot be read.
            ExpertError: If the model answered nothing in it.
        """
        self._recorded()

    def has_answer(self, question: str) -> bool:
        """Is there a recorded answer to this question?"""
        return neutralize(question.strip()) in self._recorded()

    def batch(
        self,
        inputs: list[Any],
        config: Any = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Answer one after another: looking up takes less than a thread does to start."""

        def ask(question: Any, own: RunnableConfig) -> Any:
            try:
                return self.invoke(question, own, **kwargs)
            except Exception as error:
                if return_exceptions:
                    return error
                raise

        return list(map(ask, inputs, get_config_list(config, len(inputs))))

    @property
    def fingerprint(self) -> str:
        """Changes with the file and the model's name."""
        digests = [_digest(file, _version(file)) for file in self.files]
        return f"recorded:{self.model}:{'+'.join(digests)}"

    @property
    def files(self) -> list[str]:
        """Its data files."""
        return [self.data] if isinstance(self.data, str) else self.data

    @property
    def where(self) -> str:
        """Its data files, for messages."""
        return ", ".join(self.files)

    @property
    def _llm_type(self) -> str:
        return "der-recorded"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"data": self.data, "model": self.model}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return LangSmithParams(
            ls_provider="recorded", ls_model_name=self.model, ls_model_type="chat"
        )

    def _recorded(self) -> dict[str, Candidate]:
        with self._lock:
            if self._answers is None:
                answers: dict[str, Candidate] = {}
                for file in self.files:
                    answers = {**_answers_in(file).get(self.model, {}), **answers}
                if not answers:
                    known = dict.fromkeys(m for file in self.files for m in recorded_models(file))
                    raise ExpertError(
                        f"{self.where} holds no answers of a model named '{self.model}', but of: "
                        f"{', '.join(known) or 'none at all'}"
                    )
                self._answers = answers
            return self._answers

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        asked = [message for message in messages if isinstance(message, HumanMessage)]
        question = neutralize(asked[-1].text.strip()) if asked else ""
        found = self._recorded().get(question)
        if found is None:
            raise ExpertError(
                f"no recorded answer of '{self.model}' to {cut(question)!r}; recorded experts answer only "
                f"the questions of {self.where}, and need the KTP template 'none'"
            )
        tokens_in = estimate_tokens(question)
        tokens_out = estimate_tokens(found.text) if found.tokens is None else found.tokens
        message = AIMessage(
            content=found.text,
            usage_metadata=UsageMetadata(
                input_tokens=tokens_in,
                output_tokens=tokens_out,
                total_tokens=tokens_in + tokens_out,
            ),
            response_metadata={
                "model_name": self.model,
                "der_value": found.answer,
                "der_scores": dict(found.scores),
            },
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


def recorded_models(path: str | Path) -> list[str]:
    """Names of the models that answered in a data file, in order of appearance."""
    return list(_answers_in(str(path)))


def expert_name_of(model: str) -> str:
    """What an expert is called that replays a model's answers: its name, as far as it can be a node's.

    Examples:
        >>> expert_name_of("openai:gpt-4o mini")
        'openai-gpt-4o-mini'
    """
    return re.sub(r"[|:\s]+", "-", model.strip())


_READING = threading.Lock()


def _answers_in(path: str) -> dict[str, dict[str, Candidate]]:
    """The answers in a file by model and question: read once, however many experts replay from it."""
    with _READING:
        return _parsed(path, _version(path))


def _version(path: str) -> tuple[int, int]:
    try:
        seen = Path(path).stat()
    except OSError:
        return 0, 0  # the reader says what is wrong
    return seen.st_mtime_ns, seen.st_size


@lru_cache(maxsize=8)
def _digest(path: str, version: tuple[int, int]) -> str:
    return path_digest(Path(path))


@lru_cache(maxsize=8)
def _parsed(path: str, version: tuple[int, int]) -> dict[str, dict[str, Candidate]]:
    from der_graph.data import load_examples  # heavy files: read when an answer is wanted

    answers: dict[str, dict[str, Candidate]] = {}
    for example in load_examples(path):
        question = example.question.strip()
        for model, candidate in example.candidates.items():
            answers.setdefault(model, {})[question] = candidate
    return answers
