"""`stemtomo predict` as a user calls it."""

import h5py
import numpy as np
import pytest

SHAPE = (96, 128)
DISKS = ((30, 30, 12), (60, 90, 16), (70, 30, 10))  # row, column, radius


@pytest.fixture
def field(tmp_path):
    """A dark-field image with three disks, and its bright field."""
    rng = np.random.default_rng(0)
    y, x = np.indices(SHAPE)
    thick = sum((np.hypot(y - cy, x - cx) <= r).astype(float) for cy, cx, r in DISKS)
    np.save(tmp_path / "adf.npy", rng.poisson(40 * (0.3 + thick)).astype("f4"))
    np.save(tmp_path / "bf.npy", rng.poisson(400 * np.exp(-0.5 * thick)).astype("f4"))
    return tmp_path


def stored(path):
    with h5py.File(path) as f:
        return f["masks"][:], f["score"][:]


def disk(n):
    y, x = np.indices(SHAPE)
    cy, cx, r = DISKS[n]
    return np.hypot(y - cy, x - cx) <= r


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_points_and_boxes_in_channels_give_one_outline_each(field, command):
    (field / "points.csv").write_text("x_px,y_px\n92,58\n30,30\n")
    cy, cx, r = DISKS[2]
    box = f"{cx - r},{cy - r},{cx + r},{cy + r}"
    channels = ("--channels", "adf=adf.npy", "bf=bf.npy")
    done = command(
        "predict", *channels, "-o", "out", "--model", "unet", "--points", "points.csv", "--boxes", box, cwd=field
    )
    assert done.stdout.splitlines()[-1] == "3 particles in 1 images: out"
    masks, score = stored(field / "out/adf.h5")
    assert [iou(m, disk(n)) > 0.7 for m, n in zip(masks, (2, 1, 0), strict=True)] == [True] * 3
    assert ((score > 0) & (score <= 1)).all()
    assert (field / "out/adf.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("adf.npy", "--points", "200,5"), "--points 200,5: not in the image, which is 128 px wide and 96 px high"),
        (("adf.npy", "--points", "20,5", "--model", "classical"), "takes no boxes or points"),
        (("adf.npy", "--channels"), "KIND=FILE"),
    ],
)
def test_wrong_calls_are_one_line(arguments, said, field, complaint, monkeypatch):
    monkeypatch.chdir(field)
    model = () if "--model" in arguments else ("--model", "unet")
    assert said in complaint("predict", *arguments, *model, "-o", "out")
