"""LATT and SYMM of the SHELX files: each operation once, and the whole group again from them."""

from __future__ import annotations

import gemmi
import pytest

from stemtomo_dl.export.structure import symmetry_lines
from stemtomo_dl.store.intensities import _operations


@pytest.mark.parametrize("number", range(1, 231))
def test_lines_make_the_group_again_and_say_nothing_twice(number: int) -> None:
    settings = [s for s in gemmi.spacegroup_table() if s.number == number and not s.xhm().endswith(":R")]
    for group in settings:
        if group.centring_type() == "H":  # a triple cell that SHELX has no LATT for
            continue
        operations = group.operations()
        lattice, *symm = symmetry_lines(operations)
        read = _operations("x.ins", int(lattice.split()[1]), [line.split()[1] for line in symm])
        assert set(read) == {op.triplet() for op in operations}, group.xhm()
        centred = int(lattice.split()[1]) > 0
        assert len(symm) + 1 == len(operations.sym_ops) // (2 if centred else 1), group.xhm()
