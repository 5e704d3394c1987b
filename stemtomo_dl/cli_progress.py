"""What the verbs show while they work: bars on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

import typer

_LOGGED_S = 60.0  # between the lines of a stage in a log

if TYPE_CHECKING:
    from stemtomo_dl.run import Progress
    from stemtomo_dl.weights import Listener


@contextmanager
def progress() -> Iterator[Progress]:
    """Progress bars with the time left, on stderr; where that is no terminal, lines on stdout, for a log.

    In a log a stage has a line at its end, and one a minute before that.
    """
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
                done, told = 0, monotonic()

                def advance() -> None:
                    nonlocal done, told
                    bars.advance(task)
                    done += 1
                    if not console.is_terminal and done < total and monotonic() - told > _LOGGED_S:
                        told = monotonic()
                        typer.echo(f"{name}: {done} of {total}")

                yield advance
                if not console.is_terminal:
                    typer.echo(f"{name}: {total} of {total}")

        yield Shown()


@contextmanager
def download_bar(name: str) -> Iterator[Listener]:
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
