"""The verbs: parse, call the pipeline, print one line of summary.

Heavy modules are imported inside the verbs, so that ``stemtomo --help`` answers at once.
"""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from stemtomo_dl import __version__
from stemtomo_dl.cli_solve import add_phase
from stemtomo_dl.errors import InputError

if TYPE_CHECKING:
    from stemtomo_dl.run import Progress
    from stemtomo_dl.weights import Listener

app = typer.Typer(
    help="From a 4D-STEM tilt series of a nanopowder to single-crystal 3D ED data of every particle.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
weights_verbs = typer.Typer(help="Pretrained weights, checked by SHA-256.")
app.add_typer(weights_verbs, name="weights")

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
WeightsName = Annotated[str, typer.Argument(metavar="NAME", help="Name in the registry; 'list' shows them.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Go on without tilts that are missing or cannot be read.")]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"stemtomo {__version__}")
        raise typer.Exit


@app.command()
def run(
    experiment: Annotated[Path, typer.Argument(metavar="EXPERIMENT.toml", help="The experiment file.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="RUN", help="Folder of the run.")],
    until: Annotated[str, typer.Option(metavar="STAGE", help="Stop after this stage.")] = "report",
    skip_bad: SkipBad = False,
    force: Annotated[
        bool, typer.Option("--force", help="Where RUN was made from something else: redo what depends on it.")
    ] = False,
) -> None:
    """The whole way, from raw scans to the report; started again on the same RUN it resumes."""
    from stemtomo_dl import pipeline

    if until not in pipeline.STAGES:
        raise InputError(f"--until {until}: no such stage; choose one of {', '.join(pipeline.STAGES)}")
    with (
        _progress() as progress,
        pipeline.start(experiment, output, progress, skip_bad=skip_bad, force=force) as r,
    ):
        for note in r.ledger.book["notes"]:
            print(f"stemtomo: {experiment}: {note}", file=sys.stderr)
        done = pipeline.run_stages(r, until)
    typer.echo(_summary(output, done))


def _stage_verb(name: str, help_text: str) -> None:
    def verb(folder: RunFolder, skip_bad: SkipBad = False) -> None:
        from stemtomo_dl.pipeline import do_stage
        from stemtomo_dl.run import reopen

        with _progress() as progress, reopen(folder, progress, skip_bad=skip_bad) as r:
            do_stage(r, name, again=True)
        typer.echo(_summary(folder, [name]))

    app.command(name, help=help_text)(verb)


for _name, _help in {
    "images": "Virtual images of every scan (images.h5).",
    "segment": "Outlines of the particles in every tilt (masks.h5).",
    "track": "Which outlines are one particle (tracks.csv, particles.csv).",
    "extract": "One diffraction series per particle (particles/p0001/series.h5 …).",
    "index": "Spots and lattices of every particle, refined together (particles/p0001/crystal.json …).",
    "integrate": "Intensities of every particle, merged by phase (p0001.hkl, phases/NAME/merged.hkl …).",
    "solve": "Structures of the merged phases (phases/NAME/solution.cif).",
    "report": "summary.json and report.html.",
}.items():
    _stage_verb(_name, _help)


@app.command("reduce")
def reduce_series(
    series: Annotated[
        Path, typer.Argument(metavar="SERIES", help="One series.h5, by any program; or a folder of frames.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for crystal.json, .hkl, .ins.")],
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
    """One diffraction series to its lattice and intensities: crystal.json, DIR.hkl and DIR.ins."""
    from stemtomo_dl.reduction import open_any, reduce

    given = {
        "voltage_kv": voltage_kv,
        "pixel_inv_angstrom": pixel_inv_angstrom,
        "tilt_axis_deg": tilt_axis_deg,
        "convergence_mrad": convergence_mrad,
        "center_px": _numbers("--center-px", center_px, 2),
    }
    known = _numbers("--cell", cell, 6)
    read = open_any(series, tilts, {k: v for k, v in given.items() if v is not None})
    crystal = reduce(read, series, output, [e.strip() for e in elements.split(",") if e.strip()], known)
    shown = " ".join(f"{v:.3f}" for v in crystal.cell)
    typer.echo(f"{crystal.lattice} {shown}, {crystal.indexed_fraction:.0%} of the spots indexed: {output}")


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


@app.command()
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

    with _progress() as progress:
        n, notes = known.simulate(scene, output, progress, seed, images_only)
    for note in notes:
        print(f"stemtomo: {scene}: {note}", file=sys.stderr)
    typer.echo(f"{n} tilts: {output / 'images.h5'}" if images_only else f"{n} scans: {output / 'experiment.toml'}")


@app.command()
def evaluate(
    folder: RunFolder,
    truth: Annotated[Path, typer.Argument(metavar="TRUTH.h5", help="The truth beside a synthetic experiment.")],
) -> None:
    """Scores of a run against a truth, as JSON."""
    import json

    from stemtomo_dl import known

    typer.echo(json.dumps(known.evaluate(folder, truth), indent=1))


@app.command()
def export(
    folder: RunFolder,
    formats: Annotated[
        str, typer.Option(metavar="LIST", help="Of pets, dials, xds, tiff, with commas between.")
    ] = "pets,dials,xds,tiff",
    particles: Annotated[
        str | None, typer.Option(metavar="LIST", help="Tracks, with commas between: 1,2. Without it, all.")
    ] = None,
    tracks: Annotated[
        str | None, typer.Option(metavar="FORM", help="The tracks instead, for napari or ctc (RUN/export).")
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
    with _progress() as progress:
        n = export_particles(folder, named, chosen, progress)
    typer.echo(f"{n} particles as {', '.join(named)}: {folder / 'particles'}")


@app.command()
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
    with _progress() as progress:
        found = known.predict(fields, output, model, weights_file, progress, prompts)
    typer.echo(f"{found} particles in {len(fields)} images: {output}")


@app.command()
def link(
    masks: Annotated[Path, typer.Argument(metavar="MASKS.h5", help="/masks, /tilt and /alpha_deg, by any program.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="TRACKS.csv", help="The table of sightings.")],
    tilt_axis: Annotated[
        float | None, typer.Option(metavar="DEG", help="From x toward y, where it is roughly known.")
    ] = None,
    step: Annotated[float | None, typer.Option(metavar="NM", min=1e-6, help="Scan step, for positions in nm.")] = None,
) -> None:
    """The tracker alone, on a masks file: who is who through the tilts."""
    from stemtomo_dl import known

    tracks = known.link(masks, output, tilt_axis, step)
    note = f" ({tracks.note})" if tracks.note else ""
    axis = (f"tilt axis {tracks.tilt_axis_deg:.2f}°" if tracks.rigid else "linked without geometry") + note
    typer.echo(f"{len(tracks.particle)} particles, {len(tracks.track)} sightings, {axis}: {output}")


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's .toml, or a shipped one by name.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for what comes of it.")],
    start: Annotated[
        str | None, typer.Option(metavar="WEIGHTS", help="Begin with these: a name or a file; else the recipe's.")
    ] = None,
) -> None:
    """Train or fine-tune a segmenter on synthetic fields; started again on the same DIR it goes on."""
    from stemtomo_dl.learn.train import train as train_by

    with _progress() as progress:
        path = train_by(recipe, output, start, progress.stage)
    typer.echo(path)


@weights_verbs.command("list")
def weights_list() -> None:
    """What there is: name, size, licence, where it is, what it is for, its scores."""
    from rich.console import Console
    from rich.table import Table

    from stemtomo_dl import weights

    table = Table("name", "size", "licence", "where", "for", "metrics", box=None)
    for name, entry in weights.entries().items():
        scores = ", ".join(f"{k} {v:g}" for k, v in entry.metrics.items())
        table.add_row(name, f"{entry.size / 1e6:.1f} MB", entry.licence, weights.place(entry), entry.purpose, scores)
    Console(width=None if sys.stdout.isatty() else 240).print(table)  # in a pipe, one line each


@weights_verbs.command("fetch")
def weights_fetch(name: WeightsName) -> None:
    """Download where needed, verify, and print the path; a broken download goes on where it broke."""
    from stemtomo_dl import weights

    with _download_bar(name) as listener:
        path = weights.fetch(name, listener)
    typer.echo(path)


@weights_verbs.command("path")
def weights_path(name: WeightsName) -> None:
    """Print where a file is, verified; nothing is fetched."""
    from stemtomo_dl import weights

    typer.echo(weights.locate(name))


@contextmanager
def _download_bar(name: str) -> Iterator[Listener]:
    """A bar with the speed and the time left, on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task(name, total=None)

        class Shown:
            def waiting(self) -> None:
                print(f"stemtomo: weights '{name}': another process is fetching them; waiting for it", file=sys.stderr)

            def at(self, done: int, total: int) -> None:
                bars.update(task, completed=done, total=total)

        yield Shown()


def _summary(folder: Path, done: list[str]) -> str:
    """One line: where, what, how many."""
    import json

    book = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    skipped = f", {len(book['skipped'])} tilts skipped (see run.json)" if book["skipped"] else ""
    if not done:
        return f"{folder}: nothing to do, all stages are done{skipped}"
    if done[-1] == "solve":
        said = "; ".join(f"{name}: {what}" for name, what in book["structures"].items())
        return f"{folder}: {said or 'no phase was merged'}"
    if done[-1] != "report":
        return f"{folder}: {', '.join(done)} done{skipped}"
    s = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    found = f"{s['n_particles']} particles from {s['n_tilts_used']} tilts{skipped}, {s['n_indexed']} indexed"
    phases = ", ".join(f"{p['name']} ({p['structure']})" for p in s["phases"])
    return f"{found}{': ' + phases if phases else ''}: {folder / 'report.html'}"


@contextmanager
def _progress() -> Iterator[Progress]:
    """Progress bars with the time left, on stderr; where that is no terminal, a line a stage on stdout, for a log."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:>8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:

        class Shown:
            @contextmanager
            def stage(self, name: str, total: int) -> Iterator[Callable[[], None]]:
                task = bars.add_task(name, total=total)
                yield lambda: bars.advance(task)
                if not console.is_terminal:
                    typer.echo(f"{name}: {total} of {total}")

        yield Shown()


add_phase(app, _progress)

# Typer has its own copy of click in some versions and the real one in others; its public names lead to either.
_UsageProblem: type[Exception] = typer.BadParameter.__mro__[2]
_STOPPED = 130  # the status of a program that Ctrl-C ended


def main() -> None:
    """Entry point: bad input is one line on stderr and status 2."""
    _compile_somewhere()
    try:
        status = app(standalone_mode=False)
        sys.stdout.flush()
    except InputError as e:
        _fail(str(e))
    except (typer.Abort, KeyboardInterrupt):
        status = _STOPPED
    except BrokenPipeError:  # whoever read our output has gone; that is no fault
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except OSError as e:
        if e.errno != errno.ENOSPC:
            raise
        _fail(
            f"no space left on the disk ({e.filename or 'or in what the output is written to'}); free some, start again"
        )
    except _UsageProblem as e:
        _fail(f"{e.format_message()} (see 'stemtomo --help')")  # type: ignore[attr-defined]
    if status == _STOPPED:
        print("stemtomo: stopped; start the same command again to go on", file=sys.stderr)
    sys.exit(status or 0)


def _compile_somewhere() -> None:
    """Give numba a place for compiled kernels where neither the package nor the user's cache can be written."""
    places = (Path(__file__).parent, Path.home())
    if "NUMBA_CACHE_DIR" not in os.environ and not any(os.access(p, os.W_OK) for p in places):
        os.environ["NUMBA_CACHE_DIR"] = str(Path(tempfile.gettempdir()) / f"stemtomo-numba-{os.getuid()}")


def _fail(message: str) -> NoReturn:
    print("stemtomo: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)
