"""Segmenters of every kind behind one face: images in, amodal masks with scores out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from stemtomo_dl import weights
from stemtomo_dl.config import SegmentConfig
from stemtomo_dl.errors import InputError
from stemtomo_dl.records import Masks
from stemtomo_dl.segment.classical import outline
from stemtomo_dl.segment.planes import planes

if TYPE_CHECKING:
    from stemtomo_dl.segment.networks.prompted import PromptedNetwork
    from stemtomo_dl.segment.predict import Tuning

CLASSICAL = "classical"


class Segmenter(Protocol):
    """Finds the particles in images of one field."""

    def predict(
        self, images: dict[str, np.ndarray], boxes: np.ndarray | None = None, points: np.ndarray | None = None
    ) -> Masks:
        """Outline the particles of one field.

        Parameters
        ----------
        images : dict
            (y, x) arrays of one shape by what they are: "bf", "adf", "haadf", "variance", "maximum", "component1" to
            "component3", or "grey" for an image of unknown kind and polarity. Any subset will do.
        boxes : (n, 4) array, optional
            x0, y0, x1, y1 in px, pixel centres at whole numbers, each about one particle.
        points : (m, 2) array, optional
            x, y in px, pixel centres at whole numbers, each in a particle. Where boxes or points are given, only
            what they ask for is outlined: one for each box, then one for each point, in their order.

        Returns
        -------
        Masks
            Amodal outlines, which may overlap, all at tilt 0; ``score`` is the probability that one is right.
        """
        ...


@dataclass(frozen=True)
class Learned:
    """A network with its tuning and the names of the planes that it sees."""

    network: PromptedNetwork
    tuning: Tuning
    names: tuple[str, ...]

    def predict(
        self, images: dict[str, np.ndarray], boxes: np.ndarray | None = None, points: np.ndarray | None = None
    ) -> Masks:
        """As `Segmenter.predict`."""
        # A network's pixel covers from its number to its number + 1.
        from stemtomo_dl.segment.predict import outlines

        boxes, points = (None if asked is None else np.asarray(asked) + 0.5 for asked in (boxes, points))
        return outlines(self.network, planes(images, self.names), self.tuning, boxes, points)


@dataclass(frozen=True)
class Classical:
    """Threshold and watershed; it cannot be prompted, and its scores are not calibrated."""

    config: SegmentConfig

    def predict(
        self, images: dict[str, np.ndarray], boxes: np.ndarray | None = None, points: np.ndarray | None = None
    ) -> Masks:
        """As `Segmenter.predict`.

        Raises
        ------
        InputError
            If boxes or points are given.
        """
        if boxes is not None or points is not None:
            raise InputError("the classical segmenter takes no boxes or points; choose a network with --model")
        return outline(images, self.config)


def weights_of(config: SegmentConfig) -> tuple[Path, str] | None:
    """File and SHA-256 of the weights that the settings ask for; None for the classical segmenter.

    Raises
    ------
    InputError
        If they are not there, or not what the registry says.
    """
    if config.weights is not None:  # a file says itself which network it belongs to
        path = Path(config.weights)
        return path, weights.sha256(path)
    if config.model == CLASSICAL:
        return None
    return weights.locate(config.model), weights.find(config.model).sha256


def open_segmenter(config: SegmentConfig) -> Segmenter:
    """The segmenter that the settings ask for, on the GPU where there is one.

    Raises
    ------
    InputError
        If its weights are missing, damaged, or of another network.
    """
    found = weights_of(config)
    if found is None:
        return Classical(config)
    import torch  # here, not above: the other stages import this module, and have no use for its half gigabyte

    from stemtomo_dl.segment.networks.build import build, planes_of

    try:
        tensors, facts = weights.load(found[0])
        network, tuning = build(tensors, facts)
    except ValueError as e:
        raise InputError(f"{found[0]}: {e}; give weights that 'stemtomo train' made") from e
    network = network.to("cuda" if torch.cuda.is_available() else "cpu")
    return Learned(network, tuning, planes_of(facts))  # type: ignore[arg-type]
