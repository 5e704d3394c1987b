"""Files appear whole or not at all: written under a temporary name beside their own, then moved."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stemtomo_dl.errors import InputError

_PLACE = (errno.EACCES, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
_USERS = (*_PLACE, errno.ENOSPC, errno.EDQUOT)  # faults that the user can mend


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary path to write to; moved to ``path`` when the block ends well, removed when it does not.

    Raises
    ------
    InputError
        If the disk is full, or the folder cannot be written or is none.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(temporary)  # what a killed process left
        yield temporary
        for written in temporary.rglob("*") if temporary.is_dir() else (temporary,):
            _flush(written)  # or a power cut may leave the new name with nothing under it
        os.replace(temporary, path)
    except OSError as e:
        if e.errno in _USERS:
            raise InputError(f"{path}: cannot be written ({e.strerror}); free the disk or choose another folder") from e
        raise
    finally:
        with suppress(OSError):  # the reason why it was not written is told, not why it cannot be cleaned up
            _remove(temporary)


def check_folder(folder: Path) -> None:
    """Find out whether files can be written to a folder, before hours go into them; nothing is left behind.

    Raises
    ------
    InputError
        If they cannot, or it is none.
    """
    made: list[Path] = []
    try:
        made = [p for p in (folder, *folder.parents) if not p.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as e:
        raise InputError(f"{folder}: cannot be written to ({e.strerror}); choose another folder") from e
    finally:
        for path in made:
            with suppress(OSError):
                path.rmdir()


def _flush(path: Path) -> None:
    """Bring a file's contents to the disk."""
    if path.is_file():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON."""
    with writing(path) as tmp:
        tmp.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    with writing(path) as tmp:
        tmp.write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
