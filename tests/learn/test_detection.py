"""Detection scores against pycocotools and torchmetrics, and answers known beforehand."""

import contextlib
import io

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from stemtomo_dl.learn.detection import THRESHOLDS, by_class, by_dose, compare, panoptic_quality, scores
from stemtomo_dl.learn.overlap import depth, iou_matrix, overlaps, visibility
from stemtomo_dl.records import Masks

SHAPE = (48, 64)


def record(full, score=None):
    """Masks of one image."""
    full = np.asarray(full, bool).reshape(-1, *SHAPE)
    return Masks.pack(
        full, np.zeros(len(full)), np.ones(len(full)) if score is None else np.asarray(score), np.zeros(1)
    )


def ellipses(rng, n):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    out = []
    for _ in range(n):
        cy, cx, a, b = rng.uniform(0, SHAPE[0]), rng.uniform(0, SHAPE[1]), rng.uniform(2, 12), rng.uniform(2, 12)
        out.append(((y - cy) / a) ** 2 + ((x - cx) / b) ** 2 < 1)
    return [m for m in out if m.any()]


def images(n_images=12):
    """Crowded fields, most particles found askew, some twice, some not; some outlines of nothing; equal scores."""
    rng = np.random.default_rng(5)
    out = []
    for _ in range(n_images):
        true = ellipses(rng, rng.integers(0, 25))
        found = [np.roll(m, rng.integers(-1, 2, 2), (0, 1)) for m in true for _ in range(rng.integers(0, 3))]
        found += ellipses(rng, rng.integers(0, 6))
        score = np.round(rng.random(len(found)), 1)
        counts = rng.random(len(true)) < 0.8
        out.append((record(found, score), record(true), counts))
    return out


def cases(some):
    return [compare(f, np.arange(len(f)), t, np.arange(len(t)), c) for f, t, c in some]


def coco_precision(some, area_range=(0, 1e8)):
    """AP at each IoU by pycocotools; truths that need not be found have an area outside the range."""
    coco = pytest.importorskip("pycocotools.coco")
    evaluator = pytest.importorskip("pycocotools.cocoeval")
    encode = pytest.importorskip("pycocotools.mask").encode
    truths, found = [], []
    for n, (f, t, counts) in enumerate(some):
        for i in range(len(t)):
            area = int(t.crops[i].sum()) if counts[i] else 10**9
            truths.append({"segmentation": encode(np.asfortranarray(t.full(i), "u1")), "area": area, "image_id": n})
        for i in range(len(f)):
            rle = encode(np.asfortranarray(f.full(i), "u1"))
            found.append({"segmentation": rle, "score": float(f.score[i]), "image_id": n, "category_id": 1})
    for i, t in enumerate(truths):
        t |= {"id": i + 1, "category_id": 1, "iscrowd": 0}
    size = {"height": SHAPE[0], "width": SHAPE[1]}
    with contextlib.redirect_stdout(io.StringIO()):
        known = coco.COCO()
        known.dataset = {
            "images": [{"id": n, **size} for n in range(len(some))],
            "annotations": truths,
            "categories": [{"id": 1}],
        }
        known.createIndex()
        e = evaluator.COCOeval(known, known.loadRes(found), "segm")
        e.params.areaRng, e.params.areaRngLbl, e.params.maxDets = [list(area_range)], ["all"], [10000]
        e.evaluate()
        e.accumulate()
    return e.eval["precision"][:, :, 0, 0, 0].mean(1)


@pytest.mark.parametrize("some_ignored", [False, True])
def test_average_precision_is_that_of_pycocotools(some_ignored):
    some = images()
    if not some_ignored:
        some = [(f, t, np.ones(len(t), bool)) for f, t, _ in some]
    expected = coco_precision(some)
    s = scores(cases(some))
    assert 0.1 < expected.mean() < 0.9
    assert s["ap"] == pytest.approx(expected.mean(), abs=1e-4)
    assert s["ap50"] == pytest.approx(expected[0], abs=1e-4)
    assert s["ap75"] == pytest.approx(expected[5], abs=1e-4)


def test_size_classes_are_area_ranges_of_pycocotools():
    some = images()
    sizes = by_class(cases(some))["size"]
    for name, span in {"small": (0, 143.5), "medium": (143.5, 1023.5)}.items():
        assert sizes[name]["ap"] == pytest.approx(coco_precision(some, span).mean(), abs=1e-4)
    assert sizes["large"]["n_true"] == 0
    assert sizes["large"]["ap"] is None


def test_panoptic_quality_is_that_of_torchmetrics_where_nothing_overlaps():
    detection = pytest.importorskip("torchmetrics.detection")
    import torch

    rng = np.random.default_rng(2)
    metric = detection.PanopticQuality(things={1}, stuffs={0}, return_per_class=True, return_sq_and_rq=True)
    some = []
    for _ in range(6):
        label = np.zeros(SHAPE, int)
        for k, m in enumerate(ellipses(rng, 12), 1):
            label[m] = k
        seen = np.roll(label, rng.integers(-2, 3, 2), (0, 1))
        seen[:, :20] = 0
        planes = [torch.from_numpy(np.stack([a > 0, a], -1)[None]) for a in (seen, label)]
        metric.update(*planes)
        f, t = (record([a == k for k in np.unique(a) if k]) for a in (seen, label))
        some.append((f, t, np.ones(len(t), bool)))
    got = panoptic_quality(cases(some))
    expected = metric.compute()[list(metric.things).index(1) if metric.things else 0]
    np.testing.assert_allclose([got[k] for k in ("pq", "sq", "rq")], expected, atol=1e-6)


def boxes(*corners):
    """Rectangles (y0, y1, x0, x1)."""
    out = np.zeros((len(corners), *SHAPE), bool)
    for m, (y0, y1, x0, x1) in zip(out, corners, strict=True):
        m[y0:y1, x0:x1] = True
    return out


def test_known_answers_by_hand():
    truth = record(boxes((0, 10, 0, 10), (20, 30, 20, 30), (0, 10, 40, 50)))
    found = record(boxes((0, 10, 0, 8), (20, 30, 20, 30), (30, 40, 0, 10)), [0.9, 0.8, 0.7])  # IoU .8, 1, nothing
    s = scores([compare(found, np.arange(3), truth, np.arange(3))], 0.75)
    assert s["n_true"] == 3
    assert s["n_found"] == 2
    assert s["f1"] == pytest.approx(4 / 5, abs=1e-4)
    assert (s["best_f1"], s["best_f1_score"]) == pytest.approx((4 / 5, 0.8), abs=1e-4)
    assert s["pq"] == pytest.approx(1.8 / (2 + 1 / 2), abs=1e-4)
    assert (s["sq"], s["rq"]) == pytest.approx((0.9, 0.8), abs=1e-4)
    assert s["ap50"] == pytest.approx(67 / 101, abs=1e-4)  # precision 1 up to recall 2/3
    high = 34 / 101 * 0.5  # above IoU .8 the surer one is wrong: precision ½ up to recall 1/3
    assert s["ap"] == pytest.approx((7 * 67 / 101 + 3 * high) / 10, abs=1e-4)
    all_of_it = scores([compare(found, np.arange(3), truth, np.arange(3))])
    assert all_of_it["f1"] == pytest.approx(2 / 3, abs=1e-4)
    assert all_of_it["pq"] == pytest.approx(1.8 / 3, abs=1e-4)


def test_particles_that_lie_on_each_other_are_told_apart():
    truth = record(boxes((0, 20, 0, 20), (0, 20, 5, 25)))  # IoU .6 with each other
    case = compare(truth, np.arange(2), truth, np.arange(2))
    assert scores([case])["pq"] == 1
    one = compare(truth, np.arange(1), truth, np.arange(2))
    assert scores([one])["pq"] == pytest.approx(2 / 3, abs=1e-4)
    twice = record(boxes((0, 20, 0, 20), (0, 20, 0, 20), (0, 20, 5, 25)), [0.9, 0.8, 0.7])
    s = scores([compare(twice, np.arange(3), truth, np.arange(2))])
    # a double takes the neighbour, which overlaps it by .6, before the right one comes; PQ assigns the best sum
    assert s["f1"] == pytest.approx(4 / 5, abs=1e-4)
    assert s["pq"] == pytest.approx(4 / 5, abs=1e-4)


def test_what_need_not_be_found_is_no_error_either_way():
    truth = record(boxes((0, 10, 0, 10), (20, 30, 20, 30)))
    counts = np.array([True, False])
    for rows in ([0], [0, 1]):
        s = scores([compare(truth, np.array(rows), truth, np.arange(2), counts)])
        assert [s[k] for k in ("ap", "f1", "pq", "n_true", "n_found")] == [1, 1, 1, 1, 1]
    speck = record(boxes((0, 10, 0, 10), (40, 41, 0, 2)))
    alone = record(boxes((0, 10, 0, 10)))
    for found, true in ((speck, alone), (alone, speck)):
        s = scores([compare(found, np.arange(len(found)), true, np.arange(len(true)), least_px=3)])
        assert [s[k] for k in ("ap", "f1", "pq", "n_true", "n_found")] == [1, 1, 1, 1, 1]


def test_nothing_true_or_nothing_found():
    none, one = record([]), record(boxes((0, 5, 0, 5)))
    empty = scores([compare(none, np.arange(0), none, np.arange(0))])
    assert empty["ap"] is None
    assert empty["pq"] is None
    missed = scores([compare(none, np.arange(0), one, np.arange(1))])
    assert [missed[k] for k in ("ap", "f1", "best_f1", "pq", "n_found")] == [0, 0, 0, 0, 0]
    assert missed["best_f1_score"] is None
    invented = scores([compare(one, np.arange(1), none, np.arange(0))])
    assert (invented["ap"], invented["n_found"]) == (None, 1)


def test_overlap_classes():
    truth = record(boxes((0, 20, 0, 20), (0, 20, 10, 30), (30, 40, 30, 40)))
    columns = np.arange(3)
    np.testing.assert_allclose(visibility(truth, columns, depth(truth, columns)), [0.5, 0.5, 1])
    # both of the pair are found, the lone one is not; an invented outline lies on the film
    found = record(boxes((0, 20, 0, 20), (0, 20, 10, 30), (42, 46, 0, 9)))
    classes = by_class([compare(found, columns, truth, columns)])["visibility"]
    assert (classes["partial"]["pq"], classes["partial"]["n_true"]) == (1, 2)
    assert (classes["clear"]["pq"], classes["clear"]["n_found"], classes["clear"]["n_true"]) == (0, 1, 1)
    assert classes["buried"]["pq"] is None


def test_dose_classes_are_subsets_of_the_images():
    some = cases(images(9))
    electrons = [20, 50, 499, 500, 5000, 49, 60, 1e4, 1]
    got = by_dose(some, electrons, 0.5)
    for name, which in {"low": (0, 5, 8), "medium": (1, 2, 6), "high": (3, 4, 7)}.items():
        assert got[name] == scores([some[i] for i in which], 0.5)
        assert got[name]["n_true"] > 0


def test_overlaps_on_crops_are_those_of_whole_masks():
    for f, t, _ in images(4):
        rows, columns = np.arange(len(f))[::-1], np.arange(len(t))
        full_f, full_t = (np.array([m.full(i).ravel() for i in k], float) for m, k in ((f, rows), (t, columns)))
        common = full_f.reshape(len(f), -1) @ full_t.reshape(len(t), -1).T if len(f) and len(t) else np.zeros((0, 0))
        union = full_f.sum(-1)[:, None] + full_t.sum(-1)[None] - common if common.size else common
        matrix = iou_matrix(f, rows, t, columns)
        np.testing.assert_allclose(matrix.ravel(), (common / np.maximum(union, 1)).ravel(), rtol=1e-12)
        pairs, iou = overlaps(f, rows, t, columns)
        assert len(pairs) == (matrix > 0).sum()
        assert np.array_equal(matrix[tuple(pairs.T)], iou)


def test_panoptic_matches_are_the_assignment_of_the_greatest_sum():
    for c, (f, t, _) in zip(cases(images()), images(), strict=True):
        c.counts[:] = True
        matrix = iou_matrix(f, np.arange(len(f)), t, np.arange(len(t)))
        matrix[matrix <= 0.5] = 0
        best = matrix[linear_sum_assignment(-matrix)]
        got = panoptic_quality([c])
        if len(f) + len(t):
            assert got["pq"] == pytest.approx(best.sum() / ((len(f) + len(t)) / 2))


def test_thresholds_are_those_of_the_standard():
    np.testing.assert_allclose(THRESHOLDS, np.arange(50, 100, 5) / 100)
