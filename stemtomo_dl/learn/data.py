"""The stream of examples, drawn in worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from stemtomo_dl.learn.examples import Drawer, Example, Field, Shown, by_detector, crop, endless, show
from stemtomo_dl.learn.losses import Targets, collate
from stemtomo_dl.learn.recipe import DataSettings
from stemtomo_dl.segment.components import component_images
from stemtomo_dl.segment.planes import COMPONENTS
from stemtomo_dl.simulate.images import TrainingImage, draw_images
from stemtomo_dl.simulate.micrograph import draw_micrograph
from stemtomo_dl.simulate.randomise import random_sample
from stemtomo_dl.simulate.stock import make_library
from stemtomo_dl.simulate.training import TrainingSettings, load_training

_LEAST_SIGNAL = 12.0  # standard deviations: below 5 nobody could see a particle, below this nobody its outline
_LEAST_VISIBLE = 0.15  # of a particle that others hide: less is not asked for
_WITH_SECTORS = 0.4  # how often a field comes with components: they take time, and not all that is segmented has them
_TRIALS = 7919  # apart from the seeds of training


def scene_settings(settings: DataSettings, beside: Path) -> TrainingSettings:
    """The ranges that a recipe names: a file beside the recipe, or the one that comes with the package."""
    path = beside.parent / settings.scenes
    return load_training(path if path.is_file() else None)


def drawer(settings: DataSettings, scenes: TrainingSettings, own: Sequence[Field], seed: int) -> Drawer:
    """What draws fields; makes its library of crystals first, some seconds."""
    library = make_library(scenes, np.random.default_rng(seed))

    def draw(rng: np.random.Generator) -> Field:
        lot = rng.random()
        if own and lot < settings.own_share:
            return own[int(rng.integers(len(own)))]
        if lot < settings.own_share + settings.micrographs:
            plain = draw_micrograph(scenes.micrographs, library.bodies, rng)
            visible = (plain.signal >= _LEAST_SIGNAL) & (plain.visibility >= _LEAST_VISIBLE)
            return Shown({"grey": plain.image}, plain.masks, visible)
        drawn = draw_images(random_sample(scenes, library, rng), rng, sectors=rng.random() < _WITH_SECTORS)
        visible = (drawn.signal >= _LEAST_SIGNAL) & (drawn.visibility >= _LEAST_VISIBLE)
        return Shown(_images(drawn), drawn.masks, visible)

    return draw


def _images(drawn: TrainingImage) -> dict[str, np.ndarray]:
    """A drawn field's images by name, with components where it has sectors."""
    images = by_detector(drawn.detectors, drawn.images)
    if drawn.sectors is not None:
        images |= dict(zip(COMPONENTS, component_images(drawn.sectors), strict=True))
    return images


class Stream(IterableDataset[Example]):
    """Examples without end; every worker of every process draws its own."""

    def __init__(
        self, settings: DataSettings, scenes: TrainingSettings, own: Sequence[Field], rank: int, begun: int
    ) -> None:
        self.settings, self.scenes, self.own, self.rank, self.begun = settings, scenes, own, rank, begun

    def __iter__(self) -> Iterator[Example]:
        worker = get_worker_info()
        torch.set_num_threads(1)
        key = (self.settings.seed, self.rank, worker.id if worker else 0, self.begun)
        seed, rng = int(np.random.default_rng(key).integers(2**31)), np.random.default_rng((*key, 1))
        s = self.settings
        draw = drawer(s, self.scenes, self.own, seed)
        yield from endless(draw, s.side_px, s.shares.model_dump(), s.zoom, s.reuse, rng)


class _Once(Dataset[int]):
    """A single item: validation looks at its own examples."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        return index


class Data(L.LightningDataModule):
    """Batches of drawn examples.

    Parameters
    ----------
    settings : DataSettings
    scenes : TrainingSettings
    own : list of Field
        The user's own images with masks.
    batch : int
    stride : int
        Of the network's heat map.
    """

    def __init__(
        self, settings: DataSettings, scenes: TrainingSettings, own: Sequence[Field], batch: int, stride: int
    ) -> None:
        super().__init__()
        self.settings, self.scenes, self.own, self.batch, self.stride = settings, scenes, own, batch, stride

    def train_dataloader(self) -> DataLoader[Targets]:
        """The stream. A resumed run goes on with other numbers than it began with."""
        trainer = self.trainer
        rank, begun = (trainer.global_rank, trainer.global_step) if trainer else (0, 0)
        stream = Stream(self.settings, self.scenes, self.own, rank, begun)
        make: Callable[[list[Example]], Targets] = partial(collate, stride=self.stride)
        workers = self.settings.workers
        return DataLoader(
            stream,  # type: ignore[arg-type]
            batch_size=self.batch,
            num_workers=workers,
            collate_fn=make,
            multiprocessing_context="spawn" if workers else None,
            persistent_workers=workers > 0,
            prefetch_factor=4 if workers else None,
        )

    def val_dataloader(self) -> DataLoader[int]:
        """One look."""
        return DataLoader(_Once())


def trial_fields(settings: DataSettings, scenes: TrainingSettings, count: int) -> list[Shown]:
    """Whole fields for validation, by a library of their own: the same for the same seed, whatever is trained.

    Each holds what a network is shown of it: all detectors, some, or one.
    """
    rng = np.random.default_rng((settings.seed, _TRIALS))
    draw = drawer(settings.model_copy(update={"own_share": 0.0}), scenes, [], int(rng.integers(2**31)))
    fields = (draw(rng) for _ in range(count))
    return [Shown(show(f, settings.shares.model_dump(), rng), f.masks, f.counts) for f in fields]


def trials(settings: DataSettings, scenes: TrainingSettings, count: int) -> list[Example]:
    """Validation examples, cut to the size of training examples."""
    rng = np.random.default_rng((settings.seed, _TRIALS, 1))
    return [crop(f, f.images, settings.side_px, rng) for f in trial_fields(settings, scenes, count)]
