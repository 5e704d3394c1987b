"""Networks that draw masks for boxes, and how an image is put together from tiles and scales."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from scipy import ndimage

from stemtomo_dl.segment.networks.build import NETWORKS, build, facts_of, planes_of
from stemtomo_dl.segment.networks.prompted import Encoded, PromptedNetwork
from stemtomo_dl.segment.planes import PLANES
from stemtomo_dl.segment.predict import Tuning, outlines
from stemtomo_dl.segment.tiles import tiles

SMALL = ("unet", "sam_tiny", "mask_rcnn")


class Known(PromptedNetwork):
    """Finds rectangles of ones on zeros in plane 0 by arithmetic: what the code around a network must not spoil."""

    stride, mask_stride, multiple = 4, 2, 4

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def encode(self, planes):
        image = planes[:, 0].numpy()
        h, w = image.shape[1] // 4, image.shape[2] // 4
        heat, sides = torch.full((len(image), h, w), -20.0), torch.full((len(image), 4, h, w), 1.0)
        for n, one in enumerate(image):
            for rows, columns in ndimage.find_objects(ndimage.label(one > 0.5)[0]):
                y, x = int((rows.start + rows.stop) / 8), int((columns.start + columns.stop) / 8)
                heat[n, y, x] = 3.0
                cx, cy = (x + 0.5) * 4, (y + 0.5) * 4
                spans = (cx - columns.start, cy - rows.start, columns.stop - cx, rows.stop - cy)
                sides[n, :, y, x] = torch.tensor(spans)
        return Encoded(heat, sides, (planes[:, :1],))

    def masks(self, encoded, image, boxes):
        shown = torch.nn.functional.avg_pool2d(encoded.features[0], 2)[image, 0]
        return 20 * (shown - 0.5), torch.full((len(boxes),), 4.0)


def scene(shape, *rectangles):
    image = np.zeros((len(PLANES), *shape), "f4")
    for y, x, h, w in rectangles:
        image[0, y : y + h, x : x + w] = 1
    return image


RECTANGLES = ((20, 30, 12, 40), (300, 470, 60, 80), (500, 500, 16, 16), (610, 40, 80, 50), (400, 240, 30, 24))


def test_small_particles_on_a_bright_support_are_found():
    places = [(y, x, 12, 12) for y in range(52, 212, 32) for x in range(52, 212, 32)]
    image = scene((256, 256), *places)
    r = (np.arange(256) - 128) / 64
    image[0] += 30 * np.exp(-(r[:, None] ** 2 + r**2) / 2)
    found = full(outlines(Known(), image, Tuning(least_score=0.2)))
    for y, x, h, w in places:
        true = scene((256, 256), (y, x, h, w))[0] > 0
        assert max((true & f).sum() / (true | f).sum() for f in found) > 0.5


@pytest.mark.parametrize(("side", "largest"), [(12, 512), (40, 256)])
def test_enlarged_only_where_particles_are_small(side, largest):
    class Watched(Known):
        seen = 0

        def encode(self, planes):
            self.seen = max(self.seen, planes.shape[-1])
            return super().encode(planes)

    network = Watched()
    image = scene((256, 256), *((y, x, side, side) for y in (20, 100, 180) for x in (20, 100, 180)))
    assert len(outlines(network, image, Tuning(least_score=0.2))) == 9
    assert network.seen == largest


def full(masks):
    return [masks.full(i) for i in range(len(masks))]


def test_tiles_and_scales_find_each_once():
    image = scene((720, 900), *RECTANGLES)
    found = outlines(Known(), image, Tuning(least_score=0.2))
    assert len(found) == len(RECTANGLES)
    together = np.sum(full(found), 0)
    assert together.max() == 1
    np.testing.assert_array_equal(together > 0, image[0] > 0)


def test_a_small_image_is_enlarged_and_a_large_one_is_not():
    def scales(*shape):
        return [t.scale[0] for t in tiles(torch.zeros(1, *shape), Tuning().scales, 120.0, 16)]

    assert scales(64, 64) == [2, 1]
    assert scales(256, 256) == [2, 1, 0.5, 0.25]
    assert scales(200, 300)[0] == 1  # enlarged, it would be more than one tile


def test_the_edge_is_where_the_tuning_says():
    ramp = np.zeros((len(PLANES), 64, 64), "f4")
    ramp[0, 16:48, 16:48] = 1
    ramp = np.array([ndimage.gaussian_filter(p, 2.0) for p in ramp])
    areas = [outlines(Known(), ramp, Tuning(least_score=0.1, edge=e)).crops[0].sum() for e in (-4.0, 0.0, 4.0)]
    assert areas[0] > areas[1] > areas[2]
    assert areas[1] == pytest.approx(32**2, rel=0.05)


def test_boxes_are_drawn_in_their_order_at_any_size():
    image = scene((720, 900), *RECTANGLES)
    order = [3, 0, 4, 2, 1]
    boxes = [(x - 2, y - 2, x + w + 2, y + h + 2) for y, x, h, w in (RECTANGLES[i] for i in order)]
    found = outlines(Known(), image, Tuning(largest_px=40), np.array(boxes))
    for mask, i in zip(full(found), order, strict=True):
        true = scene((720, 900), RECTANGLES[i])[0] > 0
        assert (mask & true).sum() / (mask | true).sum() > 0.9
    assert len(outlines(Known(), image, Tuning(), np.zeros((0, 4)))) == 0


@pytest.mark.parametrize("name", SMALL)
def test_drawing_in_windows_is_drawing_on_the_whole_image(name):
    torch.manual_seed(2)
    network = NETWORKS[name]().eval()
    boxes = torch.tensor([(-6.0, 3, 20, 30), (40, 30, 90, 96), (0, 0, 96, 128), (50, 60, 53, 61), (90, 120, 96, 128)])
    image = torch.tensor([0, 1, 1, 0, 1])
    with torch.inference_mode():
        encoded = network.encode(torch.randn(2, len(PLANES), 128, 96))
        logits, quality = network.masks(encoded, image, boxes)
    drawn = network.draw(encoded, image, boxes)
    torch.testing.assert_close(torch.tensor([d.quality for d in drawn]), quality.sigmoid())
    for whole, d, (x0, y0, x1, y1) in zip(logits, drawn, boxes.tolist(), strict=True):
        (y, x), (h, w), stride = d.corner, d.logits.shape, network.mask_stride
        torch.testing.assert_close(d.logits, whole[y : y + h, x : x + w], rtol=1e-4, atol=1e-4)
        assert y * stride <= max(y0, 0)
        assert x * stride <= max(x0, 0)
        assert (y + h) * stride >= min(y1, 128)
        assert (x + w) * stride >= min(x1, 96)


def test_points_mean_the_particle_that_they_lie_in():
    image = scene((720, 900), *RECTANGLES)
    order = [3, 0, 4, 2, 1]
    points = [(x + w / 2 + 3, y + h / 3) for y, x, h, w in (RECTANGLES[i] for i in order)]
    found = outlines(Known(), image, Tuning(), points=np.array(points))
    for mask, i in zip(full(found), order, strict=True):
        np.testing.assert_array_equal(mask, scene((720, 900), RECTANGLES[i])[0] > 0)
    assert len(outlines(Known(), image, Tuning(), points=np.zeros((0, 2)))) == 0


def test_a_point_where_nothing_is_seen_asks_for_a_square_of_the_usual_size():
    class Blind(Known):
        """Sees nothing but what is brighter than the rest."""

        def encode(self, planes):
            return super().encode(planes - 1)._replace(features=(planes[:, :1],))

    image = scene((128, 128), (20, 20, 16, 16), (80, 80, 16, 16), (20, 90, 40, 20))
    image[0, 20:36, 20:36] = 2
    boxes, points = np.array([(78.0, 78, 98, 98)]), np.array([(88.0, 88), (28, 28), (100, 40)])
    found = outlines(Blind(), image, Tuning(), boxes, points)
    assert len(found) == 4
    for n, at in ((0, (80, 80)), (1, (80, 80)), (2, (20, 20))):
        np.testing.assert_array_equal(found.full(n), scene((128, 128), (*at, 16, 16))[0] > 0)
    assert found.crops[3].shape[0] < 40  # a square of 16 px, with what is drawn around it


def test_overlapping_outlines_stay_and_doubles_go():
    from stemtomo_dl.segment.pieces import distinct, record

    square, corners = np.ones((10, 10), bool), [(0, 0), (0, 4), (0, 1)]
    three = record((30, 30), [(square, c) for c in corners], np.array([0.9, 0.8, 0.7]))
    kept = distinct(three, most_overlap=0.6)
    np.testing.assert_array_equal(kept.origin, corners[:2])


@pytest.mark.parametrize("name", SMALL)
def test_any_size_in_masks_out(name):
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    rng = np.random.default_rng(0)
    for shape in ((64, 64), (75, 101)):
        image = rng.normal(size=(len(PLANES), *shape)).astype("f4")
        found = outlines(network, image, Tuning(least_score=0.0, least_heat=0.001), most=5)
        assert found.shape == shape
        assert all(c.any() for c in found.crops)
        boxes = np.array([(5, 5, 30, 20), (40, 30, 60, 60)])
        assert len(outlines(network, image, Tuning(), boxes)) == 2


@pytest.mark.parametrize("name", SMALL)
def test_the_image_decides_and_twice_is_the_same(name):
    torch.manual_seed(1)
    network = NETWORKS[name]().eval()
    x = torch.randn(2, len(PLANES), 64, 64)
    with torch.inference_mode():
        first, again = network.encode(x), network.encode(x)
        alone = network.encode(x[1:])
    for a, b, c in zip(first.features, again.features, alone.features, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
        torch.testing.assert_close(a[1:], c, rtol=1e-3, atol=1e-4)


def test_weights_from_before_there_were_components_still_find_the_same():
    earlier = PLANES[:6]
    network = NETWORKS["unet"](len(earlier)).eval()
    facts = {**facts_of("unet", Tuning()), "planes": json.dumps(earlier)}
    back, _ = build(network.state_dict(), facts)
    assert planes_of(facts) == earlier
    image = torch.randn(1, len(earlier), 64, 64)
    torch.testing.assert_close(back.encode(image).heat, network.encode(image).heat)


def test_weights_come_back_with_their_tuning():
    tuning = Tuning(least_score=0.31, scales=(1.0, 0.5), calibration=(1.5, -0.2))
    network = NETWORKS["unet"]()
    back, told = build(network.state_dict(), facts_of("unet", tuning))
    assert told == tuning
    assert not back.training
    for a, b in zip(network.state_dict().values(), back.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b)
    fewer = dict(list(network.state_dict().items())[1:])
    with pytest.raises(ValueError, match="not those of unet"):
        build(fewer, facts_of("unet", tuning))
    with pytest.raises(ValueError, match="no network of ours"):
        build({}, {})
    with pytest.raises(ValueError, match="other images"):
        build({}, {**facts_of("unet", tuning), "planes": '["bf"]'})
    assert dataclasses.asdict(told)


def test_a_mask_of_the_compact_network_follows_its_box():
    from stemtomo_dl.segment.networks.unet import _place

    place = _place(torch.tensor([[8.0, 16.0, 24.0, 48.0]]), *torch.arange(32).expand(2, 1, -1), 2)
    x, y = place[0, 0], place[0, 1]
    assert x[0, 3] < -1 < x[0, 4]  # centres at 7 and 9 px
    assert y[23, 0] < 1 < y[24, 0]
    torch.testing.assert_close(place[0, 2:], place[0, :2] ** 2)
