"""The verbs beside the road from scans to report: its parts alone, synthetic experiments, exports, training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemtomo_dl.cli_progress import progress
from stemtomo_dl.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]


def reduce_series(
    series: Annotated[
        Path, typer.Argument(metavar="SERIES", help="One series.h5, by any program; or a folder of frames.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for crystal.json, .hkl, .ins, .cif_pets.")
    ],
    elements: Annotated[str, typer.Option(metavar="LIST", help="Elements for SFAC, with commas between: Ti,O.")] = "",
    cell: Annotated[str, typer.Option(metavar="a,b,c,α,β,γ", help="A known cell, Å and degrees: no other.")] = "",
    tilts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of a folder's frames: scan,alpha_deg; or an angle a line.")
    ] = None,
    voltage_kv: Annotated[float | None, typer.Option(help="Where neither file nor geometry.toml says it.")] = None,
    pixel_inv_angstrom: Annotated[float | None, typer.Option(help="Size of a pixel, 1/Å.")] = None,
    tilt_axis_deg: Annotated[float | None, typer.Option(help="On the detector, columns toward rows.")] = None,
    convergence_mrad: Annotated[float | None, typer.Option(help="Semi-angle of the beam.")] = None,
    center_px: Annotated[str, typer.Option(metavar="COLUMN,ROW", help="Where the beam is.")] = "",
) -> None:
    """One diffraction series to its lattice and intensities: crystal.json, DIR.hkl, .ins and .cif_pets."""
    from stemtomo_dl.crystal.twin_law import twin_laws
    from stemtomo_dl.reduction import REDUCTION, open_any, reduce
    from stemtomo_dl.store.atomic import check_folder
    from stemtomo_dl.store.reflections import read_crystals

    check_folder(output)
    given = {
        "voltage_kv": voltage_kv,
        "pixel_inv_angstrom": pixel_inv_angstrom,
        "tilt_axis_deg": tilt_axis_deg,
        "convergence_mrad": convergence_mrad,
        "center_px": _numbers("--center-px", center_px, 2),
    }
    known = _numbers("--cell", cell, 6)
    read = open_any(series, tilts, {k: v for k, v in given.items() if v is not None})
    symbols = [e.strip() for e in elements.split(",") if e.strip()]
    with progress() as shown, shown.stage("reduce", REDUCTION) as advance:
        crystal, camera = reduce(read, series, output, symbols, known, advance)
    values = " ".join(f"{v:.3f}" for v in crystal.cell)
    typer.echo(f"{crystal.lattice} {values}, {crystal.indexed_fraction:.0%} of the spots indexed: {output}")
    typer.echo(camera)
    if law := twin_laws(read_crystals(output / "crystal.json")):
        typer.echo(law)


def _numbers(option: str, text: str, n: int) -> list[float] | None:
    """Numbers with commas between; None where the option is not given."""
    if not text:
        return None
    try:
        values = [float(v) for v in text.split(",")]
    except ValueError:
        values = []
    if len(values) != n:
        raise InputError(f"{option} {text}: give {n} numbers with commas between")
    return values


def simulate(
    scene: Annotated[
        str,
        typer.Argument(
            metavar="SCENE.toml", help="The scene; a shipped one goes by name: demo, tiny. 'random' draws a small one."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the experiment.")],
    seed: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Another seed than the scene's; which random scene.")
    ] = None,
    images_only: Annotated[
        bool, typer.Option("--images-only", help="Virtual images (images.h5) and the truth, without any scan.")
    ] = False,
) -> None:
    """A synthetic experiment with its truth beside it; started again it goes on."""
    from stemtomo_dl import known

    with progress() as shown:
        n, notes = known.simulate(scene, output, shown, seed, images_only)
    for note in notes:
        print(f"stemtomo: {scene}: {note}", file=sys.stderr)
    typer.echo(f"{n} tilts: {output / 'images.h5'}" if images_only else f"{n} scans: {output / 'experiment.toml'}")


def evaluate(
    folder: RunFolder,
    truth: Annotated[Path, typer.Argument(metavar="TRUTH.h5", help="The truth beside a synthetic experiment.")],
    as_json: Annotated[bool, typer.Option("--json", help="All scores as JSON, as in a pipe.")] = False,
) -> None:
    """Scores of a run against a truth: the main ones as a table; all of them, as JSON, in a pipe or with --json."""
    import json

    from stemtomo_dl import known

    scores = known.evaluate(folder, truth)
    if as_json or not sys.stdout.isatty():
        typer.echo(json.dumps(scores, indent=1))
        return
    from rich.console import Console

    Console().print(score_table(scores))


def score_table(scores: dict[str, Any]) -> Table:
    """Scores that are one number each; of those of every particle the median."""
    from statistics import median

    from rich.table import Table

    table = Table("score", "value", box=None)
    for name, value in scores.items():
        if name == "coverage" and value:
            table.add_row("median coverage", f"{median(value.values()):g}")
        elif value is None or isinstance(value, int | float):
            table.add_row(name.replace("_", " "), "–" if value is None else f"{value:g}")
    return table


def export(
    folder: RunFolder,
    formats: Annotated[
        str, typer.Option(metavar="LIST", help="Of pets, dials, xds, tiff, with commas between.")
    ] = "pets,dials,xds,tiff",
    particles: Annotated[
        str | None, typer.Option(metavar="LIST", help="Tracks, with commas between: 1,2. Without it, all.")
    ] = None,
    tracks: Annotated[
        str | None, typer.Option(metavar="FORM", help="The tracks instead: napari, ctc or geff (RUN/export).")
    ] = None,
) -> None:
    """Particles' series for PETS2, DIALS and XDS, or as plain TIFF (particles/p0001/pets …); or the tracks."""
    from stemtomo_dl.interchange import export_particles, export_tracks

    if tracks is not None:
        typer.echo(export_tracks(folder, tracks))
        return
    named = [f.strip() for f in formats.split(",") if f.strip()]
    try:
        chosen = None if particles is None else [int(t) for t in particles.split(",")]
    except ValueError:
        raise InputError(f"--particles '{particles}': must be track numbers with commas between, as 1,2") from None
    with progress() as shown:
        n = export_particles(folder, named, chosen, shown)
    typer.echo(f"{n} particles as {', '.join(named)}: {folder / 'particles'}")


def predict(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE…", help="2-D images: .tif .png .jpg .hspy …, or all tilts of an images.h5."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for NAME.h5 and NAME.png.")],
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="From 'stemtomo weights list', or classical.")
    ] = None,
    weights_file: Annotated[
        Path | None, typer.Option("--weights", metavar="FILE", help="Weights that 'stemtomo train' made.")
    ] = None,
    channels: Annotated[
        bool, typer.Option("--channels", help="The images are channels of one field, given as bf=FILE adf=FILE ….")
    ] = False,
    points: Annotated[
        str | None,
        typer.Option(metavar="X,Y;…|CSV", help="Outline only the particles at these px; a CSV has x_px,y_px."),
    ] = None,
    boxes: Annotated[
        str | None,
        typer.Option(
            metavar="X0,Y0,X1,Y1;…|CSV", help="Outline only the particles in these; a CSV has x0_px,y0_px,x1_px,y1_px."
        ),
    ] = None,
) -> None:
    """The segmenter alone, on images of any kind: masks, scores and a picture of the outlines."""
    from stemtomo_dl import known
    from stemtomo_dl.segment.planes import PLANES
    from stemtomo_dl.store.fields import field_of_channels, fields_of
    from stemtomo_dl.store.prompts import BOX, POINT, read_prompts

    prompts = known.Prompts(
        None if boxes is None else read_prompts(boxes, BOX, "--boxes"),
        None if points is None else read_prompts(points, POINT, "--points"),
    )
    fields = [field_of_channels(images, PLANES)] if channels else fields_of([Path(i) for i in images])
    with progress() as shown:
        found = known.predict(fields, output, model, weights_file, shown, prompts)
    typer.echo(f"{found} particles in {len(fields)} images: {output}")


def link(
    masks: Annotated[Path, typer.Argument(metavar="MASKS.h5", help="/masks, /tilt and /alpha_deg, by any program.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="TRACKS.csv", help="The table of sightings.")],
    tilt_axis: Annotated[
        float | None, typer.Option(metavar="DEG", help="From x toward y, where it is roughly known.")
    ] = None,
    step: Annotated[float | None, typer.Option(metavar="NM", min=1e-6, help="Scan step, for positions in nm.")] = None,
    form: Annotated[
        str | None,
        typer.Option("--tracks", metavar="FORM", help="For napari, ctc or geff too: in TRACKS_export."),
    ] = None,
) -> None:
    """The tracker alone, on a masks file: who is who through the tilts."""
    from stemtomo_dl import known

    tracks = known.link(masks, output, tilt_axis, step, form)
    note = f" ({tracks.note})" if tracks.note else ""
    axis = (f"tilt axis {tracks.tilt_axis_deg:.2f}°" if tracks.rigid else "linked without geometry") + note
    typer.echo(f"{len(tracks.particle)} particles, {len(tracks.track)} sightings, {axis}: {output}")


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's .toml, or a shipped one by name.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for what comes of it.")],
    start: Annotated[
        str | None, typer.Option(metavar="WEIGHTS", help="Begin with these: a name or a file; else the recipe's.")
    ] = None,
) -> None:
    """Train or fine-tune a segmenter on synthetic fields; started again on the same DIR it goes on."""
    from stemtomo_dl.learn.train import train as train_by

    with progress() as shown:
        path = train_by(recipe, output, start, shown.stage)
    typer.echo(path)
