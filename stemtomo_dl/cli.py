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

from stemtomo_dl import __version__, cli_alone, cli_solve
from stemtomo_dl.cli_alone import RunFolder
from stemtomo_dl.cli_progress import download_bar, progress
from stemtomo_dl.errors import InputError

if TYPE_CHECKING:
    from stemtomo_dl.workers import Workers

app = typer.Typer(
    help="From a 4D-STEM tilt series of a nanopowder to single-crystal 3D ED data of every particle.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
weights_verbs = typer.Typer(help="Pretrained weights, checked by SHA-256.")
app.add_typer(weights_verbs, name="weights")

WeightsName = Annotated[str, typer.Argument(metavar="NAME", help="Name in the registry; 'list' shows them.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Go on without tilts that are missing or cannot be read.")]
Scheduler = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Workers of this dask scheduler do the tilts and particles: tcp://host:8786."),
]


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
    scheduler: Scheduler = None,
) -> None:
    """The whole way, from raw scans to the report; started again on the same RUN it resumes."""
    from stemtomo_dl import pipeline

    if until not in pipeline.STAGES:
        raise InputError(f"--until {until}: no such stage; choose one of {', '.join(pipeline.STAGES)}")
    with (
        progress() as shown,
        _workers(scheduler) as workers,
        pipeline.start(experiment, output, shown, skip_bad=skip_bad, force=force) as r,
    ):
        for note in r.ledger.book["notes"]:
            print(f"stemtomo: {experiment}: {note}", file=sys.stderr)
        r.workers = workers
        done = pipeline.run_stages(r, until)
    typer.echo(_summary(output, done))


@contextmanager
def _workers(scheduler: str | None) -> Iterator[Workers | None]:
    """The workers of a scheduler; None where none is named."""
    if scheduler is None:
        yield None
        return
    from stemtomo_dl.cluster import connect

    with connect(scheduler, lambda told: print(f"stemtomo: {told}", file=sys.stderr)) as workers:
        yield workers


def _do(folder: Path, name: str, skip_bad: bool, scheduler: str | None = None, restraints: bool = False) -> None:
    _check_is_run(folder)
    from stemtomo_dl.config import SolveConfig
    from stemtomo_dl.pipeline import do_stage
    from stemtomo_dl.run import reopen

    with progress() as shown, _workers(scheduler) as workers, reopen(folder, shown, skip_bad=skip_bad) as r:
        r.workers = workers
        if restraints:
            r.experiment = r.experiment.model_copy(update={"solve": SolveConfig(restraints=True)})
        do_stage(r, name, again=True)
    typer.echo(_summary(folder, [name]))


def _check_is_run(folder: Path) -> None:
    """Say that a folder is no run before seconds go into loading what works on one."""
    from stemtomo_dl.store.ledger import Ledger

    Ledger(folder).close()


def _stage_verb(name: str, help_text: str) -> None:
    def spread(folder: RunFolder, skip_bad: SkipBad = False, scheduler: Scheduler = None) -> None:
        _do(folder, name, skip_bad, scheduler)

    def whole(folder: RunFolder, skip_bad: SkipBad = False) -> None:
        _do(folder, name, skip_bad)

    def solve(
        folder: RunFolder,
        skip_bad: SkipBad = False,
        scheduler: Scheduler = None,
        restraints: cli_solve.Restraints = False,
    ) -> None:
        _do(folder, name, skip_bad, scheduler, restraints)

    verb = solve if name == "solve" else whole if name in _WHOLE else spread
    app.command(name, help=help_text)(verb)


_WHOLE = ("track", "report")  # stages that look at all tilts at once, which is no work for others
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
_OTHERS: dict[str, Callable[..., None]] = {
    "reduce": cli_alone.reduce_series,
    "simulate": cli_alone.simulate,
    "evaluate": cli_alone.evaluate,
    "export": cli_alone.export,
    "predict": cli_alone.predict,
    "link": cli_alone.link,
    "train": cli_alone.train,
    "phase": cli_solve.phase,
}
for _verb, _other in _OTHERS.items():
    app.command(_verb)(_other)


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

    with download_bar(name) as listener:
        path = weights.fetch(name, listener)
    typer.echo(path)


@weights_verbs.command("path")
def weights_path(name: WeightsName) -> None:
    """Print where a file is, verified; nothing is fetched."""
    from stemtomo_dl import weights

    typer.echo(weights.locate(name))


def _summary(folder: Path, done: list[str]) -> str:
    """One line: where, what, how many."""
    import json

    book = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    n = len(book["skipped"])
    skipped = f", {n} tilt{'s' if n > 1 else ''} skipped (see run.json)" if n else ""
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
        if e.errno is None:
            raise
        _fail(_refused(e))
    except ModuleNotFoundError as e:
        package = (e.name or "").partition(".")[0]
        if package in ("", __package__):
            raise
        _fail(f"the package '{package}' is not installed; 'pip install stemtomo_dl' brings all that is needed")
    except _UsageProblem as e:
        _fail(f"{e.format_message()} (see 'stemtomo --help')")  # type: ignore[attr-defined]
    if status == _STOPPED:
        print("stemtomo: stopped; start the same command again to go on", file=sys.stderr)
    sys.exit(status or 0)


def _refused(e: OSError) -> str:
    """What the system refused, where, and what to do."""
    if e.errno == errno.ENOSPC:
        place = e.filename or "or in what the output is written to"
        return f"no space left on the disk ({place}); free some, start again"
    return f"{e.filename or 'a file'}: {e.strerror or 'cannot be used'}; correct the path, or what may be done with it"


def _compile_somewhere() -> None:
    """Give numba a place for compiled kernels where neither the package nor the user's cache can be written."""
    places = (Path(__file__).parent, Path.home())
    if "NUMBA_CACHE_DIR" not in os.environ and not any(os.access(p, os.W_OK) for p in places):
        os.environ["NUMBA_CACHE_DIR"] = str(Path(tempfile.gettempdir()) / f"stemtomo-numba-{os.getuid()}")


def _fail(message: str) -> NoReturn:
    print("stemtomo: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)
