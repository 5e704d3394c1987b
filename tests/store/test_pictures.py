"""Images of every kind read back as they were written; what is no single image is refused in one line."""

import importlib
import warnings

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from stemtomo_dl.errors import InputError
from stemtomo_dl.records import Masks
from stemtomo_dl.store.pictures import LUMA, picture_names, read_picture, read_pixels
from stemtomo_dl.store.prediction import overlay, write_prediction

RNG = np.random.default_rng(0)
GREY8 = RNG.integers(0, 256, (20, 30)).astype("u1")
GREY16 = RNG.integers(0, 65536, (20, 30)).astype("u2")
FLOAT = RNG.normal(size=(20, 30)).astype("f4")
RGB = RNG.integers(0, 256, (20, 30, 3)).astype("u1")
RGBA = np.dstack([RGB, np.full((20, 30), 77, "u1")])


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("a.png", GREY8),
        ("b.PNG", GREY16),
        ("c.bmp", GREY8),
        ("d.tif", GREY8),
        ("e.tiff", GREY16),
        ("f.tif", FLOAT),
        ("g.tif", FLOAT.astype("f8")),
        ("h.tif", GREY16.astype("i4") - 9),
        ("i.npy", FLOAT),
        ("j.tif", GREY8 > 99),
    ],
)
def test_grey_images_keep_their_values(name, image, tmp_path):
    path = tmp_path / name
    if path.suffix == ".npy":
        np.save(path, image)
    elif path.suffix.startswith(".tif"):
        tifffile.imwrite(path, image, photometric="minisblack")
    else:
        Image.fromarray(image).save(path)
    got = read_picture(path)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, image.astype("f4"))


@pytest.mark.parametrize("name", ["a.png", "b.tif", "c.tif", "d.webp"])
@pytest.mark.parametrize("image", [RGB, RGBA], ids=["RGB", "RGBA"])
def test_colours_become_grey(name, image, tmp_path):
    path = tmp_path / name
    match name:
        case "b.tif":
            tifffile.imwrite(path, image, photometric="rgb")
        case "c.tif":
            planes = np.moveaxis(image, -1, 0)
            tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate")
        case "d.webp":
            Image.fromarray(image).save(path, lossless=True, exact=True)
        case _:
            Image.fromarray(image).save(path)
    np.testing.assert_allclose(read_picture(path), RGB @ LUMA, rtol=1e-6)


def test_other_kinds_of_grey(tmp_path):
    Image.fromarray(GREY8).convert("LA").save(tmp_path / "la.png")
    Image.fromarray(GREY8).convert("P").save(tmp_path / "p.png")
    tifffile.imwrite(tmp_path / "white.tif", GREY8, photometric="miniswhite")
    Image.fromarray(GREY8).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    tifffile.imwrite(tmp_path / "alone.tif", GREY8[None])
    expected = {"white.tif": 255 - GREY8}
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_allclose(read_picture(path), expected.get(path.name, GREY8), atol=1e-3, err_msg=path.name)
    np.testing.assert_array_equal(
        read_pixels(tmp_path / "p.png", palette=True), np.array(Image.open(tmp_path / "p.png"))
    )


def test_hyperspy_files(tmp_path):
    hspy = pytest.importorskip("rsciio.hspy")

    def signal(data):
        axes = [
            {"name": "zyx"[i - data.ndim], "size": n, "navigate": i < data.ndim - 2, "index_in_array": i}
            | {"scale": 1.0, "offset": 0.0, "units": "nm"}
            for i, n in enumerate(data.shape)
        ]
        nothing = ("original_metadata", "learning_results", "tmp_parameters", "models")
        return {"data": data, "axes": axes, "metadata": {"General": {"title": ""}, "Signal": {}}} | {
            **{k: {} for k in nothing},
            "attributes": {"_lazy": False},
            "package_info": {"package": "", "package_version": ""},
        }

    hspy.file_writer(str(tmp_path / "a.hspy"), signal(FLOAT))
    np.testing.assert_array_equal(read_picture(tmp_path / "a.hspy"), FLOAT)
    hspy.file_writer(str(tmp_path / "stack.hspy"), signal(np.stack([FLOAT] * 3)))
    with pytest.raises(InputError, match=r"stack\.hspy: holds 0 images"):
        read_picture(tmp_path / "stack.hspy")
    zspy = importlib.import_module("rsciio.zspy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what zarr has become
        zspy.file_writer(str(tmp_path / "a.zspy"), signal(FLOAT))
    np.testing.assert_array_equal(read_picture(tmp_path / "a.zspy"), FLOAT)


def bad_files(folder):
    """Name and what its complaint must say."""
    tifffile.imwrite(folder / "stack.tif", np.zeros((5, 8, 9), "u1"), photometric="minisblack")
    np.save(folder / "stack.npy", np.zeros((6, 8, 9)))
    np.save(folder / "line.npy", np.zeros(9))
    np.save(folder / "none.npy", np.zeros((0, 9)))
    np.save(folder / "complex.npy", np.zeros((8, 9), complex))
    np.save(folder / "text.npy", np.array([["a", "b"]]))
    np.save(folder / "nan.npy", np.full((8, 9), np.nan))
    np.save(folder / "code.npy", np.array([[{}]]), allow_pickle=True)
    frames = [Image.fromarray(GREY8), Image.fromarray(GREY8[::-1].copy())]
    frames[0].save(folder / "film.gif", save_all=True, append_images=frames[1:])
    for good, bad in (("a.png", "cut.png"), ("a.tif", "cut.tif")):
        Image.fromarray(GREY8).save(folder / good)
        (folder / bad).write_bytes((folder / good).read_bytes()[:100])
        (folder / good).unlink()
    for name in ("empty.png", "empty.tif", "empty.npy", "odd.xyz", "empty.dm4"):
        (folder / name).touch()
    (folder / "text.png").write_text("<html>")
    (folder / "folder.png").mkdir()
    says = {
        "stack.tif": "stack of 5",
        "film.gif": "stack of 2",
        "odd.xyz": "unknown format",
        "folder.png": "is a folder",
    }
    return says | {"complex.npy": "not brightness", "nan.npy": "no pixel with a number", "absent.png": "no such file"}


def test_what_is_no_image_is_one_line(tmp_path):
    pytest.importorskip("rsciio")
    says = bad_files(tmp_path)
    for path in [*tmp_path.iterdir(), tmp_path / "absent.png"]:
        with pytest.raises(InputError) as e:
            read_picture(path)
        assert str(path) in str(e.value)
        assert "\n" not in str(e.value)
        assert ";" in str(e.value), "it must say what to do"
        assert says.get(path.name, "") in str(e.value)


def test_names_must_differ(tmp_path):
    assert picture_names([tmp_path / "a.tif", tmp_path / "b.png"]) == ["a", "b"]
    with pytest.raises(InputError, match=r"a\.png: has the name of .*a\.tif"):
        picture_names([tmp_path / "a.tif", tmp_path / "x/a.png"])


def outlines():
    full = np.zeros((2, 20, 30), bool)
    full[0, 2:12, 3:15] = True
    full[1, 6:18, 10:29] = True
    return Masks.pack(full, np.zeros(2), np.array([0.9, 0.5]), np.zeros(1))


def test_a_prediction_is_read_by_anything(tmp_path):
    masks = outlines()
    stored, shown = write_prediction(tmp_path / "out", "a.b", FLOAT, masks)
    assert (stored.name, shown.name) == ("a.b.h5", "a.b.png")
    with h5py.File(stored) as f:
        np.testing.assert_array_equal(f["masks"][:], [masks.full(0), masks.full(1)])
        np.testing.assert_allclose(f["score"][:], [0.9, 0.5])
    np.testing.assert_array_equal(np.array(Image.open(shown)), overlay(FLOAT, masks))


def test_the_overlay_colours_borders_and_nothing_else():
    image = FLOAT.copy()
    image[0, 0] = np.nan
    masks = outlines()
    plain, drawn = overlay(image, masks.concatenate([outlines()])), overlay(image, masks)
    np.testing.assert_array_equal(plain, drawn)
    scale = drawn.shape[0] // 20
    coloured = (drawn != drawn[..., :1]).any(-1)
    for i in range(2):
        big = masks.full(i).repeat(scale, 0).repeat(scale, 1)
        assert coloured[big].mean() < 0.5
        ys, xs = np.nonzero(big)
        assert coloured[ys.min(), xs.min() : xs.max() + 1].all()  # its first row, all along
        assert coloured[ys.min() : ys.max() + 1, xs.max()].all()
    either = (masks.full(0) | masks.full(1)).repeat(scale, 0).repeat(scale, 1)
    assert not coloured[~either].any()
    assert overlay(np.zeros((900, 20)), Masks.pack(np.zeros((0, 900, 20), bool), *np.zeros((3, 0)))).shape == (
        900,
        20,
        3,
    )
