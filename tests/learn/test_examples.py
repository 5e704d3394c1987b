"""Examples: what is cut out of a field still belongs together."""

import numpy as np
import pytest
import torch

from stemtomo_dl.learn.examples import LEAST_AREA, Shown, boxes_of, crop, endless, show
from stemtomo_dl.learn.losses import collate
from stemtomo_dl.records import Masks
from stemtomo_dl.segment.planes import COMPONENTS, PLANES

RNG = np.random.default_rng(5)


def field(shape=(150, 210), circles=((40, 50, 14), (90, 160, 25), (120, 30, 8), (75, 150, 12)), counts=None):
    y, x = np.indices(shape)
    full = np.array([np.hypot(x - cx, y - cy) <= r for cy, cx, r in circles])
    masks = Masks.pack(full, np.zeros(len(full)), np.ones(len(full)), np.zeros(1))
    image = full.any(0) * 100.0 + RNG.normal(size=shape)
    images = {"adf": image, "bf": 200 - image, "haadf": image / 2}
    return Shown(images, masks, np.ones(len(full), bool) if counts is None else counts)


def test_boxes_touch_their_masks():
    masks = RNG.random((20, 30, 40)) > 0.98
    masks = masks[masks.any((1, 2))]
    for mask, (x0, y0, x1, y1) in zip(masks, boxes_of(masks).astype(int), strict=True):
        rows, columns = np.nonzero(mask)
        assert (y0, y1, x0, x1) == (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1)


@pytest.mark.parametrize("zoom", [1.0, 0.7, 1.6])
@pytest.mark.parametrize("side", [96, 256])
def test_outlines_follow_the_image_through_every_turn(side, zoom):
    whole = field()
    for seed in range(8):
        example = crop(whole, whole.images, side, np.random.default_rng(seed), zoom)
        assert example.planes.shape == (len(PLANES), side, side)
        there = example.masks.any(0)
        bright = example.planes[PLANES.index("adf")] > 1.0
        if side == 256:
            assert bright[there].mean() > 0.95  # reflected margins are bright, too, and nothing is asked for there
        else:
            assert (bright == there).mean() > 0.97
        assert not there.any() or example.planes[0][there].mean() < 0  # bright field


def test_what_is_cut_away_or_cannot_be_seen_is_not_asked_for():
    counts = np.array([True, False, True, True])
    whole = field(counts=counts)
    seen = [crop(whole, whole.images, 64, np.random.default_rng(s)) for s in range(60)]
    for e in seen:
        area = e.masks.sum((1, 2))
        assert (area[e.counts] >= LEAST_AREA).all()
        assert e.masks.any((1, 2)).all()
    assert any(not e.counts.all() for e in seen)
    assert all(len(e.boxes) == len(e.masks) for e in seen)


def test_shares_decide_what_is_shown():
    whole, rng = field(), np.random.default_rng(2)
    only = {"all": 0.0, "some": 0.0, "one": 0.0, "grey": 0.0}
    assert set(show(whole, only | {"all": 1.0}, rng)) == {"adf", "bf", "haadf"}
    assert len(show(whole, only | {"one": 1.0}, rng)) == 1
    assert {len(show(whole, only | {"some": 1.0}, rng)) for _ in range(20)} == {2}
    grey = [show(whole, only | {"grey": 1.0}, rng) for _ in range(40)]
    assert all(set(g) == {"grey"} for g in grey)
    there = whole.masks.full(1)
    brighter = [g["grey"][there].mean() > g["grey"][~there].mean() for g in grey]
    assert 5 < sum(brighter) < 35  # polarity tells nothing


def test_components_come_only_beside_several_detectors_and_tell_no_sign_or_order():
    plain, rng = field(), np.random.default_rng(3)
    both = {k: (i + 1) * plain.images["adf"] for i, k in enumerate(COMPONENTS)}
    whole = Shown(plain.images | both, plain.masks, plain.counts)
    only = {"all": 0.0, "some": 0.0, "one": 0.0, "grey": 0.0}
    for variant in ("one", "grey"):
        assert not any(set(show(whole, only | {variant: 1.0}, rng)) & set(COMPONENTS) for _ in range(30))
    for variant in ("all", "some"):
        seen = [show(whole, only | {variant: 1.0}, rng) for _ in range(100)]
        with_them = [s for s in seen if "component1" in s]
        assert 30 < len(with_them) < 95
        assert all(set(COMPONENTS) <= set(s) for s in with_them)
        scale = {round(float((s["component1"] / plain.images["adf"]).mean())) for s in with_them}
        assert scale >= {-1, 1}
        assert scale <= {-3, -2, -1, 1, 2, 3}
        assert len(scale) > 2


def test_endless_draws_a_field_for_every_few_examples():
    drawn = []

    def draw(rng):
        drawn.append(rng.integers(10))
        return field()

    stream = endless(
        draw, 64, {"all": 1.0, "some": 0.0, "one": 0.0, "grey": 0.0}, (0.8, 1.2), 4, np.random.default_rng(0)
    )
    for _ in range(300):
        next(stream)
    assert 64 + 0.5 * (300 - 64) / 4 < len(drawn) < 64 + 2 * (300 - 64) / 4


def test_a_batch_has_its_peaks_in_the_middle_of_what_is_asked_for():
    whole = field(counts=np.array([True, True, False, True]))
    examples = [crop(whole, whole.images, 128, np.random.default_rng(s)) for s in range(4)]
    batch = collate(examples, 4)
    asked = sum(int(e.counts.sum()) for e in examples)
    assert len(batch.boxes) == len(batch.masks) == len(batch.image) == asked
    for i, box, mask in zip(batch.image, batch.boxes, batch.masks, strict=True):
        x, y = int((box[0] + box[2]) / 8), int((box[1] + box[3]) / 8)
        assert batch.heat[i, y, x] == 1.0
        rows, columns = torch.nonzero(mask, as_tuple=True)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    owners = batch.owner[batch.owner >= 0]
    assert set(owners.tolist()) == set(range(asked))
    for heat, e in zip(batch.heat, examples, strict=True):
        assert (heat == -1).any() == (~e.counts).any()
