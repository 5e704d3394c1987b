"""The verb of structure solution from a file, `phase`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stemtomo_dl.cli_progress import progress
from stemtomo_dl.errors import InputError

Restraints = Annotated[
    bool,
    typer.Option("--restraints", help="Refine a solved structure on with like bonds and displacements restrained."),
]


def phase(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="HKLF 4 .hkl with its .ins, or .cif_pets.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for solution.cif …")],
    cell: Annotated[str | None, typer.Option(metavar="a,b,c,α,β,γ", help="Å and degrees.")] = None,
    space_group: Annotated[
        str | None, typer.Option(metavar="SYMBOL", help="As 'P 21/c'; without it, it is found.")
    ] = None,
    elements: Annotated[
        str | None, typer.Option(metavar="LIST", help="As Ti,O or TiO2, where the file does not say, or guess.")
    ] = None,
    known: Annotated[
        list[Path] | None,
        typer.Option("--known", metavar="CIF", help="A phase that it may be, or a folder of them; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of the random phases.")] = 0,
    restraints: Restraints = False,
) -> None:
    """From intensities to atoms: phases, space group, refined structure."""
    from stemtomo_dl import structures
    from stemtomo_dl.store.atomic import check_folder

    check_folder(output)
    with progress() as shown:
        said = structures.phase(
            file,
            output,
            shown,
            cell=cell,
            space_group=space_group,
            elements=elements,
            known=_cifs(known or []),
            seed=seed,
            restraints=restraints,
        )
    typer.echo(said)


def _cifs(paths: list[Path]) -> list[Path]:
    """The files, with those of folders in the folders' place."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.cif")) if path.is_dir() else [path]
        if not inside:
            raise InputError(f"--known {path}: holds no .cif; give a CIF, or a folder of them")
        found += inside
    return found
