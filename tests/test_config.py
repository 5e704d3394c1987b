"""The experiment file: defaults, doses, and complaints that name key and file in one line."""

import pytest

from stemtomo_dl.config import Experiment, load
from stemtomo_dl.errors import InputError

GOOD = """
[scans]
files = "scans/*.h5"
tilts = "tilts.csv"
[beam]
voltage_kv = 200
convergence_mrad = 0.8
{beam}
[scan]
step_nm = 5.0
[detector]
pixel_inv_angstrom = 0.03
[stage]
tilt_axis_deg = 24.3
{more}
"""


def read(tmp_path, beam="", more="", text=None):
    path = tmp_path / "e.toml"
    path.write_text(GOOD.format(beam=beam, more=more) if text is None else text)
    return load(Experiment, path)


def test_defaults_and_doses(tmp_path):
    assert read(tmp_path).beam.electrons is None
    assert read(tmp_path, "electrons_per_pattern = 1500").beam.electrons == 1500
    # 1 pA for 1 ms is 6241.5 electrons
    assert read(tmp_path, "current_pa = 1\ndwell_ms = 1").beam.electrons == pytest.approx(6241.509, rel=1e-6)
    assert read(tmp_path).instrument.rotation_deg == 0.0
    for elements in (["Ti", "O"], ["D", "Cf"], ["guess"], []):
        assert read(tmp_path, more=f"[sample]\nelements = {elements}").sample.elements == elements


@pytest.mark.parametrize(
    ("beam", "more", "words"),
    [
        ("colour = 3", "", "unknown key 'beam.colour'"),
        ("", "[extras]\na = 1", "unknown key 'extras'"),
        ("current_pa = 1", "", "current_pa and dwell_ms go together"),
        ("electrons_per_pattern = -5", "", "beam.electrons_per_pattern"),
        ("electrons_per_pattern = nan", "", "beam.electrons_per_pattern"),
        ("electrons_per_pattern = 'many'", "", "beam.electrons_per_pattern"),
        ("", "[segment]\nneck = 2", "segment.neck"),
        ("", '[sample]\nelements = ["Ti", "Xx"]', "'Xx' is no chemical symbol"),
        ("", '[sample]\nelements = ["X"]', "'X' is no chemical symbol"),
        ("", '[sample]\nelements = ["Es"]', "'Es' is no chemical symbol"),
        ("", '[sample]\nelements = ["O2"]', "'O2' is no chemical symbol"),
        ("", '[sample]\nelements = ["guess", "O"]', "'guess' is no chemical symbol"),
    ],
)
def test_complaints_name_key_and_file(tmp_path, beam, more, words):
    with pytest.raises(InputError) as caught:
        read(tmp_path, beam, more)
    message = str(caught.value)
    assert words in message
    assert "e.toml" in message
    assert "\n" not in message


def test_a_misspelt_key_is_named_rather_than_the_one_it_stands_for(tmp_path):
    text = GOOD.format(beam="", more="").replace("voltage_kv", "voltage_kV")
    with pytest.raises(InputError, match=r"unknown key 'beam\.voltage_kV'"):
        read(tmp_path, text=text)


def test_a_bad_angle_in_a_list_is_named(tmp_path):
    text = GOOD.format(beam="", more="").replace('tilts = "tilts.csv"', "tilts = [0.0, 1.0, nan]")
    with pytest.raises(InputError, match=r"key 'scans\.tilts\.2'.*finite") as caught:
        read(tmp_path, text=text)
    assert "\n" not in str(caught.value)


def test_missing_key_bad_toml_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"missing key 'scans'"):
        read(tmp_path, text="title = 'x'")
    with pytest.raises(InputError, match="not valid TOML"):
        read(tmp_path, text="[scans\n")
    with pytest.raises(InputError, match="cannot be read"):
        load(Experiment, tmp_path / "absent.toml")
    with pytest.raises(InputError, match="cannot be read"):
        load(Experiment, tmp_path)


def test_a_byte_order_mark_is_not_part_of_the_first_key(tmp_path):
    path = tmp_path / "e.toml"
    path.write_text("\ufeff" + GOOD.format(beam="", more=""), encoding="utf-8")
    assert load(Experiment, path).beam.voltage_kv > 0
