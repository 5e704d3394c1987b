"""What each stage reads, and whether its result still stands."""

from __future__ import annotations

from typing import Any

from stemtomo_dl.crystals import series_tracks
from stemtomo_dl.run import Run
from stemtomo_dl.segment import weights_of
from stemtomo_dl.store import results
from stemtomo_dl.store.atomic import sha256
from stemtomo_dl.store.particle_files import Files

_TRACKED = ["images.h5", "masks.h5", "tracks.csv", "particles.csv", "drift.csv"]
_READS: dict[str, list[str]] = {  # beside the settings, the raw scans, and what has no fixed place
    "images": [],
    "segment": ["images.h5"],
    "track": ["images.h5"],  # and of masks.h5 what the segmenter found: the rest is its own
    "extract": _TRACKED,
    "index": [],
    "integrate": [],
    "solve": [],
    "report": _TRACKED,
}
_FACTS = {
    "track": "stage",
    "extract": "extraction",
    "index": "indexing",
    "integrate": "integration",
    "solve": "structures",
}
_PARTICLES = {  # what of a particle's files a stage reads
    "index": ("series",),
    "integrate": ("series", "spots", "crystal"),
}


def key_of(run: Run, name: str) -> str:
    """Digest of all that a stage's result depends on."""
    book, sample = run.ledger.book, run.experiment.sample
    depends: list[Any] = [book["settings"].get(name)]
    if name in ("segment", "track"):
        weights = weights_of(run.experiment.segment)
        depends.append(weights and weights[1])
    if name == "track":
        depends += [book["settings"]["segment"], run.ledger.digest("masks.h5", results.found_digest)]
    if name in ("extract", "report"):
        depends.append(book.get("stage"))
    if name in ("track", "images", "extract"):
        depends.append(run.experiment.instrument.__dict__)
    if name in ("images", "extract"):
        inputs = {k: v for k, v in book["inputs"].items() if k not in sample.phases}
        depends += [book["scans"], book["alpha_deg"], inputs, book["settings"]["scans"], book["settings"]["detector"]]
    if name == "index":
        depends.append(run.experiment.instrument.rotation_deg)
    if name == "integrate":
        depends.append(book.get("indexing", {}).get("geometry"))
    if name in ("integrate", "solve"):
        depends += [sample.elements, [[p.stem, sha256(p)] for p in run.candidates()]]
    if name == "solve":
        if run.experiment.solve.restraints:  # asked for by the settings, or by the verb alone
            depends.append("restraints")
        read = sorted(p for p in run.folder.glob("phases/*/merged.*") if p.suffix in (".hkl", ".ins"))
        depends += [[n, run.ledger.digest(n)] for n in (str(p.relative_to(run.folder)) for p in read)]
    if name == "report":
        depends += _of_report(run)
    return run.ledger.key(depends, _READS[name] + _read_of_particles(run, name))


def _of_report(run: Run) -> list[Any]:
    book, states = run.ledger.book, run.folder / "states.csv"
    keys = [book["stages"].get(n, {}).get("key") for n in ("extract", "index", "integrate", "solve")]
    known = run.ledger.digest(states.name) if states.exists() else None
    return [known, book["settings"], book["scans"], book["skipped"], *keys]


def _read_of_particles(run: Run, name: str) -> list[str]:
    if name not in _PARTICLES:
        return []
    files = [Files.of(k) for k in series_tracks(run)]
    named = [getattr(f, kind) for f in files for kind in _PARTICLES[name]]
    return [n for n in named if (run.folder / n).exists()]


def is_fresh(run: Run, name: str) -> bool:
    """Whether a stage need not be done again; a stage whose input is not there is not."""
    there = all((run.folder / f).exists() for f in (*_READS[name], *(["masks.h5"] if name == "track" else [])))
    made = name not in _PARTICLES or "extract" in run.ledger.book["stages"]
    return there and made and run.ledger.fresh(name, key_of(run, name))


def forget(run: Run, names: list[str]) -> None:
    """Strike out stages with their files and what they have found out."""
    run.ledger.forget(names)
    for name in names:
        run.ledger.book.pop(_FACTS.get(name, ""), None)
    run.ledger.save()
