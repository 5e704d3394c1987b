"""CIFs of small structures: cell, symmetry and atoms, however the file names them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import gemmi
import numpy as np

from stemtomo_dl.errors import InputError

_SAME_A = 0.1  # Å; images of an atom that are no further apart are one atom on a special position
_APART_A = 0.5  # places that are no further apart cannot both be occupied
_METRIC = 0.01  # by so much, of its size, symmetry may change the metric tensor of a cell
_CLOSEST_A = 0.9  # Å; atoms of heavier elements than hydrogen keep further apart
_OPERATIONS = ("_space_group_symop_operation_xyz", "_space_group_symop.operation_xyz", "_symmetry_equiv_pos_as_xyz")
_NUMBERS = ("_space_group_IT_number", "_symmetry_Int_Tables_number")
_HALL = ("_space_group_name_Hall", "_symmetry_space_group_name_Hall")
_NAMES = ("_space_group_name_H-M_alt", "_symmetry_space_group_name_H-M", "_space_group_name_H-M")
# how files other than gemmi's name an origin or axes: "I 41/a m d S", "(origin choice 2)", "R -3 c H"
_CHOICE = re.compile(r"[\s:(]*(?:origin\s*(?:choice\s*)?)?([12SZHR])\s*\)?\s*$")


@dataclass(frozen=True, eq=False)
class Contents:
    """What a unit cell holds; atoms of the asymmetric unit only, occupancies as in the CIF."""

    cell: gemmi.UnitCell
    operations: gemmi.GroupOps
    sites: tuple[gemmi.SmallStructure.Site, ...]
    aniso: tuple[np.ndarray | None, ...]  # U (3, 3), Å², along unit vectors of a*, b*, c*

    def matrix(self) -> np.ndarray:
        """Columns a, b, c (3, 3), Å."""
        return np.array(self.cell.orth.mat.tolist())

    def multiplicity(self, site: gemmi.SmallStructure.Site) -> float:
        """Places of a site in the cell, as if it were fully occupied."""
        return len(rotations(self.operations)) / stabiliser(self, site)


def read_contents(name: str, text: str) -> Contents:
    """Read a CIF.

    Raises
    ------
    InputError
        In one line, if there is no cell, symmetry or atom that can be understood.
    """
    block = _block(name, text)
    try:
        small = gemmi.make_small_structure_from_block(block)
    except (ValueError, RuntimeError) as e:
        raise InputError(f"{name}: cannot be read as a structure: {_line(e)}") from e
    if not block.find_value("_cell_length_a") or not small.cell.is_crystal() or not small.cell.volume > 1:
        raise InputError(f"{name}: cell is missing or impossible; give _cell_length_a … _cell_angle_gamma")
    sites = tuple(site for site in small.sites if np.isfinite(site.fract.tolist()).all() and site.occ != 0)
    if not sites:
        raise InputError(f"{name}: atoms are missing: none has coordinates and an occupancy above 0")
    for site in sites:
        if site.element.atomic_number == 0 or site.element.c4322 is None:
            raise InputError(f"{name}: atom {site.label} has no known element; correct _atom_site_type_symbol")
    tensors = _aniso_b(block)
    aniso = tuple(_tensor(site, tensors) for site in sites)
    candidates = [Contents(small.cell, ops, sites, aniso) for ops in _symmetries(name, block, small.cell)]
    contents = min(candidates, key=lambda c: _misfit(c, block)) if len(candidates) > 1 else candidates[0]
    _check_cell(name, contents)
    _check_sites(name, contents)
    return contents


def _check_cell(name: str, contents: Contents) -> None:
    """Every operation must leave the metric tensor as it is: else cell and space group do not belong together."""
    metric = contents.matrix().T @ contents.matrix()
    lengths = np.sqrt(np.diag(metric))
    turned = np.swapaxes(rotations(contents.operations), 1, 2) @ metric @ rotations(contents.operations)
    if (np.abs(turned - metric) > _METRIC * np.outer(lengths, lengths)).any():
        axes = " ".join(f"{v:g}" for v in contents.cell.parameters)
        raise InputError(f"{name}: the cell {axes} does not have the symmetry of the space group; correct one of them")


def _check_sites(name: str, contents: Contents) -> None:
    """No more than one atom in a place, and displacements that some motion can have."""
    for site, aniso in zip(contents.sites, contents.aniso, strict=True):
        where = f"{name}: atom {site.label}"
        if not 0 < site.occ <= 1 + _METRIC:
            raise InputError(f"{where} has occupancy {site.occ:g}; give a share from 0 to 1")
        if site.u_iso < 0 or (aniso is not None and np.linalg.eigvalsh(aniso).min() < -1e-4):
            raise InputError(f"{where} has a negative displacement parameter; correct its U or B, or leave it out")
        together = 0.0
        for other in contents.sites:
            apart = _distances(contents, site, other)
            images = (apart < _APART_A).sum() / stabiliser(contents, other)
            together += other.occ * images
        if together > 1.05:
            raise InputError(
                f"{where} and others, or its own images by symmetry, lie within {_APART_A} Å with {together:.3g} atoms "
                "in one place; correct coordinates, occupancies or space group"
            )


def rotations(operations: gemmi.GroupOps) -> np.ndarray:
    """Rotation parts (operation, 3, 3) of all operations, centred ones included."""
    return np.array([op.rot for op in operations]) // gemmi.Op.DEN


def stabiliser(contents: Contents, site: gemmi.SmallStructure.Site) -> int:
    """Number of operations that leave an atom where it is."""
    return int((_distances(contents, site, site) < _SAME_A).sum())


def _distances(contents: Contents, site: gemmi.SmallStructure.Site, other: gemmi.SmallStructure.Site) -> np.ndarray:
    """From an atom to the nearest lattice translate of every image of another, (operation,) in Å."""
    shifts = np.array([op.tran for op in contents.operations]) / gemmi.Op.DEN
    away = rotations(contents.operations) @ other.fract.tolist() + shifts - site.fract.tolist()
    return np.asarray(np.linalg.norm((away - np.round(away)) @ contents.matrix().T, axis=1))


def _block(name: str, text: str) -> gemmi.cif.Block:
    """The block of a CIF that holds a structure; journals' files have others beside it."""
    try:
        document = gemmi.cif.read_string(text)
    except (ValueError, RuntimeError) as e:
        raise InputError(f"{name}: not a CIF: {_line(e)}") from e
    tag = "_atom_site_fract_x"
    blocks = [b for b in document if b.find_loop(tag) or b.find_value(tag)]
    if len(blocks) > 1:
        raise InputError(f"{name}: holds {len(blocks)} structures; keep one data block")
    if not blocks:
        what = "not a CIF" if not len(document) else "cell, space group or atoms are missing"
        raise InputError(f"{name}: {what}; give a complete CIF")
    return blocks[0]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _symmetries(name: str, block: gemmi.cif.Block, cell: gemmi.UnitCell) -> list[gemmi.GroupOps]:
    """The group that a CIF states; more than one where it leaves the origin open.

    Operations are believed first, for they are what the coordinates were refined with; then a Hall symbol, which
    is as definite, the Hermann–Mauguin symbol, and the number.
    """
    triplets = next((list(column) for tag in _OPERATIONS if len(column := block.find_loop(tag))), [])
    single = next((v for tag in _OPERATIONS if (v := _value(block, tag))), "")
    if triplets or single:
        return [_group_of(name, triplets or [single])]
    if hall := next((v for tag in _HALL if (v := _value(block, tag))), ""):
        try:
            return [gemmi.symops_from_hall(hall)]
        except RuntimeError as e:
            raise InputError(f"{name}: Hall symbol '{hall}' cannot be read; correct it") from e
    symbol = next((v for tag in _NAMES if (v := _value(block, tag))), "")
    if symbol and (found := _by_name(symbol, cell)):
        return [group.operations() for group in found]
    if symbol and gemmi.find_spacegroup_by_name(symbol) is not None:
        raise InputError(f"{name}: space group '{symbol}' is of another setting than the cell; correct one of them")
    number = next((v for tag in _NUMBERS if (v := _value(block, tag))), "")
    if number.isdigit() and 1 <= int(number) <= 230:
        found = _by_name(gemmi.find_spacegroup_by_number(int(number)).hm, cell)
        return [group.operations() for group in found]
    stated = f"'{symbol or number}' is unknown" if symbol or number else "is missing"
    raise InputError(
        f"{name}: space group {stated}; give its symmetry operations or a symbol of the International Tables"
    )


def _value(block: gemmi.cif.Block, tag: str) -> str:
    """A value without its quotes; '' where it is absent or unknown."""
    raw = block.find_value(tag)
    return "" if raw is None or gemmi.cif.is_null(raw) else gemmi.cif.as_string(raw).strip()


def _group_of(name: str, triplets: list[str]) -> gemmi.GroupOps:
    try:
        group = gemmi.GroupOps([gemmi.Op(gemmi.cif.as_string(t)) for t in triplets])
        group.add_missing_elements()
    except (RuntimeError, ValueError) as e:
        raise InputError(f"{name}: symmetry operations do not form a space group: {_line(e)}") from e
    return group


def _by_name(symbol: str, cell: gemmi.UnitCell) -> list[gemmi.SpaceGroup]:
    """Space groups that a Hermann–Mauguin symbol may mean: two where the origin is open."""
    symbol = symbol.replace("_", "")
    choice = ""
    group = None if ":" in symbol else gemmi.find_spacegroup_by_name(symbol, cell.alpha, cell.gamma)
    if group is None and (match := _CHOICE.search(symbol)):
        choice = {"S": "1", "Z": "2"}.get(match[1], match[1])
        group = gemmi.find_spacegroup_by_name(symbol[: match.start()], cell.alpha, cell.gamma, choice)
    if group is None:
        return []
    if choice:
        return [group] if group.ext in (choice, "\0", "") else []
    if group.ext in ("1", "2"):
        # 2 first: where nothing else decides, an inversion centre at the origin is what programs write
        return [gemmi.find_spacegroup_by_name(f"{group.hm}:{origin}") for origin in "21"]
    return [group]


def _misfit(contents: Contents, block: gemmi.cif.Block) -> tuple[float, float, float]:
    """How badly a symmetry suits the atoms: difference from the formula, atoms too close, atoms in the cell.

    With the wrong origin atoms leave their special positions, so that the cell holds too many, or meet others.
    """
    counts: dict[str, float] = {}
    nearest = _CLOSEST_A
    for i, site in enumerate(contents.sites):
        counts[site.element.name] = counts.get(site.element.name, 0) + site.occ * contents.multiplicity(site)
        for other in contents.sites[i:]:
            apart = _distances(contents, site, other)
            nearest = min(nearest, apart[apart > _SAME_A if other is site else apart >= 0].min(initial=nearest))
    formula = re.findall(r"([A-Z][a-z]?)\s*(\d*\.?\d+)?", _value(block, "_chemical_formula_sum"))
    wanted = {element: float(number or 1) for element, number in formula if float(number or 1) > 0}
    ratios = np.array([counts[e] / wanted[e] for e in sorted(wanted.keys() & counts)] or [1.0])
    return round(float(np.ptp(ratios) / ratios.mean()), 2), round(_CLOSEST_A - nearest, 1), sum(counts.values())


def _aniso_b(block: gemmi.cif.Block) -> dict[str, np.ndarray]:
    """U tensors of the atoms whose anisotropic displacements are given as B, which gemmi does not read."""
    axes = ("11", "22", "33", "12", "13", "23")
    table = block.find("_atom_site_aniso_", ["label", *(f"B_{a}" for a in axes)])
    out = {}
    for row in table:
        b11, b22, b33, b12, b13, b23 = (gemmi.cif.as_number(row[i]) for i in range(1, 7))
        tensor = np.array([[b11, b12, b13], [b12, b22, b23], [b13, b23, b33]]) / (8 * np.pi**2)
        if np.isfinite(tensor).all():
            out[row.str(0)] = tensor
    return out


def _tensor(site: gemmi.SmallStructure.Site, tensors: dict[str, np.ndarray]) -> np.ndarray | None:
    if site.aniso.nonzero():
        return np.array(site.aniso.as_mat33().tolist())
    return tensors.get(site.label)
