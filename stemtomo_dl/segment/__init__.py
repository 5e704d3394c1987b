"""Virtual images -> instance masks."""

from stemtomo_dl.segment.classical import segment

__all__ = ["segment"]
