"""Masks -> tracks."""

from stemtomo_dl.track.link import track

__all__ = ["track"]
