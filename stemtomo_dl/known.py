"""Known answers: a synthetic experiment written with its truth, and a run held against a truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stemtomo_dl import __version__
from stemtomo_dl.errors import InputError
from stemtomo_dl.learn.metrics import score_run
from stemtomo_dl.records import VirtualImages
from stemtomo_dl.run import Progress
from stemtomo_dl.simulate.random_scene import random_scene
from stemtomo_dl.simulate.scene import Scene, load_scene
from stemtomo_dl.simulate.series import Series
from stemtomo_dl.simulate.series import simulate as play
from stemtomo_dl.store import results
from stemtomo_dl.store.experiment import Origin, write_expected, write_experiment
from stemtomo_dl.store.linked import read_linked
from stemtomo_dl.store.truth import read_truth

RANDOM = "random"  # stands for a scene that is drawn


def simulate(scene: str, folder: Path, progress: Progress, seed: int | None = None, images_only: bool = False) -> int:
    """Write a synthetic experiment with its truth; the number of its scans.

    Parameters
    ----------
    scene : str
        Path of a scene file, the name of one that comes with the package, or "random".
    seed : int or None
        In the place of the scene's own; of a random scene, which one (None: 0).
    images_only : bool
        Write the virtual images of all scans, images.h5, and no scans.

    Raises
    ------
    InputError
        If the scene is wrong or cannot be played, or the folder holds another one; the message names the file.
    """
    described, cifs = _described(scene, seed)
    try:
        series = play(described, cifs)
        if images_only:
            series.check_images()
    except InputError as e:
        raise InputError(f"{scene}: {e}") from e
    origin = Origin(described.resolved(), cifs, __version__)
    with progress.stage("simulate", len(series)) as advance:
        if images_only:
            write_expected(
                folder, _images(series, advance), series.truth, series.stated_deg, series.blind_pixels, origin
            )
        else:
            experiment = described.experiment(series.elements)
            arguments = experiment, series.truth, series.stated_deg, series.rows, series.shape, origin
            write_experiment(folder, *arguments, mask=series.listed_pixels, advance=advance)
    return len(series)


def _described(scene: str, seed: int | None) -> tuple[Scene, dict[str, str]]:
    """The scene that a name stands for, and its CIFs."""
    if scene == RANDOM and not Path(scene).is_file():
        return random_scene(np.random.default_rng(seed or 0))
    described, cifs = load_scene(Path(scene))
    return described if seed is None else described.model_copy(update={"seed": seed}), cifs


def _images(series: Series, advance: Callable[[], None]) -> Iterator[tuple[int, VirtualImages]]:
    for tilt in range(len(series)):
        yield tilt, series.images(tilt)
        advance()


def evaluate(folder: Path, truth: Path) -> dict[str, Any]:
    """Scores of a run's masks and tracks against a truth."""
    known = read_truth(truth)
    _, good, _ = results.read_image_facts(folder / "images.h5")
    if len(good) != len(known.alpha_deg):
        raise InputError(
            f"{truth}: has {len(known.alpha_deg)} tilts, {folder} has {len(good)}; they do not belong together"
        )
    return score_run(*read_linked(folder), known, good)
