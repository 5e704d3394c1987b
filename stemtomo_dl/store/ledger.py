"""run.json: what a run was made from and how far it is.

A stage is fresh when its key (its settings and the contents of what it read) is the one it was last done with.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from stemtomo_dl import __version__
from stemtomo_dl.errors import InputError
from stemtomo_dl.store.atomic import sha256, write_json

_LIBRARIES = ("numpy", "scipy", "numba", "h5py", "hdf5plugin", "scikit-image", "lap", "rosettasciio")
_ORIGIN = ("settings", "scans", "alpha_deg", "inputs", "version", "seed")  # its place on disk may change


class Ledger:
    """The run's book: opened, it is locked against other processes until it is closed.

    Parameters
    ----------
    folder : Path
        The run's folder; it must hold a run.json unless ``origin`` is given.
    origin : dict, optional
        What the run is made from. A new run starts with it; an existing one must have been made from the same.
    force : bool
        Throw away an existing run that was made from something else.

    Raises
    ------
    InputError
        If the folder is no run, another process works on it, or it was made from something else.
    """

    def __init__(self, folder: Path, origin: dict[str, Any] | None = None, *, force: bool = False) -> None:
        self.folder = folder
        path = folder / "run.json"
        if origin is None and not path.exists():
            raise InputError(
                f"{folder}: is not a run (no run.json); start one with 'stemtomo run EXPERIMENT.toml -o {folder}'"
            )
        if origin is not None and not path.exists() and folder.exists() and _holds_foreign(folder) and not force:
            raise InputError(f"{folder}: holds files but no run; choose a new folder, or add --force to use this one")
        self._lock = _lock(folder)
        self.book: dict[str, Any] = _read(path) if path.exists() else {}
        if origin is not None:
            self._adopt(origin, force)

    def _adopt(self, origin: dict[str, Any], force: bool) -> None:
        """Check the origin against the book's, and start anew where that is asked for."""
        difference = _difference(self.book, origin) if self.book else ""
        if difference and not force:
            self.close()
            raise InputError(
                f"{self.folder}: was made from something else ({difference}); use another -o, or --force to start anew"
            )
        if not self.book or difference:
            self._discard()
            libraries = {n: _version(n) for n in _LIBRARIES}
            self.book = {
                **origin,
                "python": platform.python_version(),
                "libraries": libraries,
                "weights": [],
                "skipped": [],
                "stages": {},
            }
        self.book["experiment"] = origin["experiment"]
        self.save()

    def _discard(self) -> None:
        """Remove the results of a run that is started anew; files that are not ours stay."""
        for name in ("particles", "phases", ".partial"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for stage in self.book.get("stages", {}).values():
            for output in stage.get("outputs", []):
                (self.folder / output).unlink(missing_ok=True)

    def close(self) -> None:
        """Unlock the run."""
        self._lock.close()

    def save(self) -> None:
        """Write the book to disk."""
        write_json(self.folder / "run.json", self.book)

    def skip(self, lines: list[str]) -> None:
        """Note tilts that are left out."""
        new = [line for line in lines if line not in self.book["skipped"]]
        if new:
            self.book["skipped"] += new
            self.save()

    def key(self, settings: Any, inputs: list[str]) -> str:
        """Digest of a stage's settings and of the contents of the files that it reads."""
        digests = {name: self.digest(name) for name in inputs}
        text = json.dumps([__version__, settings, digests], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def digest(self, name: str) -> str:
        """SHA-256 of a file of the run; read again only when its size or time has changed."""
        path = self.folder / name
        if not path.exists():
            raise InputError(f"{path}: is missing; run the stage that writes it (see 'stemtomo --help')")
        stat = path.stat()
        known = self.book.setdefault("digests", {}).get(name)
        if not known or known["size"] != stat.st_size or known["mtime_ns"] != stat.st_mtime_ns:
            known = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256(path)}
            self.book["digests"][name] = known
        return str(known["sha256"])

    def fresh(self, stage: str, key: str) -> bool:
        """Whether a stage was done with this key and what it wrote is still there."""
        done = self.book["stages"].get(stage)
        return bool(done and done["key"] == key and all((self.folder / o).exists() for o in done["outputs"]))

    def done(self, stage: str, key: str, seconds: float, outputs: list[str]) -> None:
        """Enter a finished stage."""
        self.book["stages"][stage] = {"key": key, "seconds": round(seconds, 3), "outputs": outputs}
        self.save()


def _holds_foreign(folder: Path) -> bool:
    return not folder.is_dir() or any(p.name != ".lock" for p in folder.iterdir())


def _lock(folder: Path) -> IO[str]:
    """Hold the run's lock file, or say who else does."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        raise InputError(f"{folder}: another stemtomo is at work on this run; wait for it, or use another -o") from e
    except OSError as e:
        raise InputError(f"{folder}: cannot be used as a run's folder ({e.strerror}); choose another -o") from e
    return lock


def _read(path: Path) -> dict[str, Any]:
    try:
        book = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(book, dict) or "stages" not in book:
            raise ValueError("it is not a run's book")
    except (OSError, ValueError) as e:
        raise InputError(f"{path}: cannot be read ({e}); remove it and start the run again with --force") from e
    return book


def _difference(book: dict[str, Any], origin: dict[str, Any]) -> str:
    """The first thing in which two origins differ, in words; empty if none."""
    origin = json.loads(json.dumps(origin))  # as it comes back from a file
    for name in _ORIGIN:
        old, new = book.get(name), origin.get(name)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            key = next(k for k in sorted({*old, *new}) if old.get(k) != new.get(k))
            return f"{name} '{key}' differs"
        return f"{name} differs"
    return ""


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
