"""What networks are asked for has its least value at the right answer."""

import numpy as np
import pytest
import torch

from stemtomo_dl.learn.examples import Shown, crop
from stemtomo_dl.learn.losses import collate, heat_loss, jittered, losses, mask_loss, prompts
from stemtomo_dl.learn.module import Adapted, add_adapters, merge_adapters
from stemtomo_dl.learn.tune import calibration
from stemtomo_dl.records import Masks
from stemtomo_dl.segment.networks.build import NETWORKS
from stemtomo_dl.segment.networks.prompted import Encoded, PromptedNetwork, inside
from stemtomo_dl.segment.networks.tinyvit import TinyViT


def batch(stride=4, side=96):
    y, x = np.indices((side, side))
    full = np.array(
        [np.hypot(x - 30, y - 40) <= 15, np.hypot(x - 45, y - 45) <= 12, (abs(x - 75) < 8) & (abs(y - 70) < 20)]
    )
    masks = Masks.pack(full, np.zeros(3), np.ones(3), np.zeros(1))
    image = full.sum(0) + np.random.default_rng(0).normal(scale=0.05, size=(side, side))
    whole = Shown({"grey": image}, masks, np.ones(3, bool))
    return collate([crop(whole, whole.images, side, np.random.default_rng(s)) for s in range(2)], stride)


def test_heat_loss_is_least_at_the_truth():
    targets = batch()
    sure = torch.where(targets.heat > 0.999, 8.0, -8.0)
    right = heat_loss(sure, targets.heat)
    assert right < 0.02
    assert heat_loss(-sure, targets.heat) > 100 * right
    moved = heat_loss(sure.roll(3, 2), targets.heat)
    assert moved > 10 * right
    free = targets.heat.clone()
    free[:] = -1
    assert heat_loss(torch.full_like(free, 5.0), free) == 0


def test_mask_loss_and_the_overlap_that_it_tells():
    truth = torch.zeros(1, 10, 10)
    truth[:, :, :5] = 1
    region = torch.ones_like(truth)
    good, iou = mask_loss(40 * (truth - 0.5), truth, region)
    assert good < 1e-3
    assert iou.item() == 1
    shifted = truth.roll(1, 2)
    bad, iou = mask_loss(40 * (shifted - 0.5), truth, region)
    assert bad > good
    assert iou.item() == pytest.approx(40 / 60)
    outside = torch.zeros_like(truth)
    outside[:, :, :5] = 1
    _, iou = mask_loss(torch.full_like(truth, 9.0), truth, outside)  # what lies beyond the region is not drawn
    assert iou.item() == 1


def test_region_holds_its_box():
    boxes = torch.tensor([[10.0, 20.0, 30.0, 28.0]])
    region = inside(boxes, (32, 32), 2, 1.4)[0]
    rows, columns = torch.nonzero(region, as_tuple=True)
    assert (2 * columns.min() + 1, 2 * columns.max() + 1) == (7, 33)  # centres within 20 ± 14
    assert (2 * rows.min() + 1, 2 * rows.max() + 1) == (17, 31)  # two cells at least


def test_jitter_moves_boxes_a_little():
    boxes = torch.tensor([[10.0, 10.0, 50.0, 20.0]]).repeat(500, 1)
    moved = jittered(boxes) - boxes
    assert (moved[:, 0].abs() <= 0.2 * 40 + 1e-4).all()
    assert (moved[:, 1].abs() <= 0.2 * 10 + 1e-4).all()
    assert moved[:, 0].std() > 1


def test_prompts_are_the_heads_own_boxes_where_they_are_about_the_particle():
    class Head(PromptedNetwork):
        stride = 4

    def encoded(side: float) -> Encoded:
        return Encoded(torch.zeros(1, 16, 16), torch.full((1, 4, 16, 16), side), ())

    boxes, image = torch.tensor([[20.0, 20.0, 40.0, 40.0]]).repeat(400, 1), torch.zeros(400, dtype=torch.long)
    far = prompts(Head(), encoded(1.0), image, boxes)
    assert ((far - boxes).abs() <= 0.2 * 20 + 1e-4).all()  # a box of 2 px is about something else
    near = prompts(Head(), encoded(9.0), image, boxes)
    own = ((near[:, 2] - near[:, 0] - 18).abs() < 1e-4).float().mean()
    assert 0.5 < own < 0.7


@pytest.mark.parametrize("name", ["unet", "sam_tiny", "mask_rcnn"])
def test_every_part_of_a_network_learns(name):
    torch.manual_seed(0)
    network = NETWORKS[name]().train()
    for value in network.parameters():
        if not value.any():  # what begins at zero must not hide a part that is never reached
            torch.nn.init.normal_(value, std=0.05)
    sum(losses(network, batch(network.stride), 16).values()).backward()
    unused = {"sam_tiny": ("point_embeddings", "not_a_point", "mask_downscaling", "mask_tokens", "mlps")}.get(name, ())
    dead = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert [n for n in dead if not any(u in n for u in unused)] == []


def test_the_compact_network_learns_one_image_by_heart():
    from stemtomo_dl.learn.detection import scores
    from stemtomo_dl.learn.tune import judged
    from stemtomo_dl.segment.predict import Tuning

    torch.manual_seed(0)
    y, x = np.indices((64, 64))
    full = np.array(
        [np.hypot(x - 20, y - 22) <= 11, np.hypot(x - 30, y - 26) <= 9, (abs(x - 50) < 6) & (abs(y - 45) < 14)]
    )
    whole = Shown(
        {"grey": full.sum(0).astype(float)},
        Masks.pack(full, np.zeros(3), np.ones(3), np.zeros(1)),
        np.ones(3, bool),
    )
    example = crop(whole, whole.images, 64, np.random.default_rng(1))
    network, targets = NETWORKS["unet"]().train(), collate([example], 4)
    descent = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(90):
        descent.zero_grad()
        sum(losses(network, targets, 16).values()).backward()
        descent.step()
    found = scores(judged(network.eval(), [example], Tuning(scales=(1.0,), least_score=0.2)))
    assert found["ap50"] == 1.0
    assert found["ap"] > 0.6


def test_adapters_change_nothing_at_first_and_are_merged_without_loss():
    torch.manual_seed(0)
    encoder, x = TinyViT().eval(), torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        before = encoder(x)[2]
    names = set(dict(encoder.named_parameters()))
    add_adapters(encoder, 4)
    with torch.inference_mode():
        torch.testing.assert_close(encoder(x)[2], before)
    adapted = [m for m in encoder.modules() if isinstance(m, Adapted)]
    assert len(adapted) == 4 * 10
    for m in adapted:
        torch.nn.init.normal_(m.up.weight, std=0.02)
    with torch.inference_mode():
        changed = encoder(x)[2]
        assert (changed - before).abs().max() > 1e-3
        merge_adapters(encoder)
        torch.testing.assert_close(encoder(x)[2], changed, rtol=1e-4, atol=1e-4)
    assert set(dict(encoder.named_parameters())) == names


def test_calibration_finds_the_line():
    rng = np.random.default_rng(0)
    score = rng.uniform(0.02, 0.98, 20000)
    logit = np.log(score / (1 - score))
    right = rng.random(20000) < 1 / (1 + np.exp(-(1.7 * logit - 0.6)))
    slope, offset = calibration(score, right)
    assert slope == pytest.approx(1.7, abs=0.06)
    assert offset == pytest.approx(-0.6, abs=0.06)
    assert calibration(score, np.ones(20000, bool)) == (1.0, 0.0)
