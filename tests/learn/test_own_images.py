"""Own images with masks: what is read is what was drawn, checked by pycocotools; every fault is one line."""

import json
import re

import numpy as np
import pytest
import tifffile
from PIL import Image

from stemtomo_dl.errors import InputError
from stemtomo_dl.learn.own_images import own_images, read_labels

H, W = 40, 50
RNG = np.random.default_rng(3)
GREY = RNG.integers(0, 256, (H, W)).astype("u1")
SQUARE = np.zeros((H, W), bool)
SQUARE[5:15, 10:30] = True


def blobs(n=6):
    y, x = np.mgrid[:H, :W]
    middles = RNG.uniform(0, (H, W), (n, 2))
    return [(y - a) ** 2 + (x - b) ** 2 < RNG.uniform(3, 12) ** 2 for a, b in middles]


def write_coco(folder, annotations, /, image="a.png", **changes):
    """A COCO file of one image."""
    folder.mkdir(exist_ok=True)
    if image:
        Image.fromarray(GREY).save(folder / "a.png")
    table = {
        "images": [{"id": 7, "file_name": "a.png", "height": H, "width": W, "licence": 3}],
        "annotations": [{"id": 10 + i, "image_id": 7, "category_id": 1} | a for i, a in enumerate(annotations)],
        "categories": [{"id": 1, "name": "particle"}],
    }
    (folder / "coco.json").write_text(json.dumps(table | changes))
    return folder / "coco.json"


def column_runs(mask):
    """Run lengths down the columns, the first outside, counted one pixel at a time."""
    counts, value = [0], False
    for pixel in mask.T.ravel():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def test_plain_run_lengths_and_whole_polygons(tmp_path):
    rectangle = [[10, 5, 30, 5, 30, 15, 10, 15]]
    runs = {"size": [H, W], "counts": column_runs(SQUARE)}
    two = [[10, 5, 20, 5, 20, 15, 10, 15], [20, 5, 30, 5, 30, 15, 20, 15]]
    far = [[-1e6, -1e6, 1e6, -1e6, 1e6, 1e6, -1e6, 1e6]]
    path = write_coco(tmp_path, [{"segmentation": s} for s in (rectangle, runs, two, far)])
    (own,) = own_images(path)
    assert own.name == "a.png"
    np.testing.assert_array_equal(own.images["grey"], GREY)
    assert len(own.masks) == 4
    for i in range(3):
        np.testing.assert_array_equal(own.masks.full(i), SQUARE)
    assert own.masks.full(3).all()
    assert own.counts.all()


def test_compressed_run_lengths_are_those_of_pycocotools(tmp_path):
    coding = pytest.importorskip("pycocotools.mask")
    masks = [*blobs(), RNG.random((H, W)) < 0.3, np.ones((H, W), bool), np.eye(H, W, dtype=bool)]
    rle = [coding.encode(np.asfortranarray(m, "u1")) for m in masks]
    texts = [{"segmentation": {"size": [H, W], "counts": r["counts"].decode()}} for r in rle]
    (own,) = own_images(write_coco(tmp_path, texts))
    for i, m in enumerate(masks):
        np.testing.assert_array_equal(own.masks.full(i), m)


@pytest.mark.filterwarnings("ignore:__array__")  # of pycocotools
def test_polygons_differ_from_pycocotools_at_the_rim_only(tmp_path):
    coding = pytest.importorskip("pycocotools.mask")
    from scipy import ndimage

    turn = np.sort(RNG.uniform(0, 2 * np.pi, (8, 12)))
    middle, radius = RNG.uniform(5, 35, (8, 1, 2)), RNG.uniform(6, 14, (8, 12, 1))  # some reach out of the image
    corners = (middle + radius * np.stack([np.cos(turn), np.sin(turn)], -1)).reshape(8, -1)
    (own,) = own_images(write_coco(tmp_path, [{"segmentation": [c.tolist()]} for c in corners]))
    for i, c in enumerate(corners):
        expected = coding.decode(coding.frPyObjects([c.tolist()], H, W))[..., 0].astype(bool)
        rim = ndimage.binary_dilation(expected) & ~ndimage.binary_erosion(expected, border_value=1)
        assert not ((own.masks.full(i) != expected) & ~rim).any()
        assert abs(own.masks.full(i).sum() - expected.sum()) < 0.5 * rim.sum()


def test_a_crowd_need_not_be_found_and_a_dot_is_left_out(tmp_path):
    runs = {"size": [H, W], "counts": column_runs(SQUARE)}
    dot = [[4.1, 4.1, 4.3, 4.1, 4.2, 4.3]]
    path = write_coco(tmp_path, [{"segmentation": runs, "iscrowd": 1}, {"segmentation": dot}, {"segmentation": runs}])
    (own,) = own_images(path)
    np.testing.assert_array_equal(own.counts, [False, True])


def test_an_image_without_annotations_is_an_empty_one(tmp_path):
    path = write_coco(tmp_path, [], image=None)
    (tmp_path / "images").mkdir()
    Image.fromarray(GREY).save(tmp_path / "images/a.png")  # the other place where it may be
    (own,) = own_images(path)
    assert len(own.masks) == len(own.counts) == 0
    assert own.masks.shape == (H, W)


RUNS = {"size": [H, W], "counts": column_runs(SQUARE)}


@pytest.mark.parametrize(
    ("segmentation", "complaint"),
    [
        ([[1, 2, 3, 4]], "a polygon of 4 numbers"),
        ([[1, 2, 3, 4, 5, 6, 7]], "a polygon of 7 numbers"),
        ([], "has no outline"),
        (RUNS | {"size": [W, H]}, "its mask has size [50, 40], its image [40, 50]"),
        (RUNS | {"counts": [5, 5]}, "do not fill its image"),
        (RUNS | {"counts": [-5, H * W + 5]}, "do not fill its image"),
        (RUNS | {"counts": [10**30]}, "do not fill its image"),
        (RUNS | {"counts": "a~ü"}, "cannot be decoded"),
        (RUNS | {"counts": "o" * 40}, "cannot be decoded"),
        (RUNS | {"counts": "0o"}, "end too early"),
        ({"counts": [1]}, "size"),
        ([["a", 2, 3, 4, 5, 6]], "segmentation"),
        ([[1e30, 2, 3, 4, 5, 6]], "segmentation"),
        ("text", "segmentation"),
    ],
)
def test_a_wrong_outline_names_file_and_annotation(segmentation, complaint, tmp_path):
    path = write_coco(tmp_path, [{"segmentation": RUNS}, {"segmentation": segmentation}])
    with pytest.raises(InputError, match=re.escape(complaint)) as e:
        own_images(path)
    assert str(path) in str(e.value)
    assert re.search(r"annotation 11|annotations\.1", str(e.value))
    assert "\n" not in str(e.value)


def test_a_wrong_coco_file_is_one_line(tmp_path):
    entry = {"id": 7, "file_name": "a.png", "height": H, "width": W}
    for n, (changes, complaint) in enumerate(
        [
            ({"images": []}, "images"),
            ({"images": [entry, entry]}, "image id 7 is there twice"),
            ({"images": [entry | {"file_name": "b.png"}]}, "image 'b.png' is not at"),
            ({"images": [entry | {"width": W + 1}]}, "its masks in"),
            ({"images": [entry | {"id": 8}]}, "annotation 10 is of image 7, which is not there"),
            ({"annotations": 5}, "annotations"),
        ]
    ):
        path = write_coco(tmp_path / str(n), [{"segmentation": [[0, 0, 9, 0, 9, 9]]}], **changes)
        with pytest.raises(InputError, match=re.escape(complaint)) as e:
            own_images(path)
        assert str(tmp_path) in str(e.value)
        assert "\n" not in str(e.value)
    for text in ("", "[]", '{"images": 1', '{"a": 1}', "\xff"):
        (tmp_path / "x.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(InputError, match=r"x\.json: "):
            own_images(tmp_path / "x.json")
    for absent in ("absent.json", "absent"):
        with pytest.raises(InputError, match=absent):
            own_images(tmp_path / absent)


def labels(dtype="u2"):
    """Three particles, numbered with gaps, one in two parts."""
    out = np.zeros((H, W), dtype)
    out[2:9, 3:12], out[20:30, 20:44], out[35:38, 1:9], out[35:38, 20:30] = 3, 200, 77, 77
    return out


def folder_of(folder, label, suffix=".tif", name="labels"):
    (folder / "images").mkdir(parents=True)
    (folder / name).mkdir()
    Image.fromarray(GREY).save(folder / "images/a.png")
    if suffix == ".tif":
        tifffile.imwrite(folder / name / "a.tif", label)
    else:
        (label if isinstance(label, Image.Image) else Image.fromarray(label)).save(folder / name / f"a{suffix}")
    return folder


@pytest.mark.parametrize("name", ["labels", "masks"])
@pytest.mark.parametrize(
    ("dtype", "suffix"),
    [("u1", ".png"), ("u1", ".tif"), ("u2", ".png"), ("u2", ".tif"), ("i4", ".tif"), ("u4", ".tif"), ("f4", ".tif")],
)
def test_label_images_of_every_depth(dtype, suffix, name, tmp_path):
    label = labels(dtype)
    (own,) = own_images(folder_of(tmp_path / "own", label, suffix, name))
    assert len(own.masks) == 3
    for i, k in enumerate((3, 77, 200)):
        np.testing.assert_array_equal(own.masks.full(i), label == k)
    np.testing.assert_array_equal(own.images["grey"], GREY)


def test_indexed_labels_and_labels_without_background(tmp_path):
    indexed = Image.fromarray(labels("u1"))
    indexed = Image.frombytes("P", indexed.size, indexed.tobytes())
    indexed.putpalette(list(range(256)) * 3)
    (own,) = own_images(folder_of(tmp_path / "p", indexed, ".png"))
    assert len(own.masks) == 3
    split = np.where(np.arange(W) < 20, 5, 9)[None].repeat(H, 0).astype("u1")
    (own,) = own_images(folder_of(tmp_path / "full", split))
    assert [c.shape for c in own.masks.crops] == [(H, 20), (H, 30)]
    (own,) = own_images(folder_of(tmp_path / "empty", np.zeros((H, W), "u1")))
    assert len(own.masks) == 0


def test_wrong_label_images_are_one_line(tmp_path):
    binary = np.where(labels() > 0, 255, 0).astype("u1")
    for n, (label, complaint) in enumerate(
        [
            (np.dstack([GREY] * 3), "has colours"),
            (labels("f4") / 2, "holds fractions"),
            (labels("i2") - 1, "from 0"),
            (binary, "gives all particles one number, 255"),
            (labels()[:-1], "is of [40, 50] px, its masks in"),
        ]
    ):
        with pytest.raises(InputError, match=re.escape(complaint)) as e:
            own_images(folder_of(tmp_path / str(n), label))
        assert "a.tif" in str(e.value)
        assert "\n" not in str(e.value)
    one = np.zeros((H, W), "u1")
    one[5:20, 5:20], one[30, 30] = 255, 255  # a particle and a stray pixel
    tifffile.imwrite(tmp_path / "one.tif", one)
    assert read_labels(tmp_path / "one.tif").max() == 1


def test_wrong_folders_are_one_line(tmp_path):
    good = folder_of(tmp_path / "own", labels())
    Image.fromarray(GREY).save(good / "images/b.png")
    with pytest.raises(InputError, match=r"b\.png: nothing of that name is in .*labels"):
        own_images(good)
    (good / "images/b.png").rename(good / "labels/b.png")
    with pytest.raises(InputError, match=r"b\.png: nothing of that name is in .*images"):
        own_images(good)
    (good / "labels/b.png").rename(good / "labels/a.png")
    with pytest.raises(InputError, match="has the name of"):
        own_images(good)
    (good / "third").mkdir()
    with pytest.raises(InputError, match="must hold a folder 'images' and one other"):
        own_images(good)
    for name in ("images", "labels"):
        (tmp_path / "bare" / name).mkdir(parents=True)
    with pytest.raises(InputError, match="images: holds no files"):
        own_images(tmp_path / "bare")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="it holds nothing"):
        own_images(tmp_path / "nothing")
