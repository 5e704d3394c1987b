"""The README's pictures, drawn from a finished run by the package's own records.

python benchmarks/pictures.py demo/run -o docs/pictures
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import gemmi
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image

from stemtomo_dl.crystal.predict import predict, predicted_indices
from stemtomo_dl.geometry import field_centre, rotate_in_plane
from stemtomo_dl.reduction import SeriesSpots
from stemtomo_dl.report import gather, outline, raster
from stemtomo_dl.report.facts import Facts
from stemtomo_dl.report.text import colour
from stemtomo_dl.store import results
from stemtomo_dl.store.intensities import read_intensities
from stemtomo_dl.store.particle_files import Files
from stemtomo_dl.store.record_h5 import read_record
from stemtomo_dl.store.reflections import read_crystals
from stemtomo_dl.store.shared_geometry import SharedGeometry

matplotlib.use("agg")
matplotlib.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
_COLOURS = 160  # of a picture: enough for these, and half of the bytes
_NEAR = 0.012  # 1/Å of excitation error within which a reflection is circled
_RIM = [withStroke(linewidth=2, foreground="black")]  # of numbers, so that they can be read on any grey


def draw_outlines(facts: Facts) -> Figure:
    """Dark field at three tilts, every outline in its particle's colour with its number."""
    tilts = [facts.n_tilts // 6, facts.n_tilts // 2, 5 * facts.n_tilts // 6]
    images = [raster.tone("adf", results.read_images(facts.folder / "images.h5", t)["adf"]) for t in tilts]
    figure, limits = Figure(figsize=(9.6, 3.4), layout="constrained"), raster.limits(np.array(images))
    for axes, tilt, image in zip(figure.subplots(1, 3), tilts, images, strict=True):
        axes.imshow(image, cmap="gray", vmin=limits[0], vmax=limits[1])
        for row in np.flatnonzero(facts.tracks.tilt == tilt):
            track, instance = int(facts.tracks.track[row]), int(facts.tracks.instance[row])
            y, x = facts.masks.origin[instance]
            for loop in outline.trace(facts.masks.crops[instance]):
                corners = np.vstack([loop, loop[:1]]) + (x - 0.5, y - 0.5)
                axes.plot(*corners.T, color=colour(track), lw=1.1)
            at = (float(facts.tracks.x_px[row]), float(facts.tracks.y_px[row]))
            axes.annotate(str(track), at, color="white", ha="center", va="center", fontsize=9, path_effects=_RIM)
        axes.set(title=f"α = {facts.alpha_deg[tilt]:.1f}°".replace("-", "−"), xticks=[], yticks=[])
    return figure


def draw_tracks(facts: Facts) -> Figure:
    """Where every particle was seen across the axis, drift taken out, over where the stage puts it."""
    t = facts.tracks
    origin = field_centre(facts.masks.shape) + t.drift_px
    predicted = rotate_in_plane(facts.predicted_px - origin, -facts.axis_deg)[..., 1]
    seen = rotate_in_plane(np.stack([t.x_px, t.y_px], -1) - origin[t.tilt], -facts.axis_deg)[:, 1]
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    for i, k in enumerate(t.particle.tolist()):
        axes.plot(facts.alpha_deg, predicted[i], color="0.75", lw=1.5, zorder=1)
        mine = t.track == k
        axes.plot(facts.alpha_deg[t.tilt[mine]], seen[mine], ".", color=colour(k), ms=3.5)
        axes.annotate(str(k), (facts.alpha_deg[-1] + 1.5, predicted[i, -1]), fontsize=7, va="center")
    axes.set(xlabel="tilt angle α (°)", ylabel="across the tilt axis (px)")
    return figure


def draw_pattern(facts: Facts, track: int) -> Figure:
    """A particle's pattern where most reflections are strong, with the places that its lattice predicts."""
    files = Files.of(track)
    series = results.read_series(facts.folder / files.series)
    seen = read_record(facts.folder / files.spots, SeriesSpots)
    crystal = read_crystals(facts.folder / files.crystal)[0]
    book = json.loads((facts.folder / "run.json").read_text(encoding="utf-8"))
    geometry = SharedGeometry.of(book["indexing"]["geometry"]).at(seen.tilt).of(crystal)
    hkl = predicted_indices(series, geometry, crystal)
    at = predict(hkl, np.full(len(hkl), _NEAR), seen.spots, geometry, crystal)
    frame = int(np.bincount(seen.spots.frame).argmax())
    pattern, shown = series.patterns[frame], at.px[at.frame == frame]
    figure = Figure(figsize=(4.0, 4.2), layout="constrained")
    axes = figure.subplots()
    shades = raster.ink(pattern, float(np.percentile(pattern, 99.8)), float(np.percentile(pattern, 90)))
    axes.imshow(shades, cmap="gray", vmin=0, vmax=255)
    axes.plot(*shown.T, "o", mfc="none", mec="#D55E00", ms=6, mew=0.7)
    rows, columns = pattern.shape
    title = f"particle {track}, α = {series.alpha_deg[frame]:.1f}°".replace("-", "−")
    axes.set(title=title, xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), xticks=[], yticks=[])
    return figure


def draw_section(facts: Facts, phase: str) -> Figure:
    """The layer 0kl of a phase's merged intensities: areas of dots go as amplitudes."""
    data = read_intensities(facts.folder / "phases" / phase / "merged.hkl", elements="C")
    in_layer = data.hkl[:, 0] == 0
    hkl, intensity = np.abs(data.hkl[in_layer]), np.maximum(data.intensity[in_layer], 0)
    b, c = 1 / data.cell[1], 1 / data.cell[2]
    figure = Figure(figsize=(4.0, 4.2), layout="constrained")
    axes = figure.subplots()
    for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1)):  # the layer as the Laue class mmm completes it
        size = 0.5 + 90 * np.sqrt(intensity / intensity.max())
        axes.scatter(signs[0] * hkl[:, 1] * b, signs[1] * hkl[:, 2] * c, size, "black", linewidths=0)
    axes.set(xlabel="k b* (1/Å)", ylabel="l c* (1/Å)", aspect="equal", title="merged intensities, 0kl")
    return figure


def draw_structure(facts: Facts, phase: str) -> Figure:
    """A solved structure seen along a, over the sum of its potential map along that direction."""
    folder = facts.folder / "phases" / phase
    crystal = gemmi.make_small_structure_from_block(gemmi.cif.read(str(folder / "solution.cif")).sole_block())
    grid = gemmi.read_ccp4_map(str(folder / "solution.ccp4"), setup=True).grid
    potential, cell = np.array(grid.array).sum(0), crystal.cell
    figure = Figure(figsize=(3.2, 4.2), layout="constrained")
    axes = figure.subplots()
    half = (
        cell.b / potential.shape[0] / 2,
        cell.c / potential.shape[1] / 2,
    )  # the first point is at 0, not half a step on
    extent = (-half[0], cell.b - half[0], -half[1], cell.c - half[1])
    axes.imshow(potential.T, origin="lower", extent=extent, cmap="Blues", vmin=0, interpolation="bilinear")
    _draw_atoms(axes, crystal)
    axes.set(xlim=(0, cell.b), ylim=(0, cell.c), xlabel="b (Å)", ylabel="c (Å)", aspect="equal")
    axes.set_title(f"{phase} as solved")
    return figure


def _draw_atoms(axes: Axes, crystal: gemmi.SmallStructure) -> None:
    for site in crystal.get_all_unit_cell_sites():
        place = np.mod(site.fract.tolist(), 1)
        heavy = site.element.atomic_number > 10
        axes.plot(
            place[1] * crystal.cell.b,
            place[2] * crystal.cell.c,
            "o",
            ms=9 if heavy else 5,
            mfc="none",
            mec="black" if heavy else "#D55E00",
        )


def main() -> None:
    """Draw all pictures of a run with one solved phase."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/pictures"))
    given = parser.parse_args()
    facts = gather(given.run)
    phase = next(p.parent.name for p in sorted((given.run / "phases").glob("*/solution.cif")))
    given.output.mkdir(parents=True, exist_ok=True)
    for name, figure in {
        "outlines": draw_outlines(facts),
        "tracks": draw_tracks(facts),
        "pattern": draw_pattern(facts, int(facts.tracks.particle[0])),
        "section": draw_section(facts, phase),
        "structure": draw_structure(facts, phase),
    }.items():
        path = given.output / f"{name}.png"
        figure.savefig(path, dpi=110)
        Image.open(path).convert("RGB").quantize(_COLOURS).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
