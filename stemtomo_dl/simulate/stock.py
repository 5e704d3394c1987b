"""Makes the library of random fields: instruments, crystals in rows of orientations, bodies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from stemtomo_dl import resources
from stemtomo_dl.simulate import diffraction, diffuse
from stemtomo_dl.simulate.crystal import Structure, read_structure
from stemtomo_dl.simulate.damage import Damage
from stemtomo_dl.simulate.library import Specimen, make_responses
from stemtomo_dl.simulate.optics import Optics
from stemtomo_dl.simulate.randomise import Bench, Library, stretched
from stemtomo_dl.simulate.shape import Solid, ball, directions, polyhedron
from stemtomo_dl.simulate.support import log_between
from stemtomo_dl.simulate.training import InstrumentSettings, LibrarySettings, TrainingSettings

_MOST_RINGS = 3  # cells of the illumination cone; fringes inside disks do not show in virtual images
_PSEUDO_ELEMENTS = ("C", "O", "Si", "Ti", "Fe", "Zn", "Br", "Zr", "Ag", "Cs", "W", "Pt", "Au", "Pb")
_BEAM_SIGMAS = 3.0  # of the point spread, at least, between the rim of the direct beam and the dark field
_CORNER = 1.15  # reflections are followed this far, in units of the detector's half side
_ATOM_A3 = 18.0  # volume of an atom
_AXES = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1), (1, -1, 0), (2, 1, 0), (1, 1, 2))


def make_library(settings: TrainingSettings, rng: np.random.Generator) -> Library:
    """Draw and compute a library; some seconds. The same generator gives the same one, and it can be pickled.

    Raises
    ------
    InputError
        If a structure is not among those that come with the package.
    """
    d_min = 1 / settings.instrument.reach_inv_angstrom[1]
    structures = _structures(settings.library, d_min, rng)
    benches = tuple(_bench(settings, structures, rng) for _ in range(settings.library.instruments))
    return Library(benches, random_bodies(settings.particles.shapes, rng))


def _structures(s: LibrarySettings, d_min: float, rng: np.random.Generator) -> list[Structure]:
    folder = resources.synthetic() / "structures"
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in s.structures}
    texts |= {f"pseudo {n}": pseudo_cif(rng) for n in range(s.pseudo_structures)}
    return [read_structure(name, text, d_min) for name, text in texts.items()]


def pseudo_cif(rng: np.random.Generator) -> str:
    """A random cell, right-angled or not, with random atoms at the density of a solid."""
    lengths = np.exp(rng.uniform(np.log(3.5), np.log(11), 3))
    angles = np.full(3, 90.0) if rng.random() < 0.6 else rng.uniform(80, 110, 3)
    c = np.cos(np.radians(angles))
    volume = lengths.prod() * np.sqrt(1 - (c**2).sum() + 2 * c.prod())
    kinds = rng.choice(_PSEUDO_ELEMENTS, 3)
    rows = [f"{e} {x:.4f} {y:.4f} {z:.4f} 0.008" for e, (x, y, z) in _atoms(kinds, int(volume / _ATOM_A3), rng)]
    return "\n".join(
        ["data_pseudo", "_space_group_name_H-M_alt 'P 1'"]
        + [f"_cell_length_{k} {v:.4f}" for k, v in zip("abc", lengths, strict=True)]
        + [f"_cell_angle_{k} {v:.4f}" for k, v in zip(("alpha", "beta", "gamma"), angles, strict=True)]
        + ["loop_", "_atom_site_label"]
        + [f"_atom_site_{k}" for k in ("fract_x", "fract_y", "fract_z", "U_iso_or_equiv")]
        + rows
    )


def _atoms(kinds: np.ndarray, count: int, rng: np.random.Generator) -> list[tuple[str, np.ndarray]]:
    """Atoms at random about the points of a grid, so that none lie on top of each other."""
    side = int(np.ceil(np.cbrt(max(count, 2))))
    points = rng.permutation(np.stack(np.meshgrid(*3 * [np.arange(side)], indexing="ij"), -1).reshape(-1, 3))
    places = (points[: max(count, 2)] + rng.uniform(-0.2, 0.2, (max(count, 2), 3))) / side
    return [(f"{rng.choice(kinds)}", place) for place in places]


def _bench(settings: TrainingSettings, structures: list[Structure], rng: np.random.Generator) -> Bench:
    """One random instrument with its crystals."""
    s = settings.library
    chosen = [structures[i] for i in rng.permutation(len(structures))[: s.structures_at_once]]
    thickest = log_between(s.thickest_nm, rng)
    optics = random_optics(settings.instrument, thickest, rng)
    g_max = _CORNER * optics.pixel_inv_angstrom * max(optics.detector) / 2
    chosen = [_within(c, g_max) for c in chosen]
    rocking = np.array([log_between(s.rocking_deg, rng) for _ in range(s.crystals)])
    specimens = [_specimen(s, chosen[n % len(chosen)], step, thickest, rng) for n, step in enumerate(rocking)]
    paths = [diffuse.mean_free_path(specimen.material, optics.voltage_kv) for specimen in specimens]
    return Bench(make_responses(optics, specimens, s.thickness_steps), rocking, np.array(paths))


def _specimen(
    s: LibrarySettings, structure: Structure, step_deg: float, thickest_nm: float, rng: np.random.Generator
) -> Specimen:
    """A crystal in a row of orientations, more or less perfect."""
    mosaic = log_between(s.mosaic_deg, rng) if rng.random() < s.mosaic_share else 0.0
    damaged = rng.random() < s.damaged_share
    return Specimen(
        structure,
        thickest_nm,
        _orientations(s, structure, step_deg, rng),
        mosaic,
        Damage(critical_dose_e_per_A2=1.0) if damaged else None,
        log_between(s.damage, rng) if damaged else 0.0,
        bool(rng.random() < s.kinematic_share),
    )


def _within(structure: Structure, g_max: float) -> Structure:
    """A structure without the reflections beyond a distance in 1/Å."""
    kept = structure.g_length <= g_max
    return replace(structure, hkl=structure.hkl[kept], structure_factor=structure.structure_factor[kept])


def random_optics(s: InstrumentSettings, thickest_nm: float, rng: np.random.Generator) -> Optics:
    """A random instrument whose point spread keeps the direct beam out of the dark field, for which it is not drawn."""
    voltage, side = float(rng.choice(s.voltage_kv)), int(rng.choice(s.detector))
    convergence, reach = log_between(s.convergence_mrad, rng), rng.uniform(*s.reach_inv_angstrom)
    column, row = (side - 1) / 2 + rng.uniform(*s.center_off_px, 2)
    optics = Optics(
        voltage_kv=voltage,
        convergence_mrad=convergence,
        pixel_inv_angstrom=2 * reach / side,
        detector=(side, side),
        center_px=(float(column), float(row)),
        rings=min(_MOST_RINGS, diffraction.rings_needed(convergence, reach, thickest_nm)),
        rotation_deg=rng.uniform(0, 360),
        bf_disk_radii=rng.uniform(*s.bf_disk_radii),
        haadf_from=rng.uniform(*s.haadf_from),
        film_element=str(rng.choice(s.film_element)),
        psf_px=rng.uniform(*s.psf_px) if rng.random() < s.psf_share else 0.0,
    )
    room = optics.radii[1] - optics.disk_px - 0.5  # radii are from the nearest pixel
    return replace(optics, psf_px=min(optics.psf_px, room / _BEAM_SIGMAS))


def _orientations(s: LibrarySettings, structure: Structure, step_deg: float, rng: np.random.Generator) -> np.ndarray:
    """A row of UB matrices (orientation, 3, 3) about an axis in the plane, at random or near a zone axis."""
    start = Rotation.from_quat(rng.normal(size=4))
    if rng.random() < s.zone_axis_share:
        axis = structure.direct @ np.array(_AXES[rng.integers(len(_AXES))], float)
        upright, _ = Rotation.align_vectors([[0.0, 0.0, 1.0]], [axis / np.linalg.norm(axis)])
        spin, lean = Rotation.from_euler("z", rng.uniform(0, 2 * np.pi)), np.radians(rng.uniform(*s.zone_axis_deg))
        start = spin * Rotation.from_euler("x", lean) * Rotation.from_euler("z", rng.uniform(0, 2 * np.pi)) * upright
    phi = rng.uniform(0, 2 * np.pi)
    turns = np.radians((np.arange(s.orientations) - (s.orientations - 1) / 2) * step_deg)
    rows = Rotation.from_rotvec(turns[:, None] * [np.cos(phi), np.sin(phi), 0.0])
    return np.asarray((rows * start).as_matrix() @ structure.b)


def random_bodies(count: int, rng: np.random.Generator) -> tuple[Solid, ...]:
    """Convex bodies of the volume of a ball of diameter 1: blocks, prisms, octahedra, irregular and rounded ones."""
    out = []
    for n in range(count):
        normals, distances = _faces(n % 6, rng)
        body = polyhedron(normals, distances * np.exp(rng.uniform(0, 0.12) * rng.normal(size=len(distances))))
        out.append(stretched(body, np.full(3, np.cbrt(np.pi / 6 / body.volume))))
    return (*out, ball(0.5))


def _faces(kind: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Normals and distances of a kind of body."""
    block = np.concatenate([np.eye(3), -np.eye(3)])
    corners = np.array([[x, y, z] for x in (1, -1) for y in (1, -1) for z in (1, -1)]) / np.sqrt(3)
    match kind:
        case 0:
            return block, np.ones(6)
        case 1:  # a prism with or without tapered ends
            sides = int(rng.integers(3, 9))
            phi = 2 * np.pi * np.arange(sides) / sides
            round_ = np.column_stack([np.zeros(sides), np.cos(phi), np.sin(phi)])
            ends = np.concatenate([round_ + [t, 0, 0] for t in (1.0, -1.0)]) / np.sqrt(2)
            normals = np.concatenate([round_, [[1, 0, 0], [-1, 0, 0]], ends])
            return normals, np.concatenate([np.ones(sides), np.ones(2), np.full(2 * sides, rng.uniform(1.0, 1.5))])
        case 2:  # octahedra, more or less truncated
            return np.concatenate([corners, block]), np.concatenate([np.ones(8), np.full(6, rng.uniform(1.0, 1.8))])
        case 3:
            few = directions(int(rng.integers(8, 20)))
            return few, np.ones(len(few))
        case 4:  # irregular
            normals = rng.normal(size=(int(rng.integers(12, 24)), 3))
            normals = np.concatenate([normals / np.linalg.norm(normals, axis=1, keepdims=True), block])
            return normals, rng.uniform(0.75, 1.1, len(normals))
        case _:  # rounded
            many = directions(int(rng.integers(36, 70)))
            return many, np.ones(len(many))
