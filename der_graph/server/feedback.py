"""What users say of answers, for servers that learn.

    {"id": "chatcmpl-...", "score": 1.0} ──rate──> Learner.rate

Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import json
import logging

from der_graph.errors import DataError
from der_graph.nodes.providers.secrets import mask_secrets
from der_graph.server.engine import Engine
from der_graph.server.failures import RequestError

log = logging.getLogger("der_graph.server")


async def rate(engine: Engine, body: bytes) -> None:
    """Take one piece of feedback.

    Args:
        engine: Whose agent learns.
        body: JSON of an object with `id`, that of the completion, and `score`, from 0 to 1.

    Raises:
        RequestError: 404 where nothing is learnt, or the route is not known; 400 for anything else that is
            wrong with it; 503 while loading, or where the store cannot be written.
    """
    if not engine.ready:
        raise RequestError(
            503, "the models are being loaded; try again soon", code="not_ready", retry_after=2
        )
    if engine.learner is None:
        raise RequestError(
            404, "this server does not learn: start it with --learn", code="not_found"
        )
    try:
        given = json.loads(body)
        key, score = given["id"], given["score"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RequestError(
            400,
            'feedback is {"id": "chatcmpl-...", "score": a number from 0 to 1}',
            code="bad_feedback",
        ) from None
    if not isinstance(key, str):
        raise RequestError(400, "id must be a text", param="id", code="bad_feedback")
    try:
        await asyncio.to_thread(engine.learner.rate, key, score)
    except DataError as error:
        known = "there is no route" in str(error)
        raise RequestError(404 if known else 400, str(error), code="bad_feedback") from None
    except Exception as error:  # of the store
        log.warning("feedback was not kept: %s", mask_secrets(f"{type(error).__name__}: {error}"))
        raise RequestError(
            503, "feedback cannot be kept now; try again later", code="not_kept", retry_after=30
        ) from None
    if engine.watch is not None:
        engine.watch.rated(key, score)
