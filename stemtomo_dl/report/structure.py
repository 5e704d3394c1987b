"""A solved structure: figures, atoms, bonds, pictures of model and potential; or what is missing, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stemtomo_dl.report.atoms import Atoms, read_atoms, structure_view
from stemtomo_dl.report.crystals import attempt
from stemtomo_dl.report.potential import potential_figures
from stemtomo_dl.report.solid import solid
from stemtomo_dl.report.text import escape, fixed
from stemtomo_dl.store.phases import PhaseFigures

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
    pictures = attempt(damaged, lambda: potential_figures(folder / "solution.ccp4", atoms)) or ""
    return f"""<h3>Structure</h3>{_figures(f)}{named}
<div class="two"><figure>{solid(structure_view(atoms), alt)}<figcaption>One cell; bonds are distances that the
covalent radii allow. Drag to turn it.</figcaption></figure>{pictures}</div>
<div class="two"><div><h4>Atoms</h4>{_atom_table(atoms)}</div><div><h4>Bonds</h4>{_bond_table(f, atoms)}</div></div>"""


def _figures(f: dict[str, Any]) -> str:
    def show(key: str, digits: int) -> str:
        return "–" if f.get(key) is None else fixed(f[key], digits)

    lines = [
        ("Formula, units in the cell", f"{f.get('formula')}, {f.get('z')}"),
        ("Space group", str(f.get("space_group"))),
        ("R1 of I > 2σ, of all", f"{show('r1', 3)}, {show('r1_all', 3)}"),
        ("wR2", show("wr2", 3)),
        ("Goodness of fit", show("goof", 2)),
        ("Parameters", f"{f.get('parameters')}{', anisotropic' if f.get('anisotropic') else ', isotropic'}"),
        ("Extinction (EXTI of SHELX)", show("extinction", 1)),
        ("Phases", _phasing(f.get("phasing") or {}, f.get("starts"))),
        ("Unique reflections, to", f"{f.get('unique_reflections')}, {show('d_min_angstrom', 2)} Å"),
    ]
    rows = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in lines)
    doubts = "".join(f"<li>{escape(w)}</li>" for w in f.get("warnings") or [])
    warned = f'<div class="warn"><ul>{doubts}</ul></div>' if doubts else ""
    tried = "".join(
        f"<tr><td>{escape(t['symbol'])}</td><td>{fixed(t['agreement'], 3)}</td><td>"
        f"{'–' if t['r1'] is None else fixed(t['r1'], 3)}</td></tr>"
        for t in f.get("space_group_trials") or []
    )
    trials = (
        "<details><summary>Space groups tried</summary><table><thead><tr><th>symbol</th><th>symmetry of the phases</th>"
        f"<th>R1</th></tr></thead><tbody>{tried}</tbody></table></details>"
        if tried
        else ""
    )
    return f"<dl>{rows}</dl>{warned}{trials}"


def _phasing(how: dict[str, Any], starts: int | None) -> str:
    """How phases were found, and their figures of merit."""
    if not how.get("method"):
        return "–"
    said = f"{how['method']}, {how['agreeing_starts']} of {starts} starts agree"
    if how["correlation"] is not None:
        return f"{said}, correlation of |E| {fixed(how['correlation'], 2)}"
    return f"{said}, skewness of the map {fixed(max(how['skewness']), 1)}"


def _likeness(entries: list[dict[str, Any]]) -> str:
    """How like the known candidates the phase is."""
    if not entries:
        return ""
    rows = "".join(
        f"<tr><td>{escape(e['name'])}</td><td>{'–' if e['cell_misfit'] is None else fixed(100 * e['cell_misfit'], 2)}"
        f"</td><td>{'–' if e['correlation'] is None else fixed(e['correlation'], 3)}</td>"
        f"<td>{'–' if e['merit'] is None else fixed(e['merit'], 3)}</td><td>{'yes' if e['named'] else 'no'}</td></tr>"
        for e in entries
    )
    head = "<th>known phase</th><th>cell off by (%)</th><th>correlation of intensities</th><th>merit</th><th>it is</th>"
    return f"<h4>Known phases</h4><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _atom_table(atoms: Atoms) -> str:
    rows = []
    for i, (label, texts) in enumerate(zip(atoms.labels, atoms.texts, strict=True)):
        total = atoms.valences[i]
        valence = "–" if total is None else fixed(total[0], 2) + (f" of {total[1]}" if total[1] else "")
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
