"""run.json: what a run was made from and how far it is.

A stage is fresh when its key (its settings and the contents of what it read) is the one it was last done with.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import platform
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from stemtomo_dl import __version__
from stemtomo_dl.errors import InputError
from stemtomo_dl.store.atomic import sha256, write_json

_LIBRARIES = ("numpy", "scipy", "numba", "h5py", "hdf5plugin", "scikit-image", "lap", "rosettasciio")
_ORIGIN = ("settings", "scans", "alpha_deg", "inputs", "version", "seed")  # its place on disk may change
_RAW = ("settings", "scans", "alpha_deg", "inputs")  # what of it tells the raw data


class Ledger:
    """The run's book: opened, it is locked against other processes until it is closed.

    Parameters
    ----------
    folder : Path
        The run's folder; it must hold a run.json unless ``origin`` is given.
    origin : dict, optional
        What the run is made from. A new run starts with it; an existing one must have been made from the same,
        but for scans that could not be read then and can be now.
    force : bool
        Take an existing run over to a new origin (``changed`` is then True), or use a folder that holds other
        files; nothing is deleted.

    Raises
    ------
    InputError
        If the folder is no run, another process works on it, or it was made from something else.
    """

    def __init__(self, folder: Path, origin: dict[str, Any] | None = None, *, force: bool = False) -> None:
        self.folder, self.changed = folder, False
        path = folder / "run.json"
        if origin is None and not path.exists():
            raise InputError(
                f"{folder}: is not a run (no run.json); start one with 'stemtomo run EXPERIMENT.toml -o {folder}'"
            )
        if origin is not None and not path.exists() and folder.exists() and _holds_foreign(folder) and not force:
            raise InputError(f"{folder}: holds files but no run; choose a new folder, or add --force to use this one")
        self._lock = _lock(folder)
        try:
            self.book: dict[str, Any] = _read(path) if path.exists() else {}
            if origin is not None:
                self._adopt(origin, force)
        except BaseException:
            self.close()
            raise

    def _adopt(self, origin: dict[str, Any], force: bool) -> None:
        """Begin a new book, or check the origin against the book's and take it over where that is asked for."""
        difference = _difference(self.book, origin, _ORIGIN) if self.book else ""
        if difference and not force:
            raise InputError(
                f"{self.folder}: was made from something else ({difference}); use another -o: "
                "--force redoes what depends on it"
            )
        self.changed = bool(difference)
        if not self.book:
            self.book = {"weights": [], "skipped": [], "notes": [], "stages": {}}
        if not self.book["stages"] or self.changed:
            self.book["python"] = platform.python_version()
            self.book["libraries"] = {n: _version(n) for n in _LIBRARIES}
        self.book.update(json.loads(json.dumps(origin)))
        self.save()

    def check_raw(self, raw: dict[str, Any]) -> None:
        """Hold what tells the raw data against the book's; take in what was unreadable then.

        Raises
        ------
        InputError
            If they are not those that the run was made from.
        """
        difference = _difference(self.book, raw, _RAW)
        if difference:
            raise InputError(
                f"{self.folder}: the raw data are no longer those it was made from ({difference}); restore them, or "
                f"run 'stemtomo run {self.book['experiment']} -o {self.folder} --force'"
            )
        self.book.update({name: raw[name] for name in _RAW})
        self.save()

    def close(self) -> None:
        """Unlock the run."""
        self._lock.close()

    def save(self) -> None:
        """Write the book to disk."""
        write_json(self.folder / "run.json", self.book)

    def skip(self, stage: str, reasons: Mapping[int, str]) -> None:
        """Note the tilts that a stage (or the "opening") leaves out; they replace those that it noted before."""
        listed = {s["tilt"]: s for s in self.book["skipped"] if s["stage"] != stage}
        for tilt, why in reasons.items():
            listed[tilt] = {"tilt": tilt, "scan": self.book["scans"][tilt], "reason": why, "stage": stage}
        new = [listed[t] for t in sorted(listed)]
        if new != self.book["skipped"]:
            self.book["skipped"] = new
            self.save()

    def note(self, lines: Iterable[str]) -> None:
        """Keep what the user should know of how the scans were opened."""
        if list(lines) != self.book.get("notes"):
            self.book["notes"] = list(lines)
            self.save()

    def key(self, settings: Any, inputs: list[str]) -> str:
        """Digest of a stage's settings and of the contents of the files that it reads."""
        digests = {name: self.digest(name) for name in inputs}
        text = json.dumps([__version__, settings, digests], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def digest(self, name: str, what: Callable[[Path], str] = sha256) -> str:
        """SHA-256 of a file of the run, or another digest of it; taken again only when its size or time has changed."""
        path = self.folder / name
        if not path.exists():
            raise InputError(f"{path}: is missing; run the stage that writes it (see 'stemtomo --help')")
        stat = path.stat()
        entry = name if what is sha256 else f"{name} ({what.__name__})"
        known = self.book.setdefault("digests", {}).get(entry)
        if not known or known["size"] != stat.st_size or known["mtime_ns"] != stat.st_mtime_ns:
            known = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": what(path)}
            self.book["digests"][entry] = known
        return str(known["sha256"])

    def fresh(self, stage: str, key: str) -> bool:
        """Whether a stage was done with this key and what it wrote is still there."""
        done = self.book["stages"].get(stage)
        return bool(done and done["key"] == key and all((self.folder / o).exists() for o in done["outputs"]))

    def outputs(self, stage: str) -> list[str]:
        """Files that a stage has written, or was about to write when it was killed."""
        return list(self.book["stages"].get(stage, {}).get("outputs", []))

    def claim(self, stage: str, outputs: Iterable[str]) -> None:
        """Enter files as a stage's before they are written, so that a killed stage leaves none that nobody owns."""
        every = sorted({*self.outputs(stage), *outputs})
        self.book["stages"][stage] = {"key": "", "seconds": 0.0, "outputs": every}
        self.save()

    def done(self, stage: str, key: str, seconds: float, outputs: list[str]) -> None:
        """Enter a finished stage."""
        self.book["stages"][stage] = {"key": key, "seconds": round(seconds, 3), "outputs": outputs}
        self.save()

    def forget(self, stages: Iterable[str]) -> None:
        """Strike out stages and remove the files that the book says they wrote; files that are not ours stay."""
        for stage in stages:
            for output in self.outputs(stage):
                self.remove(output)
            self.book["stages"].pop(stage, None)
        self.save()

    def remove(self, output: str) -> None:
        """Remove one of our files or folders of frames, and the folders about it where that leaves them empty."""
        path = self.folder / output
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        with suppress(OSError):  # not empty, or not there
            for parent in path.parents:
                if parent == self.folder:
                    break
                parent.rmdir()


def _holds_foreign(folder: Path) -> bool:
    return not folder.is_dir() or any(p.name != ".lock" for p in folder.iterdir())


def _lock(folder: Path) -> IO[str]:
    """Hold the run's lock file, or say who else does."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as e:
        raise InputError(f"{folder}: cannot be used as a run's folder ({e.strerror}); choose another -o") from e
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        lock.close()
        raise InputError(f"{folder}: another stemtomo is at work on this run; wait for it, or use another -o") from e
    except OSError as e:
        lock.close()
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


def _difference(book: dict[str, Any], origin: dict[str, Any], names: Iterable[str]) -> str:
    """The first thing in which two origins differ, in words; empty if none.

    Scans that the book has as left out may be read now, or still not.
    """
    origin = json.loads(json.dumps(origin))  # as it comes back from a file
    left_out = {s["scan"] for s in book["skipped"]}
    for name in names:
        old, new = book.get(name), origin.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            changed = sorted(k for k in {*old, *new} if old.get(k) != new.get(k))
            if name == "inputs":
                changed = [k for k in changed if k not in left_out]
            if changed:
                how = "is gone" if changed[0] not in new else "is new" if changed[0] not in old else "differs"
                return f"{name} '{changed[0]}' {how}"
        elif name == "scans" and isinstance(old, list) and isinstance(new, list) and old != new:
            more, fewer = [s for s in new if s not in old], [s for s in old if s not in new]
            which = f"'{more[0]}' is new" if more else f"'{fewer[0]}' is gone" if fewer else "in another order"
            return f"scans: {which}"
        elif old != new:
            return f"{name} differs"
    return ""


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
