"""The verb of structure solution from a file, `phase`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stemtomo_dl.cli_progress import progress


def phase(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="HKLF 4 .hkl with its .ins, or .cif_pets.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for solution.cif …")],
    cell: Annotated[str | None, typer.Option(metavar="a,b,c,α,β,γ", help="Å and degrees.")] = None,
    space_group: Annotated[
        str | None, typer.Option(metavar="SYMBOL", help="As 'P 21/c'; without it, it is found.")
    ] = None,
    elements: Annotated[
        str | None, typer.Option(metavar="LIST", help="As Ti,O, where the file does not say, or guess.")
    ] = None,
    known: Annotated[
        list[Path] | None, typer.Option("--known", metavar="CIF", help="A phase that it may be; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of the random phases.")] = 0,
) -> None:
    """From intensities to atoms: phases, space group, refined structure."""
    from stemtomo_dl import structures

    with progress() as shown:
        said = structures.phase(
            file, output, shown, cell=cell, space_group=space_group, elements=elements, known=known, seed=seed
        )
    typer.echo(said)
