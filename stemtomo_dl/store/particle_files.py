"""Where in a run the files of a particle lie."""

from __future__ import annotations

from typing import NamedTuple

from stemtomo_dl.store.results import series_name


class Files(NamedTuple):
    """A particle's files, by their place in the run."""

    series: str
    spots: str
    crystal: str
    reflections: str
    hkl: str
    ins: str

    @classmethod
    def of(cls, track: int) -> Files:
        """Those of a track."""
        name, series = f"p{track:04d}", series_name(track)
        place = series.rpartition("/")[0]
        own = ("spots.h5", "crystal.json", "reflections.h5", f"{name}.hkl", f"{name}.ins")
        return cls(series, *(f"{place}/{n}" for n in own))

    @property
    def derived(self) -> tuple[str, ...]:
        """What is computed from the series."""
        return self[1:]

    @property
    def integrated(self) -> tuple[str, ...]:
        """What is measured with the crystal."""
        return self[3:]
