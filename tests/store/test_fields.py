"""What one call of `predict` is asked to segment."""

from pathlib import Path

import numpy as np
import pytest

from stemtomo_dl.errors import InputError
from stemtomo_dl.records import VirtualImages
from stemtomo_dl.segment.planes import PLANES
from stemtomo_dl.store.fields import field_of_channels, fields_of
from stemtomo_dl.store.results import write_images

RNG = np.random.default_rng(0)


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = {name: RNG.normal(size=(6, 8)).astype("f4") for name in ("a", "b")}
    for name, image in images.items():
        np.save(f"{name}.npy", image)
    np.save("wide.npy", np.ones((6, 9), "f4"))
    return images


def test_files_are_fields_or_channels_of_one(files):
    first, second = fields_of([Path("a.npy"), Path("b.npy")])
    assert (first.name, second.name) == ("a", "b")
    np.testing.assert_array_equal(second.read()["grey"], files["b"])
    both = field_of_channels(["bf=b.npy", "adf=a.npy"], PLANES)
    assert both.name == "b"
    assert list(both.read()) == ["bf", "adf"]
    np.testing.assert_array_equal(both.read()["adf"], files["a"])


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["a.npy"], "a.npy: with --channels give KIND=FILE, KIND one of bf, adf"),
        (["edx=a.npy"], "KIND one of"),
        (["bf="], "KIND=FILE"),
        (["bf=a.npy", "bf=b.npy"], "bf=b.npy: bf is a.npy already"),
        (["bf=a.npy", "adf=absent.npy"], "absent.npy: no such file"),
        (["bf=a.npy", "adf=wide.npy"], r"wide.npy: is of [6, 9] px, a.npy of [6, 8]"),
    ],
)
def test_wrong_channels_are_one_line(given, complaint, files):
    with pytest.raises(InputError) as e:
        field_of_channels(given, PLANES).read()
    assert complaint in str(e.value)


def test_every_tilt_of_a_run_is_a_field(tmp_path):
    path = tmp_path / "images.h5"
    stack = RNG.normal(size=(3, 2, 6, 8)).astype("f4")
    tilts = [
        (i, VirtualImages(("bf", "adf"), stack[i], np.zeros((2, 6)), np.zeros((4, 4), "f4"), np.zeros((4, 4), "f4")))
        for i in (0, 2)
    ]
    write_images(path, iter(tilts), np.arange(3.0), np.zeros((4, 4), bool))
    first, last = fields_of([path])
    assert (first.name, last.name) == ("images_0000", "images_0002")
    np.testing.assert_array_equal(last.read()["adf"], stack[2, 1])
    np.save(tmp_path / "images_0002.npy", stack[0, 0])
    with pytest.raises(InputError, match="images_0002: two images have this name"):
        fields_of([path, tmp_path / "images_0002.npy"])
    (tmp_path / "other.h5").write_bytes(b"x")
    with pytest.raises(InputError, match="not a readable HDF5 file"):
        fields_of([tmp_path / "other.h5"])
