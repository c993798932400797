"""Files that are written whole or not at all.

    text ──save_text──> FILE.<process>.part ──renamed──> FILE

What was there before stays until then, two processes that write the same file do not disturb each other, and
what a full disk cut short gives its space back.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from der_graph.data.untrusted import check_regular
from der_graph.errors import DataError, DERError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Replace a file by what the block writes to the path it is given.

    Raises:
        DataError: If it cannot be written: a full disk, a folder that is read-only, a device.
    """
    target = Path(path)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    with told(target):
        try:
            if target.exists():
                check_regular(target)
            yield part
            os.replace(part, target)
        finally:
            with suppress(OSError):
                part.unlink()


@contextmanager
def told(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what goes wrong while a file is written into one error that says what to do.

    Raises:
        DataError: If it cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}); make room there, or give another path"
        ) from None


def save_text(path: str | os.PathLike[str], text: str, *, make: bool = False) -> None:
    """Write a file of UTF-8 text, whole or not at all.

    Args:
        path: The file.
        text: What it holds.
        make: Make its folder if there is none?

    Raises:
        DataError: If it cannot be written.
    """
    with replacing(path) as part:
        if make:
            part.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")


@contextmanager
def sole_writer(path: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other processes from writing to a file or folder too, which would mix their results.

    Where a file system has no locks, as that of some network shares, nothing keeps them.

    Raises:
        DataError: If one does so already.
    """
    target = Path(path)
    beside = target.with_name(f"{target.name}.lock")
    lock = FileLock(target / "run.lock" if target.is_dir() else beside, timeout=0)
    with told(target):
        target.parent.stat()  # the lock would make it
        try:
            lock.acquire()
        except Timeout:
            raise DataError(
                f"{target}: another process is writing to it; wait until it ends, or give another path"
            ) from None
        except NotImplementedError:
            pass
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                raise
    try:
        yield
    finally:
        # Unlinked first: whoever has opened it meanwhile finds it gone, and whoever makes it anew is alone.
        with suppress(OSError):
            os.unlink(lock.lock_file)
        lock.release()


@contextmanager
def sole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Make a folder that no other process writes results to meanwhile; removed again if it stays empty.

    Raises:
        DataError: If one does so already, or the folder cannot be made or written to.
    """
    new = not Path(path).exists()
    folder = check_folder(path, make=True)
    try:
        with sole_writer(folder):
            yield folder
    finally:
        if new:
            with suppress(OSError):
                folder.rmdir()


def check_file(path: str | os.PathLike[str]) -> None:
    """See that results can be written to a file, before they have cost anything.

    Raises:
        DataError: If its folder cannot be written to, or it is no file.
    """
    target = Path(path)
    check_folder(target.parent)
    with told(target):
        if target.exists():
            check_regular(target)


def check_folder(
    path: str | os.PathLike[str], error: type[DERError] = DataError, *, make: bool = False
) -> Path:
    """See that results can be written to a folder, before they have cost anything.

    Args:
        path: The folder.
        error: What is raised.
        make: Make it? Else it is enough that it can be made.

    Returns:
        The folder.

    Raises:
        DERError: If it cannot be made, or not be written to.
    """
    folder = Path(path)
    try:
        there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
        if not there.is_dir():
            raise NotADirectoryError(f"{there} is a file")
        if not os.access(there, os.W_OK):
            raise PermissionError(f"{there} is read-only")
        if make:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise error(
            f"{folder}: the folder cannot be made or written to ({cause.strerror or cause}); give "
            "another path"
        ) from None
    return folder
