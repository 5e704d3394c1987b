"""Small particles on a support that outshines them: the image without all that varies slowly."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from stemtomo_dl.segment.planes import normalised

_STEP, _SLOW = 4, 2.0  # px that are averaged; rms width, in these, of what counts as slow: 8 px
FLAT_PX = 24.0  # largest side of a particle that is left whole: three times that width
_OUTWEIGHS = 3.0  # slow structure so much stronger than the rest sets the scale of grey levels for it alone


def outweighed(image: Tensor) -> bool:
    """Whether in every plane that shows anything slow structure outweighs the fine: what is small is then hardly seen.

    Parameters
    ----------
    image : (plane, y, x) tensor
    """
    shown = [p for p in image if bool(p.any())]
    return bool(shown) and all(_outweighs(*_slow(p)) for p in shown)


def flattened(image: Tensor) -> Tensor:
    """The image (plane, y, x) less its slow structure, its grey levels scaled anew."""
    out = torch.zeros_like(image)
    for n, plane in enumerate(image):
        if plane.any():
            slow = torch.from_numpy(_slow(plane)[1]).to(plane)
            fine = F.interpolate(slow[None, None], scale_factor=_STEP, mode="bilinear", align_corners=False)[0, 0]
            rest = plane - fine[: plane.shape[0], : plane.shape[1]]
            out[n] = torch.from_numpy(normalised(rest.cpu().numpy())).to(plane)
    return out


def _slow(plane: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Means of squares of _STEP px, and these smoothed."""
    means = F.avg_pool2d(plane[None], _STEP, ceil_mode=True)[0].cpu().numpy()
    return means, ndimage.gaussian_filter(means, _SLOW, mode="nearest")


def _outweighs(means: np.ndarray, slow: np.ndarray) -> bool:
    spread = [float(np.subtract(*np.percentile(part, [98, 2]))) for part in (slow, means - slow)]
    return spread[0] > _OUTWEIGHS * spread[1]
