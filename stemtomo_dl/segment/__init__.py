"""Images -> amodal instance masks."""

from stemtomo_dl.segment.segmenter import Segmenter, open_segmenter, weights_of

__all__ = ["Segmenter", "open_segmenter", "weights_of"]
