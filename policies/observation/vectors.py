"""Sentence vectors on disk, so that the next run on the same texts encodes nothing.

    texts ──known──> vectors of the file
          ──new────> encoder, a few at a time ──> the file

One SQLite file, shared by threads and processes like the answer cache; a vector's key digests encoder and
text. What cannot be read is encoded anew: the file only saves time.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from der_graph.nodes.huggingface.weights import path_digest
from der_graph.policies.observation.encoder import FrozenEncoder, TextEncoder, Vectors

_AT_ONCE = 256  # texts between two reports of progress
_KEYS_A_QUERY = 500


class CachedEncoder(FrozenEncoder):
    """An encoder that keeps its vectors in a file.

    Args:
        encoder: Encodes what is new.
        path: The file, made if it is missing.
        on_encoded: Called with the number of texts whenever some are there, from the file or new.
    """

    _remember = 50_000

    def __init__(
        self,
        encoder: TextEncoder,
        path: str | os.PathLike[str],
        on_encoded: Callable[[int], None] | None = None,
    ) -> None:
        self.encoder = encoder
        self.path = Path(path)
        self.on_encoded = on_encoded
        folder = Path(os.path.expanduser(encoder.name))
        self._identity = encoder.name + (path_digest(folder) if folder.is_dir() else "")
        self._begin()

    @property
    def name(self) -> str:
        """The encoder's."""
        return self.encoder.name

    def _encoded(self, new: list[str]) -> Iterator[Mapping[str, Vectors]]:
        kept = self._read(new)
        yield kept
        self._tell(len(kept))
        new = sorted((text for text in new if text not in kept), key=len, reverse=True)
        for start in range(0, len(new), _AT_ONCE):
            chunk = new[start : start + _AT_ONCE]
            found = dict(zip(chunk, self.encoder.encode(chunk), strict=True))
            yield found
            self._write(found)
            self._tell(len(chunk))

    def _tell(self, count: int) -> None:
        if self.on_encoded is not None:
            self.on_encoded(count)

    def _key(self, text: str) -> bytes:
        data = f"{self._identity}\x00{text}".encode("utf-8", "surrogatepass")
        return hashlib.sha256(data).digest()

    def _read(self, texts: Sequence[str]) -> dict[str, Vectors]:
        by_key = {self._key(text): text for text in texts}
        keys, found = list(by_key), {}
        try:
            with closing(self._connect()) as database:
                for start in range(0, len(keys), _KEYS_A_QUERY):
                    chunk = keys[start : start + _KEYS_A_QUERY]
                    marks = ",".join("?" * len(chunk))
                    query = f"SELECT key, vector FROM vectors WHERE key IN ({marks})"
                    for key, vector in database.execute(query, chunk):
                        found[by_key[key]] = np.frombuffer(vector, dtype="<f4")
        except (sqlite3.Error, OSError, ValueError) as error:
            self._warn(error)
            return {}
        return found

    def _write(self, found: dict[str, Vectors]) -> None:
        rows = [(self._key(text), vector.astype("<f4").tobytes()) for text, vector in found.items()]
        try:
            with closing(self._connect()) as database, database:
                database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
        except (sqlite3.Error, OSError) as error:
            self._warn(error)

    def _connect(self) -> sqlite3.Connection:
        self.path.absolute().parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self.path, timeout=30.0)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(
                "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID"
            )
        except BaseException:
            database.close()
            raise
        return database

    def _warn(self, error: Exception) -> None:
        warnings.warn(
            f"sentence vectors in {self.path} cannot be used ({error}); texts are encoded anew. "
            "Delete the file if it is damaged",
            stacklevel=5,
        )
