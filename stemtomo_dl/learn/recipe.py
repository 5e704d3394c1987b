"""Recipes: all that decides how a network is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from stemtomo_dl import resources
from stemtomo_dl.config import Count, Finite, Model, Positive, load
from stemtomo_dl.errors import InputError

Share = Annotated[float, Field(ge=0, le=1)]
Pair = tuple[Finite, Finite]


class Shares(Model):
    """How often the network sees all detectors, some, one, or one as a grey image of unknown kind."""

    all: Share = 0.4
    some: Share = 0.2
    one: Share = 0.2
    grey: Share = 0.2


class DataSettings(Model):
    """What is drawn, and how it is shown."""

    scenes: str = "training.toml"  # ranges of the random scenes: a file, or one that comes with the package
    side_px: Annotated[int, Field(ge=64, multiple_of=32)] = 192
    zoom: Pair = (0.6, 1.8)  # enlargement of some examples
    micrographs: Share = 0.3  # plain images among the examples
    own: list[str] = []  # images with masks: COCO files or folders of label images
    own_share: Share = 0.0
    reuse: Count = 2  # how often a field is shown, differently each time
    shares: Shares = Shares()
    seed: Annotated[int, Field(ge=0)] = 1
    workers: Annotated[int, Field(ge=0)] = 1


class LearningSettings(Model):
    """The descent."""

    what: Literal["full", "frozen", "adapter"] = "full"  # frozen: the encoder stays; adapter: low-rank additions to it
    rank: Count = 8  # of the adapters
    rate: Positive = 1e-3
    encoder_rate: Positive = 1.0  # of the encoder, relative
    decay: Annotated[float, Field(ge=0)] = 0.02
    warmup: Annotated[int, Field(ge=0)] = 100  # steps
    steps: Count
    batch: Count = 8
    masks: Count = 160  # drawn for a batch at most
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    clip: Positive = 1.0
    average: Annotated[float, Field(ge=0, lt=1)] = 0.999  # decay of the moving average of the weights


class ValidationSettings(Model):
    """How the best state is chosen."""

    images: Count = 48
    every: Count = 500  # steps
    patience: Count = 20  # looks without a gain before it stops


class Recipe(Model):
    """A training run."""

    title: str
    model: Literal["unet", "sam_tiny", "sam_vit_b", "mask_rcnn"]
    start: str | None = None  # weights to begin with: a name from the registry, or a file
    data: DataSettings = DataSettings()
    learning: LearningSettings
    validation: ValidationSettings = ValidationSettings()

    @model_validator(mode="after")
    def _judged_to_the_end(self) -> Recipe:
        every, steps = self.validation.every, self.learning.steps
        if steps % every:
            raise ValueError(
                f"validation.every = {every} must divide learning.steps = {steps}; else the last steps, after which no "
                "state is judged, would be lost"
            )
        return self


def load_recipe(name: str) -> tuple[Recipe, Path]:
    """Read a recipe by the path of its file or by the name of one that comes with the package.

    Raises
    ------
    InputError
        If there is none, or a key is wrong; the message names the file and the key.
    """
    path = Path(name)
    if not path.suffix and not path.is_file():
        recipes = resources.recipes()
        shipped = recipes / f"{name}.toml"
        if not shipped.is_file():
            known = ", ".join(sorted(p.stem for p in recipes.glob("*.toml")))
            raise InputError(f"{name}: no such recipe; give a .toml file or one of {known}")
        path = shipped
    return load(Recipe, path), path
