"""Asking experts on a Ray cluster: workers load the pool file and answer, this process keeps what they say.

    jobs ──ActorPool──> worker: load_pool, Expert.ask ──answers──> here, the only one that writes the cache

Ray does the scheduling. On several machines every one needs der-graph, the pool file under the same path and
what it names: weights, or keys of remote engines. Needs the extra `ray`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from langchain_core.messages import BaseMessage

from der_graph.errors import ExpertError, PoolError, require
from der_graph.policies.answers.collect import Done, Job, chunks_of
from der_graph.pool.pool import load_pool, pool_path
from der_graph.state import Answer


class Worker:
    """One process of the cluster, with experts of its own.

    Args:
        pool: Path of the pool file.
        fingerprint: Of the pool as the driver sees it.
        allow_python: As in `load_pool`.
    """

    def __init__(self, pool: str, fingerprint: str, allow_python: bool = False) -> None:
        self._pool = load_pool(pool, allow_python=allow_python)
        if self._pool.fingerprint != fingerprint:
            # Answers of other weights would be kept under the driver's keys.
            raise PoolError(
                f"{pool} on this worker describes other experts than on the driver (other weights, "
                "settings or prompts); use the same files on every machine"
            )

    def ask(
        self, number: int, expert: str, prompts: list[list[BaseMessage]]
    ) -> tuple[int, list[Answer]]:
        """Ask one expert; the number of the batch goes back with its answers, which come in any order."""
        return number, self._pool[expert].ask(prompts)


class RayEngine:
    """Asks experts on a Ray cluster; a context manager.

    Args:
        pool: Path of the pool file, or `demo`.
        address: Of the cluster's head; None starts one on this machine and ends it again.
        workers: How many processes; one per CPU of the cluster where left out.
        gpus: GPUs of each worker; a part of one is allowed.
        allow_python: As in `load_pool`.

    Raises:
        MissingDependencyError: If Ray is not installed.
        ExpertError: If there is no such cluster, or a worker fails.
    """

    def __init__(
        self,
        pool: str | Path,
        *,
        address: str | None = None,
        workers: int | None = None,
        gpus: float = 0.0,
        allow_python: bool = False,
    ) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone
        self._ray: Any = require("ray", extra="ray", why="--engine ray")
        self._path = str(pool if pool == "demo" else pool_path(pool).resolve())
        self._pool = load_pool(self._path, allow_python=allow_python)
        self._allow_python = allow_python
        self._address = address
        self._wanted = workers
        self._gpus = gpus
        self._ours = False
        self._workers: list[Any] = []

    def __enter__(self) -> RayEngine:
        ray = self._ray
        if self._address:
            _check_reachable(self._address)
        try:
            if not ray.is_initialized():
                local = {} if self._address else {"num_cpus": self._wanted}
                ray.init(
                    address=self._address or "local",
                    include_dashboard=None if self._address else False,
                    log_to_driver=False,
                    logging_level="ERROR",
                    **local,
                )
                self._ours = True
            count = self._wanted or max(1, int(ray.cluster_resources().get("CPU", 1)))
            remote = ray.remote(num_cpus=1, num_gpus=self._gpus)(Worker)
            self._workers = [
                remote.remote(self._path, self._pool.fingerprint, self._allow_python)
                for _ in range(count)
            ]
        except BaseException as error:
            self.__exit__(None, None, None)
            if isinstance(error, (ConnectionError, RuntimeError, ValueError)):
                where = self._address or "on this machine"
                raise ExpertError(f"Ray cluster {where}: {_first_line(error)}") from error
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            self._ray.kill(worker)
        self._workers = []
        if self._ours:
            self._ray.shutdown()
            self._ours = False

    def answers(self, jobs: Sequence[Job]) -> Iterator[Done]:
        """See `Engine`."""
        from ray.util import ActorPool

        names = self._pool.names
        chunks = chunks_of(jobs)

        def ask(worker: Any, numbered: tuple[int, list[Job]]) -> Any:
            number, chunk = numbered
            prompts = [job.prompt for job in chunk]
            return worker.ask.remote(number, names[chunk[0].expert], prompts)

        pool = ActorPool(self._workers)
        try:
            for number, answers in pool.map_unordered(ask, list(enumerate(chunks))):
                yield list(zip(chunks[number], answers, strict=True))
        except self._ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            raise ExpertError(
                f"a Ray worker failed ({type(cause).__name__}: {_first_line(cause)}); what was answered "
                "before is in the cache: the same command goes on"
            ) from error


def _check_reachable(address: str) -> None:
    """Find out at once what Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # "auto": Ray knows
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ExpertError(
            f"there is no Ray cluster at {address} ({error.strerror or error}); start one with "
            "'ray start --head' and give its address, or leave --address out"
        ) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
