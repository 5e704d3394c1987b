"""What series from anywhere state of their instrument."""

import numpy as np
import pytest

from stemtomo_dl.errors import InputError
from stemtomo_dl.store.facts import brightest, stated_instrument

OURS = {"voltage_kv": 200.0, "pixel_inv_angstrom": 0.02, "tilt_axis_deg": 30.0, "convergence_mrad": 0.5}


def without(name, **more):
    return {k: v for k, v in OURS.items() if k != name} | more


def test_the_contracts_names_are_taken_as_they_are():
    m = stated_instrument(OURS, "s.h5")
    assert (m.voltage_kv, m.pixel_inv_angstrom, m.tilt_axis_deg, m.convergence_mrad) == (200.0, 0.02, 30.0, 0.5)


def test_a_wavelength_and_an_axis_stand_for_voltage_and_azimuth():
    facts = {
        "wavelength_angstrom": 0.025079,
        "pixel_inv_angstrom": 0.01,
        "rotation_axis_xds": "0.7880 -0.6157 0 (y down)",
    }
    m = stated_instrument(facts, "s.h5")
    assert m.voltage_kv == pytest.approx(200.0, abs=0.05)
    assert m.tilt_axis_deg == pytest.approx(np.degrees(np.arctan2(-0.6157, 0.7880)))
    assert m.convergence_mrad == 0.0


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        (without("voltage_kv"), "voltage_kv"),
        (without("tilt_axis_deg"), "tilt_axis_deg"),
        (without("voltage_kv", wavelength_angstrom=1.54), "wavelength"),
        (without("tilt_axis_deg", rotation_axis="along the arm"), "rotation_axis"),
        (OURS | {"pixel_inv_angstrom": -1.0}, "pixel_inv_angstrom"),
        (OURS | {"voltage_kv": "much"}, "voltage_kv"),
    ],
)
def test_what_is_wrong_is_said(facts, word):
    with pytest.raises(InputError, match=word):
        stated_instrument(facts, "s.h5")


def test_the_beam_is_where_the_mean_is_brightest():
    y, x = np.mgrid[:64, :80]
    beam = 500 * np.exp(-((x - 43.3) ** 2 + (y - 30.6) ** 2) / 8) + 1
    assert brightest(np.tile(beam, (3, 1, 1))) == pytest.approx([43.3, 30.6], abs=0.05)
