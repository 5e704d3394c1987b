"""A run in hand: its folder, its book, its raw scans, and how a stage works through its tilts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from stemtomo_dl import __version__
from stemtomo_dl.config import Experiment, check
from stemtomo_dl.errors import BadScan, InputError
from stemtomo_dl.records import TiltSeries
from stemtomo_dl.store.fingerprint import fingerprints
from stemtomo_dl.store.ledger import Ledger
from stemtomo_dl.store.partial import Partial
from stemtomo_dl.store.series import Opened, open_series, reason
from stemtomo_dl.workers import Failed, MakeExecutor, cores, local, spread

T = TypeVar("T")


class Progress(Protocol):
    """Somebody who is told how far a stage is."""

    def stage(self, name: str, total: int) -> AbstractContextManager[Callable[[], None]]:
        """Enter a stage of ``total`` steps; the value is called after each."""
        ...


class Run:
    """A run on disk, locked against other processes until it is closed; use it in a ``with`` block.

    Parameters
    ----------
    folder : Path
    ledger : Ledger
        The run's book, open.
    progress : Progress
    skip_bad : bool
        Leave out tilts that cannot be read, rather than stop at the first.
    toml : Path
        The experiment file.
    opened : Opened, optional
        The raw scans, where they have been opened and found to be those of the book.

    Attributes
    ----------
    executor : callable or None
        Makes what works on particles where they are much work; None: this process. Set another before a stage begins
        to have the work done elsewhere.
    """

    executor: MakeExecutor | None

    def __init__(
        self,
        folder: Path,
        ledger: Ledger,
        progress: Progress,
        skip_bad: bool,
        toml: Path,
        opened: Opened | None = None,
    ) -> None:
        self.folder, self.ledger, self.progress = folder, ledger, progress
        self.skip_bad, self._toml, self._opened = skip_bad, toml, opened
        self.experiment = check(Experiment, ledger.book["settings"], f"{folder / 'run.json'}: settings")
        self.executor = local if cores() > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ledger.close()

    @property
    def series(self) -> TiltSeries:
        """The raw scans, opened when a stage first asks for them.

        Raises
        ------
        InputError
            If they are not those that the run was made from.
        """
        if self._opened is None:
            opened = open_series(self._toml, self.skip_bad)
            raw = _origin(self._toml, opened)
            live, settings = raw["settings"], self.ledger.book["settings"]  # a stage goes by the book's settings,
            raw["settings"] = {**settings, "scans": live["scans"], "detector": live["detector"]}  # but for its data
            self.ledger.check_raw(raw)
            _enter(self.ledger, opened)
            self._opened = opened
        return self._opened.series

    @property
    def alpha_deg(self) -> np.ndarray:
        """Stated tilt angles, NaN where a tilt has none."""
        return np.array([np.nan if a is None else a for a in self.ledger.book["alpha_deg"]])

    def per_tilt(self, stage: str, key: str, todo: list[int], work: Callable[[int], dict[str, np.ndarray]]) -> Partial:
        """Do a stage's work for every tilt that is not done; a bad tilt ends the run or, if asked for, is skipped.

        Raises
        ------
        InputError
            If a tilt cannot be read, or none of them where bad ones are skipped.
        """
        partial, lost = Partial(self.folder, stage, key), {}
        with self.progress.stage(stage, len(todo)) as advance:
            for tilt in todo:
                if not partial.has(tilt):
                    try:
                        partial.save(tilt, **work(tilt))
                    except BadScan as e:
                        if not self.skip_bad:
                            raise BadScan(f"{e}; or add --skip-bad to go on without tilt {tilt}") from e
                        lost[tilt] = reason(e, self._toml.parent, self.ledger.book["scans"][tilt])
                advance()
        self.ledger.skip(stage, lost)
        if todo and len(lost) == len(todo):
            raise InputError(f"{self.folder}: none of the {len(todo)} tilts could be read; the first: {lost[todo[0]]}")
        return partial

    def candidates(self) -> list[Path]:
        """CIFs of the phases that the sample may hold; a folder that the experiment names stands for those in it.

        Raises
        ------
        InputError
            If one is not there.
        """
        found: list[Path] = []
        for name in self.experiment.sample.phases:
            path = self._toml.parent / name
            files = sorted(path.glob("*.cif")) if path.is_dir() else [path]
            if not files or not all(f.is_file() for f in files):
                raise InputError(f"{self._toml}: [sample] phases names '{name}', which is no CIF; correct or remove it")
            found += files
        return found

    def per_particle(
        self,
        stage: str,
        key: str,
        jobs: Mapping[int, tuple[Any, ...]],
        work: Callable[..., T],
        keep: Callable[[int, T], dict[str, np.ndarray]],
        *,
        heavy: bool,
    ) -> tuple[Partial, dict[int, str]]:
        """Do a stage's work for every particle that is not done; one that fails does not stop the others.

        Parameters
        ----------
        stage, key : str
        jobs : mapping
            The arguments of ``work``, picklable, by the number of the particle, or of another item.
        work : callable
            A function of a module; it may run in another process.
        keep : callable
            Called here with each result, to write its files; the arrays that it returns are kept until the stage ends.
        heavy : bool
            Whether this is worth the seconds in which other processes start.

        Returns
        -------
        Partial
            The kept arrays of the particles that did not fail.
        dict
            Why the others failed.
        """
        partial = Partial(self.folder, stage, key, "particle")
        left = {k: j for k, j in jobs.items() if not partial.has(k)}
        with self.progress.stage(stage, len(jobs)) as advance:
            for _ in range(len(jobs) - len(left)):
                advance()

            def done(k: int, result: T | Failed) -> None:
                if isinstance(result, Failed):
                    partial.save(k, failed=np.array(result.reason.replace(f"{self.folder}/", "")))
                else:
                    partial.save(k, **keep(k, result))
                advance()

            spread(work, left, done, self.executor if heavy and len(left) > 1 else None)
        held = {k: partial.load(k) for k in jobs}
        return partial, {k: str(a["failed"]) for k, a in held.items() if "failed" in a}


def open_run(experiment: Path, folder: Path, progress: Progress, *, skip_bad: bool = False, force: bool = False) -> Run:
    """Open a run for an experiment: a new one, or the one that lies there if it was made from the same.

    Raises
    ------
    InputError
        If the experiment or its scans are wrong, or the folder holds something else and ``force`` is not set.
    """
    opened = open_series(experiment, skip_bad)
    ledger = Ledger(folder, _origin(experiment, opened), force=force)
    try:
        _enter(ledger, opened)
        return Run(folder, ledger, progress, skip_bad, experiment, opened)
    except BaseException:
        ledger.close()
        raise


def reopen(folder: Path, progress: Progress, *, skip_bad: bool = False) -> Run:
    """Open a run that exists, to do one of its stages."""
    ledger = Ledger(folder)
    try:
        book = ledger.book
        return Run(folder, ledger, progress, skip_bad or bool(book["skipped"]), Path(book["experiment"]))
    except BaseException:
        ledger.close()
        raise


def _origin(toml: Path, opened: Opened) -> dict[str, Any]:
    """What a run is made from, as its book holds it."""
    settings, series = opened.experiment, opened.series
    return {
        "version": __version__,
        "experiment": str(toml.resolve()),
        "settings": settings.model_dump(mode="json"),
        "alpha_deg": [None if math.isnan(a) else float(a) for a in series.alpha_deg],
        "scans": list(series.names),
        "inputs": fingerprints(toml, settings, series),
        "seed": 0,
    }


def _enter(ledger: Ledger, opened: Opened) -> None:
    """Note what the opening left out, assumed and dropped."""
    ledger.skip("opening", opened.left_out)
    ledger.note(opened.notes)
