"""Beside the pipeline: synthetic experiments with their truth, runs held against it; segmenter and tracker alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stemtomo_dl import __version__
from stemtomo_dl.config import Experiment, SegmentConfig, TrackConfig, check
from stemtomo_dl.errors import InputError
from stemtomo_dl.learn.detection import dose_class
from stemtomo_dl.learn.metrics import score_run
from stemtomo_dl.records import Tracks, VirtualImages
from stemtomo_dl.run import Progress
from stemtomo_dl.segment import open_segmenter
from stemtomo_dl.simulate.random_scene import random_scene
from stemtomo_dl.simulate.scene import Scene, load_scene
from stemtomo_dl.simulate.series import Series
from stemtomo_dl.simulate.series import simulate as play
from stemtomo_dl.store import results
from stemtomo_dl.store.atomic import check_folder
from stemtomo_dl.store.experiment import Origin, write_expected, write_experiment
from stemtomo_dl.store.fields import Field
from stemtomo_dl.store.linked import read_linked
from stemtomo_dl.store.prediction import write_prediction
from stemtomo_dl.store.prompts import check_inside
from stemtomo_dl.store.track_formats import WRITERS
from stemtomo_dl.store.tracks import Tables, write_stage, write_tracks
from stemtomo_dl.store.truth import read_truth
from stemtomo_dl.track import track_masks

_MUCH_HIDDEN = 0.3  # of the direct beam: centring and dark fields suffer
_ABSURD = 1e4  # degrees, nm
RANDOM = "random"  # stands for a scene that is drawn


class Played(NamedTuple):
    """How many tilts were written, and what the user should know of them."""

    tilts: int
    notes: list[str]


def simulate(
    scene: str, folder: Path, progress: Progress, seed: int | None = None, images_only: bool = False
) -> Played:
    """Write a synthetic experiment with its truth.

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
    hidden, notes = series.hidden_share, []
    if hidden > _MUCH_HIDDEN:
        notes = [f"bad pixels or gaps hide up to {hidden:.0%} of the direct beam; set instrument.beam_offset_px"]
    return Played(len(series), notes)


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


class Prompts(NamedTuple):
    """Where particles are said to be, px with pixel centres at whole numbers; None: wherever they are.

    Attributes
    ----------
    boxes : (n, 4) array or None
        x0, y0, x1, y1.
    points : (m, 2) array or None
        x, y.
    """

    boxes: np.ndarray | None = None
    points: np.ndarray | None = None


def predict(
    fields: list[Field],
    folder: Path,
    model: str | None,
    weights: Path | None,
    progress: Progress,
    prompts: Prompts | None = None,
) -> int:
    """Outline the particles in fields of view; how many were found.

    Parameters
    ----------
    fields : list of Field
    folder : Path
        Gets NAME.h5 and NAME.png for each.
    model : str, optional
        A name from the registry, or "classical"; by default that of a run.
    weights : Path, optional
        A file that takes the place of the model's own weights.
    prompts : Prompts, optional
        Only these particles are outlined, in every field.

    Raises
    ------
    InputError
        If an image cannot be read, or a prompt is not in it; those before it are done.
    """
    given = {"model": model, "weights": None if weights is None else str(weights)}
    segmenter = open_segmenter(SegmentConfig(**{k: v for k, v in given.items() if v is not None}))  # type: ignore[arg-type]
    total, asked = 0, prompts or Prompts()
    with progress.stage("predict", len(fields)) as advance:
        for field in fields:
            images = field.read()
            shown = next(iter(images.values()))
            for option, each in (("--boxes", asked.boxes), ("--points", asked.points)):
                if each is not None:
                    check_inside(each, shown.shape, option)
            masks = segmenter.predict(images, *asked)
            write_prediction(folder, field.name, shown, masks)
            total += len(masks)
            advance()
    return total


def link(
    masks: Path,
    output: Path,
    tilt_axis_deg: float | None = None,
    step_nm: float | None = None,
    form: str | None = None,
) -> Tracks:
    """Link the outlines of a masks file, the project's or another program's; nothing is filled in.

    Parameters
    ----------
    masks : Path
        As the contract's masks.h5; without /score all outlines count alike.
    output : Path
        The table of sightings; the other tables and the stage's facts are written beside it, named after it.
    tilt_axis_deg : float, optional
        Where it is roughly known.
    step_nm : float, optional
        Of the scan; without it positions in nm are NaN.
    form : str, optional
        napari, ctc or geff: the tracks for another program, too, in NAME_export beside the table.

    Raises
    ------
    InputError
        If the masks cannot be read, or the output cannot be written.
    """
    for option, value in (("--tilt-axis", tilt_axis_deg), ("--step", step_nm)):
        if value is not None and not np.abs(value) < _ABSURD:
            raise InputError(f"{option} {value:g}: give a number that can be")
    if form is not None and form not in WRITERS:
        raise InputError(f"--tracks {form}: no such form; choose one of {', '.join(WRITERS)}")
    if output.is_dir():
        raise InputError(f"{output}: is a folder; give -o the name of a table, such as {output / 'tracks.csv'}")
    check_folder(output.parent)
    read = results.read_masks(masks)
    if masks.resolve() == output.resolve():
        raise InputError(f"{output}: is the masks file itself; give -o the name of a table, such as tracks.csv")
    step = np.nan if step_nm is None else step_nm
    tracks = track_masks(read, tilt_axis_deg, step, TrackConfig(), filling=False).tracks
    tables = Tables.beside(output)
    write_stage(tables, tracks)
    write_tracks(tables, tracks)
    if form is not None:
        WRITERS[form](output.with_name(f"{output.stem}_export"), read, tracks)
    return tracks


def evaluate(folder: Path, truth: Path) -> dict[str, Any]:
    """Scores of a run's masks and tracks against a truth.

    Where the run knows its electrons per pattern, ``segmentation`` says under ``dose`` which class its scores are of.
    """
    known = read_truth(truth)
    _, good, _ = results.read_image_facts(folder / "images.h5")
    if len(good) != len(known.alpha_deg):
        raise InputError(
            f"{truth}: has {len(known.alpha_deg)} tilts, {folder} has {len(good)}; they do not belong together"
        )
    scored, electrons = score_run(*read_linked(folder), known, good), _electrons(folder)
    if electrons is not None:  # one for all tilts
        whole = scored["segmentation"]
        whole["dose"] = {dose_class(electrons): {"electrons_per_pattern": electrons, **whole["all"]}}
    return scored


def _electrons(folder: Path) -> float | None:
    """Electrons per pattern as the run's settings say, if they do."""
    path = folder / "run.json"
    if not path.is_file():
        return None
    settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
    return check(Experiment, settings, f"{path}: settings").instrument.electrons_per_pattern
