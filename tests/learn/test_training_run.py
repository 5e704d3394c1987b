"""A training run from its recipe to weights that the segmenter loads; broken off, it goes on."""

import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from stemtomo_dl import resources
from stemtomo_dl.config import SegmentConfig
from stemtomo_dl.errors import InputError
from stemtomo_dl.learn.examples import Shown, crop
from stemtomo_dl.learn.recipe import load_recipe
from stemtomo_dl.learn.train import begin_with, check, train
from stemtomo_dl.records import Masks
from stemtomo_dl.segment import open_segmenter, weights_of
from stemtomo_dl.segment.networks.build import NETWORKS
from stemtomo_dl.segment.planes import PLANES

RECIPES = sorted(p.stem for p in (resources.recipes()).glob("*.toml"))
SMALL = {
    "instruments": "1",
    "crystals": "2",
    "structures": '["rutile.cif"]',
    "pseudo_structures": "0",
    "structures_at_once": "1",
    "orientations": "2",
    "thickness_steps": "8",
    "shapes": "6",
    "shape": "[80, 80]",
    "count": "[3, 12]",
}
RECIPE = """
title = "small"
model = "unet"
[data]
scenes = "scenes.toml"
side_px = 64
workers = 0
micrographs = 0.5
own = ["own"]
own_share = 0.2
[learning]
steps = 6
warmup = 2
batch = 2
masks = 8
[validation]
images = 3
every = 2
"""


def small_run(folder):
    """A recipe whose library takes a moment, with images of one's own."""
    lines = []
    for line in (resources.synthetic() / "training.toml").read_text(encoding="utf-8").splitlines():
        key = line.split("=")[0].strip()
        lines.append(f"{key} = {SMALL[key]}" if key in SMALL else line)
    (folder / "scenes.toml").write_text("\n".join(lines), encoding="utf-8")
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    from PIL import Image

    for name in ("images", "labels"):
        (folder / "own" / name).mkdir(parents=True)
    label = np.zeros((70, 90), np.uint8)
    label[10:30, 20:50], label[40:60, 60:80] = 1, 2
    Image.fromarray(label).save(folder / "own/labels/a.png")
    Image.fromarray((label > 0) * np.uint8(180) + 20).save(folder / "own/images/a.png")
    return str(folder / "recipe.toml")


@contextmanager
def silent(name, total):
    yield lambda: None


def test_from_a_recipe_to_outlines_over_a_break(tmp_path):
    recipe, out, steps = small_run(tmp_path), tmp_path / "out", []

    @contextmanager
    def broken(name, total):
        def advance():
            steps.append(total)
            if len(steps) == 5:
                raise KeyboardInterrupt

        yield advance

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(recipe, out, None, broken)
    assert (out / "last.ckpt").is_file()
    assert not (out / "unet.safetensors").exists()

    went_on = []

    @contextmanager
    def counted(name, total):
        yield lambda: went_on.append(total)

    path = train(recipe, out, None, counted)
    assert len(went_on) == 6 - 4  # the last look was after step 4
    told = json.loads((out / "metrics.json").read_text())
    assert told["steps"] == 6
    assert {"ap", "ap50", "f1", "pq"} <= set(told["validation"])
    assert all((out / n).stat().st_size > 1000 for n in ("data.png", "examples.png", "curves.png"))

    config = SegmentConfig(weights=str(path))
    assert weights_of(config) == (path, told["weights"]["sha256"])
    masks = open_segmenter(config).predict({"grey": np.random.default_rng(0).normal(size=(70, 90))})
    assert masks.shape == (70, 90)

    (tmp_path / "recipe.toml").write_text(RECIPE.replace("steps = 6", "steps = 8"), encoding="utf-8")
    with pytest.raises(InputError, match="another recipe"):
        train(recipe, out, None, silent)


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipes_are_understood(name):
    recipe, path = load_recipe(name)
    assert path.stem == name
    assert recipe.model in NETWORKS
    assert recipe.data.side_px % 32 == 0


def test_wrong_recipes_end_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"no such recipe; give a \.toml file or one of .*unet"):
        load_recipe("nonesuch")
    (tmp_path / "r.toml").write_text('title = "x"\nmodel = "unet"\n[learning]\nsteps = 0\n')
    with pytest.raises(InputError, match=r"learning\.steps"):
        load_recipe(str(tmp_path / "r.toml"))
    (tmp_path / "r.toml").write_text('title = "x"\nmodel = "unet"\n[learning]\nsteps = 700\n')
    with pytest.raises(InputError, match=r"validation\.every = 500 must divide"):
        load_recipe(str(tmp_path / "r.toml"))
    with pytest.raises(InputError, match="no tensor of this network"):
        begin_with(NETWORKS["unet"](), {})


@pytest.mark.parametrize("name", ["unet", "sam_tiny"])
def test_weights_of_fewer_planes_begin_where_they_were(name):
    fewer, more = NETWORKS[name](6).eval(), NETWORKS[name]().eval()
    assert begin_with(more, fewer.state_dict()) == len(fewer.state_dict())
    image = torch.randn(1, len(PLANES), 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(more.encode(image).heat, fewer.encode(image[:, :6]).heat, rtol=1e-4, atol=1e-5)


def test_weights_of_other_shapes_are_left_out():
    network = torch.nn.Linear(4, 3)
    with pytest.raises(InputError, match="no tensor of this network"):
        begin_with(network, {"weight": torch.ones(3, 5), "bias": torch.ones(2)})
    assert begin_with(network, {"weight": torch.ones(3, 2), "bias": torch.ones(1)}) == 1
    assert network.weight.tolist() == [[1, 1, 0, 0]] * 3


def test_data_is_looked_at_before_hours_are_spent(tmp_path):
    def examples(covered, noise):
        full = np.zeros((1, 64, 64), bool)
        full[0, : int(64 * covered)] = True
        masks = Masks.pack(full, np.zeros(1), np.ones(1), np.zeros(1))
        image = np.random.default_rng(0).normal(size=(64, 64)) * noise
        whole = Shown({"grey": image}, masks, np.ones(1, bool))
        return [crop(whole, whole.images, 64, np.random.default_rng(s)) for s in range(3)]

    check(examples(0.3, 1.0), tmp_path)
    for covered, noise, words in ((0.0, 1.0, "has an outline"), (1.0, 1.0, "inverted"), (0.3, 0.0, "blank")):
        with pytest.raises(InputError, match=words):
            check(examples(covered, noise), tmp_path)
