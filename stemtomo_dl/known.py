"""Known answers: a synthetic experiment written with its truth, and a run held against a truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stemtomo_dl import __version__
from stemtomo_dl.errors import InputError
from stemtomo_dl.learn.metrics import score_run
from stemtomo_dl.run import Progress
from stemtomo_dl.simulate.scene import load_scene
from stemtomo_dl.simulate.series import simulate as simulate_series
from stemtomo_dl.store import results
from stemtomo_dl.store.experiment import write_experiment
from stemtomo_dl.store.linked import read_linked
from stemtomo_dl.store.truth import read_truth


def simulate(scene: str, folder: Path, progress: Progress) -> int:
    """Write a synthetic experiment with its truth; the number of its scans.

    Parameters
    ----------
    scene : str
        Path of a scene file, or the name of one that comes with the package.
    """
    described, cifs = load_scene(Path(scene))
    series = simulate_series(described, cifs)
    experiment = described.experiment(series.elements)
    origin = {"version": __version__, **described.model_dump(mode="json")}
    with progress.stage("simulate", len(series)) as advance:
        write_experiment(
            folder,
            experiment,
            series.truth,
            series.stated_deg,
            series.rows,
            series.shape,
            origin,
            cifs,
            mask=series.listed_pixels,
            advance=advance,
        )
    return len(series)


def evaluate(folder: Path, truth: Path) -> dict[str, Any]:
    """Scores of a run's masks and tracks against a truth."""
    known = read_truth(truth)
    _, good, _ = results.read_image_facts(folder / "images.h5")
    if len(good) != len(known.alpha_deg):
        raise InputError(
            f"{truth}: has {len(known.alpha_deg)} tilts, {folder} has {len(good)}; they do not belong together"
        )
    return score_run(*read_linked(folder), known, good)
