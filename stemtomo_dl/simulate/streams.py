"""Streams of random numbers: each use of a seed has its own, so that a new particle does not change the drift."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What random numbers are for; the key that goes with it says which one of its kind."""

    NUMBERS = 1  # of bodies: of a population
    BODIES = 2  # of a population and the turn of the body in it
    PLACES = 3  # likewise
    MOTION = 4  # of a quantity
    WRINKLES = 5
    HOLES = 6  # of a cell of the film
    DIRT = 7  # likewise
    CAMERA = 8
    JITTER = 9  # of a scan's turn
    COUNTS = 10  # of a scan's turn and a row
    IMAGES = 11  # of a scan's turn


def generator(seed: int, stream: Stream, *key: int) -> np.random.Generator:
    """The random numbers of one stream of a seed; the integers of ``key`` may be negative."""
    spawn_key = (stream, *(2 * k if k >= 0 else -2 * k - 1 for k in key))
    return np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(seed, spawn_key=spawn_key)))
