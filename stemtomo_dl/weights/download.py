"""Fetching weights: resumed where it broke off, checked, and only then under their own name.

What has come lies in ``.NAME.part`` beside the target, so that the next attempt asks for the rest only. Of several
processes that want one file, one fetches it and the others wait for it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from stemtomo_dl.errors import InputError
from stemtomo_dl.weights.registry import Entry, find, is_whole, locate

_TIMEOUT_S = (10, 60)  # to connect; between two pieces
_PIECE = 1 << 18  # bytes; what a broken connection loses at most


class Listener(Protocol):
    """Somebody who is told how far a download is."""

    def waiting(self) -> None:
        """Another process is fetching this file."""
        ...

    def at(self, done: int, total: int) -> None:
        """``done`` of ``total`` bytes are on the disk."""
        ...


def fetch(name: str, listener: Listener | None = None) -> Path:
    """Path of an entry's file on this computer, verified; it is downloaded where it is absent or damaged.

    It comes from the registry's URL, or from the folder ``$STEMTOMO_WEIGHTS_URL`` of a mirror.

    Parameters
    ----------
    name : str
        Name in the registry.
    listener : Listener, optional

    Raises
    ------
    InputError
        If the name is not known, or the file cannot be had or written; what was there before stays, and the cache
        never has a file of that name that is not the right one because of us.
    """
    entry = find(name)
    if entry.file or is_whole(entry):
        return locate(name)
    try:
        entry.path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(entry.path, listener):
            if not is_whole(entry):  # it may have come while this process waited
                _download(name, entry, listener)
    except OSError as e:
        raise InputError(
            f"{entry.path}: cannot be written ({e.strerror}); free the disk, or choose another folder by STEMTOMO_CACHE"
        ) from e
    return entry.path


@contextmanager
def _alone(path: Path, listener: Listener | None) -> Iterator[None]:
    """Hold the lock of a file, waiting for whoever has it."""
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if listener:
                listener.waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(name: str, entry: Entry, listener: Listener | None) -> None:
    """Leave the whole file at the entry's path, or raise `InputError`."""
    import pooch
    import requests

    pooch.get_logger().setLevel("ERROR")
    mirror, path = os.environ.get("STEMTOMO_WEIGHTS_URL"), entry.path
    url = f"{mirror.rstrip('/')}/{entry.file_name}" if mirror else str(entry.url)
    get, what = _Resuming(path.with_name(f".{path.name}.part"), entry.size, listener), f"weights '{name}': {url}"
    by_hand = f"or put the file at {path} yourself"
    try:
        pooch.retrieve(url, f"sha256:{entry.sha256}", path.name, path.parent, downloader=get)
    except requests.HTTPError as e:
        status = f"{e.response.status_code} {e.response.reason}"
        raise InputError(f"{what}: the server says {status}; correct STEMTOMO_WEIGHTS_URL, {by_hand}") from e
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema) as e:
        raise InputError(f"{what}: not a URL; correct STEMTOMO_WEIGHTS_URL") from e
    except requests.RequestException as e:
        if get.came:
            raise InputError(
                f"{what}: the connection broke after {get.done} of {entry.size} bytes; start the same command again "
                "to go on there"
            ) from e
        host = urlsplit(url).netloc
        raise InputError(
            f"{what}: no connection to {host} ({type(e).__name__}); check the network, set STEMTOMO_WEIGHTS_URL to a "
            f"mirror, {by_hand}"
        ) from e
    except ValueError as e:  # pooch's word for another hash
        raise InputError(
            f"{what}: what came is not the file of the registry (its SHA-256 differs) and was removed; try again, "
            f"set STEMTOMO_WEIGHTS_URL to a mirror, {by_hand}"
        ) from e


class _Resuming:
    """What pooch downloads with: goes on where an earlier attempt broke off.

    Parameters
    ----------
    part : Path
        Holds what has come, between attempts.
    size : int
        Bytes of the whole file.
    listener : Listener, optional
    """

    def __init__(self, part: Path, size: int, listener: Listener | None) -> None:
        self._part, self._size, self._listener = part, size, listener
        self.done = 0  # bytes in the part
        self.came = False  # anything, in this attempt

    def __call__(self, url: str, output_file: str, pooch: object, check_only: bool = False) -> None:
        """Download to ``output_file``, as pooch asks for it.

        Raises
        ------
        InputError
            If the server's file has another size.
        requests.RequestException
            If the server refuses or the connection breaks; the part stays.
        """
        have = self._part.stat().st_size if self._part.exists() else 0
        self.done = have if have < self._size else 0
        with self._ask(url) as reply:
            self._receive(url, reply)
        os.replace(self._part, output_file)

    def _ask(self, url: str) -> Any:
        """The server's answer to the request for what is lacking; ``done`` becomes where the answer starts."""
        import requests

        headers = {"Accept-Encoding": "identity"}  # or lengths would be those of something else
        wanted = {"Range": f"bytes={self.done}-"} if self.done else {}
        reply = requests.get(url, headers=headers | wanted, stream=True, timeout=_TIMEOUT_S)
        if wanted and not (
            reply.status_code == 206 and reply.headers.get("Content-Range", "").startswith(f"bytes {self.done}-")
        ):
            self.done = 0
            if reply.status_code != 200:  # the server's file is shorter than the part, say
                reply.close()
                reply = requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S)
        reply.raise_for_status()
        return reply

    def _receive(self, url: str, reply: Any) -> None:
        """Add an answer to the part."""
        announced = self.done + int(reply.headers.get("Content-Length", self._size - self.done))
        if announced != self._size:
            self._part.unlink(missing_ok=True)
            raise InputError(
                f"{url}: has {announced} bytes, the registry says {self._size}: truncated, or another file; "
                "correct STEMTOMO_WEIGHTS_URL"
            )
        with self._part.open("ab" if self.done else "wb") as file:
            for piece in reply.iter_content(_PIECE):
                file.write(piece)
                self.done, self.came = self.done + len(piece), True
                if self._listener:
                    self._listener.at(self.done, self._size)
                if self.done > self._size:
                    break  # of no announced length; the hash will say that it is wrong
        if self.done < self._size:
            import requests

            raise requests.ConnectionError("closed before the end")
