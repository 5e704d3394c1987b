"""SHELX's four Gaussians and a constant against the table of five that structures are refined with."""

from types import SimpleNamespace

import gemmi
import numpy as np
import pytest

from stemtomo_dl.scattering import scattering_factor, sfac_line
from stemtomo_dl.store.intensities import read_intensities
from stemtomo_dl.store.reflections import write_ins


def read_back(text: str) -> tuple[str, list[float]]:
    """As SHELXL does: a continued line, and numbers with blanks between."""
    assert all(len(line) <= 80 for line in text.splitlines())
    _, name, *numbers = text.replace("=\n", " ").split()
    return name, [float(n) for n in numbers]


@pytest.mark.parametrize("element", ["H", "Li", "C", "O", "Na", "K", "Ti", "Sr", "Cs", "Nd", "Pb", "U"])
def test_a_line_gives_the_factor_at_all_angles(element):
    name, numbers = read_back(sfac_line(element))
    assert name == element.upper()
    assert len(numbers) == 14
    s2 = np.linspace(0, 2, 333) ** 2
    fitted = sum(a * np.exp(-b * s2) for a, b in zip(numbers[0:8:2], numbers[1:8:2], strict=True)) + numbers[8]
    true = scattering_factor(element, s2)
    assert np.abs(fitted / true - 1).max() < 0.02
    assert numbers[9:12] == [0, 0, 0]
    assert numbers[13] == pytest.approx(gemmi.Element(element).weight, abs=1e-3)


def test_files_to_be_solved_elsewhere_say_that_the_beam_is_of_electrons(tmp_path):
    crystal = SimpleNamespace(cell=[4.59, 4.59, 2.96, 90, 90, 90], lattice="tP")
    write_ins(tmp_path / "x.ins", "x", crystal, 0.0251, ("Ti", "O"))
    (tmp_path / "x.hkl").write_text("".join(f"{h:4d}{0:4d}{0:4d}{9:8.2f}{1:8.2f}\n" for h in range(1, 9)))
    assert (tmp_path / "x.ins").read_text().count(sfac_line("Ti")) == 1
    assert read_intensities(tmp_path / "x.hkl").elements == ("Ti", "O")
    write_ins(tmp_path / "y.ins", "y", crystal, 0.0251, ["guess"])
    assert "SFAC" not in (tmp_path / "y.ins").read_text()
