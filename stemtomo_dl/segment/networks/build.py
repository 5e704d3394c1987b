"""Networks by name, and between them and the file that holds their weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

from torch import Tensor, nn

from stemtomo_dl.segment.planes import KINDS, PLANES
from stemtomo_dl.segment.predict import Tuning


def _unet(planes: int = len(PLANES)) -> nn.Module:
    from stemtomo_dl.segment.networks.unet import UNet

    return UNet(planes)


def _sam_tiny(planes: int = len(PLANES)) -> nn.Module:
    from stemtomo_dl.segment.networks.sam import Sam

    return Sam(planes)


def _sam_vit_b(planes: int = len(PLANES)) -> nn.Module:
    from stemtomo_dl.segment.networks.sam import SamViT

    return SamViT(planes)


def _mask_rcnn(planes: int = len(PLANES)) -> nn.Module:
    from stemtomo_dl.segment.networks.rcnn import MaskRCNN

    return MaskRCNN(planes)


# by the number of planes that they see, by default all there are
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "unet": _unet,
    "sam_tiny": _sam_tiny,
    "sam_vit_b": _sam_vit_b,
    "mask_rcnn": _mask_rcnn,
}


def build(tensors: dict[str, Tensor], facts: dict[str, str]) -> tuple[nn.Module, Tuning]:
    """A network with its weights, in evaluation mode, and its tuning.

    Parameters
    ----------
    tensors : dict
        Of every parameter and buffer; half precision is widened.
    facts : dict
        What is written beside them: "model", "planes" and "tuning", the latter two as JSON.

    Raises
    ------
    ValueError
        If the tensors are not those of the network, or were trained for planes that are not ours.
    """
    model = facts.get("model", "")
    if model not in NETWORKS:
        raise ValueError(f"weights of no network of ours ({model or 'unnamed'}); known are {', '.join(NETWORKS)}")
    network = NETWORKS[model](len(planes_of(facts)))
    try:
        network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    except RuntimeError as e:
        raise ValueError(f"tensors are not those of {model}: {str(e).splitlines()[-1].strip()}") from e
    return network.eval(), tuning_of(facts)


def planes_of(facts: dict[str, str]) -> tuple[str, ...]:
    """Names of the planes that weights were trained on: the present ones, or the fewer of an earlier version.

    Raises
    ------
    ValueError
        If they are not ours.
    """
    names = tuple(json.loads(facts.get("planes", "[]")))
    if names not in KINDS:
        raise ValueError(f"trained for other images ({facts.get('planes')}) than {', '.join(PLANES)}")
    return names


def tuning_of(facts: dict[str, str]) -> Tuning:
    """The tuning that lies beside weights; what is not there has its default."""
    given = json.loads(facts.get("tuning", "{}"))
    known = {f.name for f in fields(Tuning)}
    chosen: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if k in known}
    return Tuning(**chosen)


def facts_of(model: str, tuning: Tuning) -> dict[str, str]:
    """What is written beside weights."""
    return {"model": model, "planes": json.dumps(PLANES), "tuning": json.dumps(asdict(tuning))}
