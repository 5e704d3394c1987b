"""Streams of random numbers: each use of a seed has its own, so that a new particle does not change the drift."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What random numbers are for; one of a tilt or a row also takes their numbers."""

    PARTICLES = 1
    MOTION = 2
    COUNTS = 3
    CAMERA = 4
    JITTER = 5
    FILM = 6
    IMAGES = 7


def generator(seed: int, stream: Stream, *key: int) -> np.random.Generator:
    """The random numbers of one stream of a seed, or of one tilt or row (``key``) of it."""
    return np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(seed, spawn_key=(stream, *key))))
