"""A solved structure: figures, atoms, bonds, pictures of model and potential; or what is missing, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gemmi
import numpy as np

from stemtomo_dl.report import raster
from stemtomo_dl.report.atoms import Atoms, colour_of, read_atoms, structure_view
from stemtomo_dl.report.chart import Chart
from stemtomo_dl.report.crystals import attempt
from stemtomo_dl.report.solid import solid
from stemtomo_dl.report.text import escape, number
from stemtomo_dl.store.phases import PhaseFigures

_SIDE = 460
_IN_PLANE = 0.4  # Å: atoms nearer to the plane of a slice are marked
_BONDS = 60  # rows of the table at most


def structure_part(folder: Path, phase: PhaseFigures, damaged: list[str]) -> str:
    """What came of solving a phase; files that cannot be read are added to ``damaged``."""
    f = phase.figures
    if "structure" not in f:
        return ""
    named = _likeness(f.get("likeness") or [])
    if f["structure"] != "solved":
        missing = "".join(f"<li>{escape(m)}</li>" for m in f.get("missing") or ["nothing is said of why"])
        warned = f'<div class="warn"><p>Not solved. What stands in the way:</p><ul>{missing}</ul></div>'
        return f"<h3>Structure</h3>{warned}{named}"
    atoms = attempt(damaged, lambda: read_atoms(folder / "solution.cif"))
    if atoms is None:
        return f'<h3>Structure</h3><p class="warn">solution.cif cannot be read.</p>{_figures(f)}{named}'
    alt = f"Unit cell of {phase.name} with its atoms and bonds"
    maps = attempt(damaged, lambda: _maps(folder / "solution.ccp4", atoms))
    pictures = "" if maps is None else maps
    return f"""<h3>Structure</h3>{_figures(f)}{named}
<div class="three"><figure>{solid(structure_view(atoms), alt)}<figcaption>One cell; bonds are distances that the
covalent radii allow. Drag to turn it.</figcaption></figure>{pictures}</div>
<div class="two"><div><h4>Atoms</h4>{_atom_table(atoms)}</div><div><h4>Bonds</h4>{_bond_table(f, atoms)}</div></div>"""


def _figures(f: dict[str, Any]) -> str:
    def show(key: str, digits: int) -> str:
        return "–" if f.get(key) is None else number(f[key], digits)

    lines = [
        ("Formula, units in the cell", f"{f.get('formula')}, {f.get('z')}"),
        ("Space group", str(f.get("space_group"))),
        ("R1, of all", f"{show('r1', 3)}, {show('r1_all', 3)}"),
        ("wR2", show("wr2", 3)),
        ("Goodness of fit", show("goof", 2)),
        ("Parameters", f"{f.get('parameters')}{', anisotropic' if f.get('anisotropic') else ', isotropic'}"),
        ("Extinction", show("extinction", 1)),
        ("Unique reflections, to", f"{f.get('unique_reflections')}, {show('d_min_angstrom', 2)} Å"),
    ]
    rows = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in lines)
    doubts = "".join(f"<li>{escape(w)}</li>" for w in f.get("warnings") or [])
    warned = f'<div class="warn"><ul>{doubts}</ul></div>' if doubts else ""
    tried = "".join(
        f"<tr><td>{escape(t['symbol'])}</td><td>{number(t['agreement'], 3)}</td><td>"
        f"{'–' if t['r1'] is None else number(t['r1'], 3)}</td></tr>"
        for t in f.get("space_group_trials") or []
    )
    trials = (
        "<details><summary>Space groups tried</summary><table><thead><tr><th>symbol</th><th>symmetry of the phases</th>"
        f"<th>R1</th></tr></thead><tbody>{tried}</tbody></table></details>"
        if tried
        else ""
    )
    return f"<dl>{rows}</dl>{warned}{trials}"


def _likeness(entries: list[dict[str, Any]]) -> str:
    """How like the known candidates the phase is."""
    if not entries:
        return ""
    rows = "".join(
        f"<tr><td>{escape(e['name'])}</td><td>{'–' if e['cell_misfit'] is None else number(100 * e['cell_misfit'], 2)}"
        f"</td><td>{'–' if e['correlation'] is None else number(e['correlation'], 3)}</td>"
        f"<td>{'–' if e['merit'] is None else number(e['merit'], 3)}</td><td>{'yes' if e['named'] else 'no'}</td></tr>"
        for e in entries
    )
    head = "<th>known phase</th><th>cell off by (%)</th><th>correlation of intensities</th><th>merit</th><th>it is</th>"
    return f"<h4>Known phases</h4><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _atom_table(atoms: Atoms) -> str:
    rows = []
    for i, (label, texts) in enumerate(zip(atoms.labels, atoms.texts, strict=True)):
        total = atoms.valences[i]
        valence = "–" if total is None else number(total[0], 2) + (f" of {total[1]}" if total[1] else "")
        rows.append("".join(f"<td>{escape(v)}</td>" for v in (label, *texts, valence)))
    head = "".join(f"<th>{h}</th>" for h in ("atom", "x", "y", "z", "U (Å²)", "bond valences"))
    body = "".join(f"<tr>{r}</tr>" for r in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _bond_table(f: dict[str, Any], atoms: Atoms) -> str:
    element = dict(zip(atoms.labels, atoms.elements, strict=True))
    bonds = [b for b in f.get("bonds") or [] if atoms.bonded(element.get(b[0], "X"), element.get(b[1], "X"))]
    rows = "".join(
        f"<tr><td>{escape(a)} – {escape(b)}</td><td>{length:.3f} ± {esd:.3f}</td></tr>"
        for a, b, length, esd in bonds[:_BONDS]
    )
    more = f"<p>and {len(bonds) - _BONDS} more.</p>" if len(bonds) > _BONDS else ""
    return f"<table><thead><tr><th>bond</th><th>length (Å)</th></tr></thead><tbody>{rows}</tbody></table>{more}"


def _maps(path: Path, atoms: Atoms) -> str:
    """A slice of the potential through the heaviest atom, and its projection, along the shortest axis."""
    grid = gemmi.read_ccp4_map(str(path))
    grid.setup(0.0)
    density = np.asarray(grid.grid.array)
    axis = int(np.argmin(atoms.cell.parameters[:3]))
    density = np.moveaxis(density, axis, 2)
    heavy = int(np.argmax([gemmi.Element(e).atomic_number for e in atoms.elements]))
    level = float(atoms.fract[heavy, axis] % 1)
    plane = density[:, :, round(level * density.shape[2]) % density.shape[2]]
    off = (atoms.full[:, axis] - level + 0.5) % 1 - 0.5
    height = abs(off) * atoms.cell.parameters[axis]
    name = "abc"[axis]
    cut = _map(atoms, axis, plane, height < _IN_PLANE, f"Slice of the potential across {name}")
    whole = _map(atoms, axis, density.mean(2), np.ones(len(off), bool), f"Potential projected along {name}")
    return (
        f"<figure>{cut}<figcaption>Potential at {name} = {number(level, 3)}, through {escape(atoms.labels[heavy])}; "
        f"rings, coloured by element as on the left, are atoms of the model within {_IN_PLANE} Å.</figcaption></figure>"
        f"<figure>{whole}<figcaption>Potential, mean along {name}, with all atoms of the model.</figcaption></figure>"
    )


def _map(atoms: Atoms, axis: int, values: np.ndarray, marked: np.ndarray, alt: str) -> str:
    """Potential (u, v) over one cell, dark where it is high; zero and below are white."""
    i, j = (k for k in range(3) if k != axis)
    u, v = atoms.axes[:, i], atoms.axes[:, j]
    along = u / np.linalg.norm(u)
    flat = np.array([[np.linalg.norm(u), 0.0], [v @ along, np.linalg.norm(v - (v @ along) * along)]])
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) @ flat
    size = float(np.ptp(corners, axis=0).max()) + 0.8
    low = (corners.min(0) + corners.max(0) - size) / 2
    chart = Chart(
        (_SIDE, _SIDE),
        (low[0], low[0] + size),
        (low[1], low[1] + size),
        (f"along {'abc'[i]} (Å)", "across it (Å)"),
        alt,
    )
    dark = 255 - raster.grey(values.T, (0.0, max(float(np.percentile(values, 99.8)), 1e-9)))
    origin = np.array([chart.px(0), chart.py(0)])
    ends = [np.array([chart.px(p[0]), chart.py(p[1])]) - origin for p in flat]
    origin = origin - 0.5 * (ends[0] / values.shape[0] + ends[1] / values.shape[1])  # points are the pixels' centres
    matrix = " ".join(f"{n:.3f}" for n in (*ends[0], *ends[1], *origin))
    chart.add(
        f'<image href="{raster.data_uri(dark, 80)}" width="1" height="1" preserveAspectRatio="none" '
        f'transform="matrix({matrix})"/>'
    )
    element = dict(zip(atoms.labels, atoms.elements, strict=True))
    for at, label in zip((atoms.full[marked] % 1)[:, [i, j]] @ flat, np.array(atoms.of)[marked].tolist(), strict=True):
        x, y = chart.px(at[0]), chart.py(at[1])
        place = f'class="atom" cx="{x:.1f}" cy="{y:.1f}" r="6" style="stroke:{colour_of(element[label])}"'
        chart.add(f"<circle {place}><title>{escape(label)}</title></circle>")
    return chart.svg()
