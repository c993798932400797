"""Replies that a provider's client cannot read, such as a proxy's page of HTML with status 200.

Knows nothing of experts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from der_graph.errors import ExpertError
from der_graph.nodes.providers.client_errors import failure_of

_OF_REPLIES = [(name,) for name in ("choices", "message", "delta", "content", "output", "index")]
_NO_DICT = "Unexpected response type"  # LangChain, of bodies that are text, a list or null


@contextmanager
def readable_reply() -> Iterator[None]:
    """Turn what a client's own code raises over a reply that is no answer into a provider out of order.

    A whole answer then fails as a stream does, which simply ends.

    Raises:
        ExpertError: Of the kind `unavailable`, saying what the client stumbled over.
    """
    try:
        yield
    except (AttributeError, LookupError, ValueError) as error:
        if isinstance(error, KeyError) and error.args[:1] not in _OF_REPLIES:
            raise  # of a message that LangChain cannot send
        stumbled = not isinstance(error, ValueError) or isinstance(error, json.JSONDecodeError)
        if failure_of(error).kind != "error" or not (stumbled or _NO_DICT in str(error)):
            raise
        failure = ExpertError(
            f"its provider's reply is no answer that can be read ({type(error).__name__}: {error})"
        )
        failure.failure_kind = "unavailable"
        raise failure from error
