"""What a training run leaves: weights in half precision with their tuning, figures, pictures."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from stemtomo_dl import __version__
from stemtomo_dl.learn.detection import by_class, scores
from stemtomo_dl.learn.examples import Example
from stemtomo_dl.learn.pictures import draw_curves, draw_examples
from stemtomo_dl.learn.recipe import Recipe
from stemtomo_dl.learn.tune import judged, tuned
from stemtomo_dl.segment.networks.build import facts_of
from stemtomo_dl.segment.networks.prompted import PromptedNetwork
from stemtomo_dl.segment.predict import outlines
from stemtomo_dl.store.atomic import sha256, write_json, writing


def keep(
    network: PromptedNetwork, recipe: Recipe, examples: list[Example], folder: Path, steps: int, began: float
) -> Path:
    """Tune, judge and write a network that has learned.

    Parameters
    ----------
    network : PromptedNetwork
    recipe : Recipe
    examples : list of Example
        Validation examples.
    folder : Path
        Gets MODEL.safetensors, metrics.json, examples.png and curves.png.
    steps : int
        That were done.
    began : float
        Seconds of the epoch.

    Returns
    -------
    Path
        Of the weights.
    """
    network = halved(network.cpu().eval())  # judged as it will be used
    tuning = tuned(network, examples)
    path = folder / f"{recipe.model}.safetensors"
    if recipe.start is not None:  # where it lay on this computer tells others nothing
        recipe = recipe.model_copy(update={"start": Path(recipe.start).name})
    facts = {**facts_of(recipe.model, tuning), "recipe": recipe.model_dump_json(), "version": __version__}
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    with writing(path) as tmp:
        tmp.write_bytes(save(tensors, facts))
    cases = judged(network, examples, tuning)
    metrics: dict[str, Any] = {
        "weights": {"file": path.name, "sha256": sha256(path), "size": path.stat().st_size},
        "validation": scores(cases, tuning.least_score),
        "by_class": by_class(cases, tuning.least_score),
        "steps": steps,
        "hours": round((time.time() - began) / 3600, 3),
        "hardware": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"{platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "recipe": recipe.model_dump(mode="json"),
    }
    write_json(folder / "metrics.json", metrics)
    draw_examples(folder / "examples.png", examples, [outlines(network, e.planes, tuning) for e in examples])
    draw_curves(folder / "curves.png", folder / "curves" / "metrics.csv")
    return path


def halved(network: PromptedNetwork) -> PromptedNetwork:
    """A network whose parameters have the values that half precision leaves them."""
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.copy_(value.half().float())
    return network
