"""A merged phase: its members, shells, symmetry tests, absences and layers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import gemmi
import numpy as np

from stemtomo_dl.errors import InputError
from stemtomo_dl.report.chart import Chart
from stemtomo_dl.report.crystals import attempt
from stemtomo_dl.report.facts import Facts
from stemtomo_dl.report.lattices import cell_text
from stemtomo_dl.report.reciprocal import layer_name, merged_layers, merged_view
from stemtomo_dl.report.shells import shell_table
from stemtomo_dl.report.solid import solid
from stemtomo_dl.report.structure import structure_part
from stemtomo_dl.report.text import escape, fixed, percent, plural, table
from stemtomo_dl.store.phases import PhaseFigures

_CANDIDATES = 12  # space groups listed
_WIDTHS = (4, 4, 4, 8, 8)  # of HKLF 4


def phase_section(facts: Facts, i: int, damaged: list[str]) -> str:
    """Phase ``i`` of the run; files that cannot be read are added to ``damaged``."""
    phase = facts.crystals.phases[i]
    f, folder = phase.figures, facts.folder / "phases" / phase.name
    members = [m["track"] for m in f["members"]]
    head = f"{f['lattice']}, Laue class {f['laue_class']}, {plural(len(members), 'particle')}; {outcome(phase)}"
    return f"""<details class="phase" id="phase{i + 1}" open>
<summary><b>{escape(phase.name)}</b> {escape(head)}</summary>
{_numbers(f)}{structure_part(folder, phase, damaged)}
<h3>Merging</h3><div class="three">{"".join(_shell_charts(phase))}</div>
{shell_table(phase.shells)}
{_reciprocal(folder, f, damaged)}
<h3>Symmetry</h3>{_symmetry(f)}
<h3>Members</h3>{_members(facts, f)}
</details>
"""


def outcome(phase: PhaseFigures) -> str:
    """What came of solving a phase, in words."""
    f = phase.figures
    if f.get("structure") == "solved":
        return f"solved: {f.get('formula')}, {f.get('space_group')}, R1 {show(f.get('r1'), 3)}"
    return "not solved" if f.get("structure") else "its structure was not tried"


def show(value: float | None, digits: int = 2) -> str:
    """A figure of stats.json, or a dash."""
    return "–" if value is None else fixed(value, digits)


def _share(value: float | None) -> str:
    return "–" if value is None else percent(value)


def _numbers(f: dict[str, Any]) -> str:
    lines = [
        ("Cell", cell_text(np.array(f["cell"], float))),
        ("Standard deviations of the axes", ", ".join(show(v, 4) for v in f["cell_esd"][:3]) + " Å"),
        ("Observations, unique", f"{f['n_observations']}, {f['n_unique']}"),
        ("Resolution", f"{show(f['resolution_a'])} Å"),
        ("Completeness, redundancy", f"{_share(f['completeness'])}, {show(f['redundancy'], 1)}"),
        ("Rint, Rmeas, Rpim", ", ".join(show(f[k], 3) for k in ("r_int", "r_meas", "r_pim"))),
        ("CC½", show(f["cc_half"], 3)),
        ("I/σ", show(f["i_over_sigma"], 1)),
        ("⟨|E² − 1|⟩ (0.97 with a centre, 0.74 without)", show(f["wilson_e2_minus_1"])),
        ("Scaling", f"{f['scaling']}; {f['n_rejected']} outliers left out"),
    ]
    rows = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in lines)
    return f"<dl>{rows}</dl>"


def _shell_charts(phase: PhaseFigures) -> list[str]:
    """Completeness and CC½, R factors, and I/σ against 1/d."""
    shells = phase.shells
    at = np.array([(1 / s.d_max + 1 / s.d_min) / 2 for s in shells])
    reach = (0.0, 1.05 / shells[-1].d_min if shells else 1.0)
    kinds = (
        ("share", (("blue", "completeness"), ("red", "cc_half")), ("completeness", "CC½"), 1.05),
        ("R factor", (("blue", "r_int"), ("red", "r_meas")), ("Rint", "Rmeas"), None),
        ("I/σ", (("blue", "i_over_sigma"),), ("I/σ",), None),
    )
    out = []
    for title, curves, names, top in kinds:
        values = [np.array([getattr(s, name) for s in shells], float) for _, name in curves]
        highest = top or 1.08 * max([1e-3, *(float(np.nanmax(v, initial=0)) for v in values)])
        least = min([0.0, *(float(np.nanmin(v, initial=0)) for v in values)])
        chart = Chart((340, 230), reach, (least, highest), ("1/d (1/Å)", title), f"{title} by resolution", top=30)
        chart.key([(kind, name) for (kind, _), name in zip(curves, names, strict=True)])
        for (kind, _), v in zip(curves, values, strict=True):
            chart.curve(at, v, kind)
        out.append(f"<figure>{chart.svg()}</figure>")
    return out


def _reciprocal(folder: Path, f: dict[str, Any], damaged: list[str]) -> str:
    """The layers hk0, h0l and 0kl of the merged intensities with their equivalents, and all of them in space."""
    drawn = attempt(damaged, lambda: _drawn(_merged(folder / "merged.hkl"), f))
    if drawn is None:
        return '<p class="warn">merged.hkl cannot be read, so its layers are not shown.</p>'
    layers, view = drawn
    figures = "".join(
        f"<figure>{svg}<figcaption>{layer_name(axis)}</figcaption></figure>"
        for svg, axis in zip(layers, (2, 1, 0), strict=True)
    )
    return f"""<div class="three">{figures}</div>
<p class="note">Merged intensities with their equivalents, dots larger with the amplitude √I, over all nodes of the
layer (grey). Nodes without a dot were not measured; rows of the smallest dots, weak among strong ones, are systematic
absences.</p>
<h4>In three dimensions</h4>{solid(view, "Merged intensities in reciprocal space")}"""


def _drawn(merged: tuple[np.ndarray, np.ndarray], f: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """The layers of merged intensities with their equivalents, and the view that turns."""
    hkl, intensity = merged
    rotations = np.array([o.rot for o in gemmi.SpaceGroup(f["laue_setting"]).operations().sym_ops]) // gemmi.Op.DEN
    images = np.concatenate([hkl @ r for r in (*rotations, *-rotations)])
    images, first = np.unique(images, axis=0, return_index=True)
    everywhere = images, intensity[first % len(hkl)]
    ub = np.array(gemmi.UnitCell(*f["cell"]).frac.mat.tolist()).T
    return merged_layers(ub, f["lattice"], *everywhere), merged_view(ub, *everywhere)


def _merged(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Indices (n, 3) and intensities of a merged.hkl."""
    text = path.read_text(encoding="utf-8")
    if not text:
        raise InputError(f"{path}: is empty; merge the particles again")
    rows = np.genfromtxt(io.StringIO(text), delimiter=_WIDTHS, dtype=float, ndmin=2)
    end = np.flatnonzero(~rows[:, :3].any(1))
    rows = rows[: end[0]] if len(end) else rows
    if not np.isfinite(rows).all():
        raise InputError(f"{path}: is not HKLF 4; merge the particles again")
    return rows[:, :3].astype(int), rows[:, 3]


def _symmetry(f: dict[str, Any]) -> str:
    """Laue tests, absences and space groups."""
    tests = [
        [escape(t["operation"]), str(t["order"]), show(t["cc"], 3), str(t["pairs"]), "yes" if t["in_class"] else "no"]
        for t in f["laue_tests"]
    ]
    classes = [
        [escape(c["name"]), escape(c["symbol"]), show(c["probability"], 3), show(c["cc"], 3)] for c in f["laue_classes"]
    ]
    absences = [
        [
            *(escape(a["zone"]), escape(a["condition"]), str(a["n_absent"]), show(a["ratio"], 3)),
            *(show(a["i_over_sigma"], 1), show(a["log_likelihood"], 1)),
        ]
        for a in f["absences"]
    ]
    groups = [
        [escape(g["symbol"]), str(g["number"]), show(g["score"], 1), str(g["n_absent"]), escape(g["verdict"])]
        for g in f["space_groups"][:_CANDIDATES]
    ]
    return f"""<div class="two">
<div><h4>Operations</h4>{table(["operation", "order", "CC", "pairs", "in the class"], tests)}</div>
<div><h4>Laue classes</h4>{table(["class", "setting", "probability", "CC"], classes)}</div>
<div><h4>Conditions of reflection</h4>{
        table(["zone", "condition", "absent", "their mean over the others'", "I/σ", "log likelihood"], absences)
    }</div>
<div><h4>Space groups by absences</h4>{table(["symbol", "number", "score", "absent", "verdict"], groups)}</div></div>
<p class="note">CC is the correlation of normalised amplitudes of reflections and their images. Of reflections that a
condition forbids, the mean intensity over that of the others of the zone is near 0 where the condition holds; the log
likelihood is then positive. Multiple scattering fills absences, so a small ratio may still be one.</p>"""


def _members(facts: Facts, f: dict[str, Any]) -> str:
    rows = []
    for m in f["members"]:
        found = facts.crystals.particles.get(m["track"])
        cell = cell_text(found.crystals[0].cell).replace(" Å;", ";") if found and found.crystals else "–"
        rows.append(
            [
                f'<a href="#p{m["track"]}">{m["track"]}</a>',
                *(cell, escape(m["operator"]), show(m["scale"], 3), show(m["b_factor"], 2), show(m["cc"], 3)),
                *(str(m["common"]), show(m["r_merged"], 3), show(m["misfit"], 2), str(m["observations"])),
                str(m["rejected"]),
            ]
        )
    head = ["particle", "cell (Å; °)", "indices", "scale", "B (Å²)", "CC with the others", "in common", "R to merged"]
    left = "".join(
        f'<li><a href="#p{o["track"]}">Particle {o["track"]}</a>: {escape(o["reason"])}</li>' for o in f["left_out"]
    )
    out = f"<p>Left out of the phase:</p><ul>{left}</ul>" if left else ""
    return table([*head, "χ", "observations", "left out"], rows) + out
