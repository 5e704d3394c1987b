"""The crystallographic part of a particle: figures, spots on patterns, reciprocal space, rocking curves, misfit."""

from __future__ import annotations

import numpy as np

from stemtomo_dl.crystal.equivalents import least_class, own_shells
from stemtomo_dl.crystal.nouns import Crystal
from stemtomo_dl.report.crystals import Crystallography, Detail, Found
from stemtomo_dl.report.facts import Facts
from stemtomo_dl.report.predictions import pattern_figure
from stemtomo_dl.report.reciprocal import lattice_view, layer_name, particle_layers, thinned
from stemtomo_dl.report.rocking import indexed_chart, misfit_chart, rocking_charts
from stemtomo_dl.report.shells import shell_table
from stemtomo_dl.report.solid import solid
from stemtomo_dl.report.strips import LARGE
from stemtomo_dl.report.text import degrees, escape, fixed, percent

DETAILED = 50  # particles shown with all their figures: those with most spots on their lattices


def detailed(known: Crystallography) -> list[int]:
    """Tracks that are shown in detail."""
    best = sorted(known.indexed, key=lambda k: (-known.particles[k].crystals[0].n_indexed, k))
    return sorted(best[:DETAILED])


def cell_text(cell: np.ndarray, digits: int = 3) -> str:
    """A, b, c in Å and the angles in degrees."""
    lengths = ", ".join(f"{v:.{digits}f}" for v in cell[:3])
    return f"{lengths} Å; {', '.join(degrees(float(v)) for v in cell[3:])}"


def lattice_table(facts: Facts) -> str:
    """One row a particle: lattice, misfit, intensities, phase, and what went wrong."""
    known, rows = facts.crystals, []
    for k, found in known.particles.items():
        rows.append(
            f'<tr><td><a href="#p{k}">{k}</a></td>{_cells(found)}<td>{_phase(known, found)}</td>'
            f"<td>{_candidate(found)}</td><td>{escape(found.note)}</td></tr>"
        )
    head = "".join(
        f"<th>{h}</th>"
        for h in (
            *("particle", "lattice", "cell (Å; °)", "spots", "on the lattice", "misfit (10⁻³ 1/Å)", "reflections"),
            *("to d (Å)", "complete", "phase", "by itself (merit)", "note"),
        )
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _cells(found: Found) -> str:
    spots = "–" if found.n_spots is None else str(found.n_spots)
    if not found.crystals:
        return f"<td>–</td><td>–</td><td>{spots}</td>" + "<td>–</td>" * 5
    c = found.crystals[0]
    more = f" + {len(found.crystals) - 1} more" if len(found.crystals) > 1 else ""
    share = percent(found.completeness) if np.isfinite(found.completeness) else "–"
    cells = (
        *(f"{escape(c.lattice)}{more}", cell_text(c.cell).replace(" Å;", ";"), spots, _share(c.indexed_fraction)),
        *(fixed(1000 * c.rms_inv_angstrom, 1), str(found.n_reflections or "–"), fixed(found.d_min, 2), share),
    )
    return "".join(f"<td>{v}</td>" for v in cells)


def _share(value: float) -> str:
    return percent(value) if np.isfinite(value) else "–"


def _phase(known: Crystallography, found: Found) -> str:
    if found.phase < 0:
        return "–"
    return f'<a href="#phase{found.phase + 1}">{escape(known.phases[found.phase].name)}</a>'


def _candidate(found: Found) -> str:
    """The known phase that the particle's own intensities make most likely, in brackets where they do not suffice."""
    if not found.likeness:
        return "–"
    likest = found.candidate or found.likeness[0]
    said = f"{escape(likest['name'])} {fixed(likest['merit'], 2)}"
    return said if likest["named"] else f"({said})"


def lattice_part(facts: Facts, track: int, detail: Detail | None, patterns: dict[int, tuple[str, str]]) -> str:
    """What is known of a particle's lattice, below its strip; figures only where ``detail`` is given.

    Parameters
    ----------
    facts : Facts
    track : int
    detail : Detail or None
    patterns : dict
        By tilt, why it is shown and the data URI of its pattern.
    """
    found = facts.crystals.particles.get(track)
    if found is None:
        return ""
    if not found.crystals:
        why = f": {found.note}" if found.note else ""
        return f"<h3>Lattice</h3><p>No lattice was found{escape(why)}.</p>"
    facts_of = _numbers(facts, found)
    if detail is None:
        return f"<h3>Lattice</h3>{facts_of}"
    return f"<h3>Lattice</h3>{facts_of}{_figures(facts, track, detail, patterns)}"


def _numbers(facts: Facts, found: Found) -> str:
    lines = []
    for i, c in enumerate(found.crystals):
        lines.append(("Lattice" if i == 0 else f"Further lattice {i}", _lattice(c)))
    c = found.crystals[0]
    lines.append(("Spots on the lattice", f"{c.n_indexed} ({_share(c.indexed_fraction)})"))
    lines.append(("Misfit", f"{fixed(1000 * c.rms_inv_angstrom, 2)} · 10⁻³ 1/Å rms"))
    if np.isfinite(c.length_deviation):
        off = f"{fixed(100 * c.length_deviation, 2)} % in length, {fixed(c.angle_deviation_deg, 2)}°"
        lines.append(("Cell before its symmetry was imposed", f"differs by {off}"))
    if found.n_reflections is not None:
        reach = f", to {fixed(found.d_min, 2)} Å" if np.isfinite(found.d_min) else ""
        share = f", {percent(found.completeness)} of all" if np.isfinite(found.completeness) else ""
        lines.append(("Reflections", f"{found.n_reflections}{reach}{share}"))
    rows = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in lines)
    own = f"<dt>By its own intensities, with figure of merit</dt><dd>{_candidate(found)}</dd>"
    phase = f"<div><dt>Phase</dt><dd>{_phase(facts.crystals, found)}</dd></div><div>{own}</div>"
    note = f'<p class="warn">{escape(found.note)}</p>' if found.note else ""
    return f"{note}<dl>{rows}{phase}</dl>"


def _lattice(c: Crystal) -> str:
    return f"{c.lattice}, {cell_text(c.cell)}"


def _figures(facts: Facts, track: int, detail: Detail, patterns: dict[int, tuple[str, str]]) -> str:
    shape = facts.bad_pixels.shape
    fewer = '<p class="note">To keep this file small, only the strongest are drawn.</p>' if thinned(detail) else ""
    shown = "".join(
        pattern_figure(detail, tilt, why, picture, (shape[0], shape[1]), -(-max(shape) // LARGE))
        for tilt, (why, picture) in patterns.items()
    )
    layers, whole = (
        "".join(
            f"<figure>{svg}<figcaption>{name.format(layer_name(axis), 'abc'[axis])}</figcaption></figure>"
            for svg, axis in zip(particle_layers(detail, all_layers=every), (2, 1, 0), strict=True)
        )
        for every, name in ((False, "{0}"), (True, "along {1}*"))
    )
    return f"""<h4>Spots and predictions on patterns</h4>
<div class="three">{shown}</div>
<p class="note">Crosses are spots that were found, green on the lattice, vermilion off it. Circles are
reflections that should be near the Ewald sphere, pale ones beyond three widths of the rocking curve, where only strong
ones are seen; green crosses without a circle lie further from it than most. Vermilion crosses in rows are another
lattice; circles that are all beside the spots are a wrong one.</p>
<div class="two"><figure>{misfit_chart(detail)}<figcaption>Rms distance of the spots from their nodes.</figcaption>
</figure><figure>{indexed_chart(detail)}<figcaption>Spots at every tilt.</figcaption></figure></div>
<h4>Layers through the origin</h4><div class="three">{layers}</div>
<p class="note">Dots, larger with the amplitude, are {_drawn(detail)}. Grey dots are nodes, vermilion ones spots off the
lattice.</p>
<h4>All layers, projected</h4><div class="three">{whole}</div>
<h4>In three dimensions</h4>{solid(lattice_view(detail), f"Spots of particle {track} in reciprocal space")}
{fewer}{_own_shells(detail)}{_rocking(detail)}"""


def _drawn(detail: Detail) -> str:
    """What the dots of a layer are."""
    if detail.reflections is None or not len(detail.reflections.hkl):
        return "spots on the lattice"
    return "its integrated intensities (of Friedel mates the mean); nodes without a dot were not measured"


def _own_shells(detail: Detail) -> str:
    """Completeness and agreement of the particle's own intensities, by resolution."""
    shells = [] if detail.reflections is None else own_shells(detail.crystals[0], detail.reflections)
    if not shells:
        return ""
    laue = least_class(detail.crystals[0].lattice).name
    return f"""<h4>Its own intensities by resolution</h4>{shell_table(shells)}
<p class="note">Equivalents are what they are in any crystal of this lattice (Laue class {laue}); the last row is over
all shells.</p>"""


def _rocking(detail: Detail) -> str:
    curves = rocking_charts(detail.reflections, detail.crystals[0].ub) if detail.reflections else []
    if not curves:
        return ""
    figures = "".join(f"<figure>{c}</figure>" for c in curves)
    return f"""<h4>Rocking curves</h4><div class="three">{figures}</div>
<p class="note">Dots are intensities in single frames. The grey curve is a Gaussian of the width that was fitted to the
whole series; dots that lie beside it by more than their bars are errors of the orientation, or multiple scattering.
</p>"""
