"""Pretrained weights: what there is, where it lies, how it is fetched, and loaded without running anything."""

from stemtomo_dl.weights.download import Listener, fetch
from stemtomo_dl.weights.registry import Entry, entries, find, locate, place, sha256
from stemtomo_dl.weights.tensors import load

__all__ = ["Entry", "Listener", "entries", "fetch", "find", "load", "locate", "place", "sha256"]
