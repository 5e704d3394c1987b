"""Outlines of masks as closed polylines along pixel borders, and their compact spelling for the page.

Corners have coordinates (x, y) in pixels with (0, 0) the outer corner of the first pixel, so that pixel (row r,
column c) covers x from c to c + 1 and y from r to r + 1.
"""

from __future__ import annotations

import numpy as np

_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # right, down, left, up: each is a turn to the right of the one before


def trace(mask: np.ndarray) -> list[np.ndarray]:
    """Closed borders of a mask, (corners, 2) int (x, y) each, the mask on the right-hand side of the walk.

    Every loop starts with a horizontal step, and horizontal and vertical steps alternate. Pixels that touch only
    at a corner belong to different loops; holes are loops of their own.
    """
    solid = np.pad(mask, 1)
    inner = solid[1:-1, 1:-1]
    away = (solid[:-2, 1:-1], solid[1:-1, 2:], solid[2:, 1:-1], solid[1:-1, :-2])  # above, right, below, left
    start = ((0, 0), (1, 0), (1, 1), (0, 1))  # corner of a pixel at which its edge in each direction begins
    edges: dict[tuple[int, int], list[int]] = {}
    for direction in range(4):
        ys, xs = np.nonzero(inner & ~away[direction])
        dx, dy = start[direction]
        for x, y in zip((xs + dx).tolist(), (ys + dy).tolist(), strict=True):
            edges.setdefault((x, y), []).append(direction)
    loops = []
    for first in sorted(edges, key=lambda c: (c[1], c[0])):  # a topmost corner is one where a loop turns
        while edges[first]:
            loops.append(_walk(edges, first))
    return loops


def _walk(edges: dict[tuple[int, int], list[int]], first: tuple[int, int]) -> np.ndarray:
    """Follow edges from a corner until they return to it, taking them out; the corners where the walk turns."""
    began = edges[first].pop(0)
    at, direction, corners = first, began, [first]
    while True:
        at = (at[0] + _STEPS[direction][0], at[1] + _STEPS[direction][1])
        if at == first:
            break
        out = edges[at]
        right = (direction + 1) % 4  # keeps to the same pixel where two pixels touch at a corner
        turn = out.pop(out.index(right)) if right in out else out.pop()
        if turn != direction:
            corners.append(at)
        direction = turn
    return np.roll(np.array(corners), -(began % 2), axis=0)  # a hole is entered by its left side, which is vertical


def spell(loop: np.ndarray) -> list[int | str]:
    """Compact form of a loop: x, y of its first corner, then one letter a step, horizontal and vertical in turn.

    ``a`` is 0, ``b`` … ``z`` are 1 … 25, ``A`` … ``Z`` are −1 … −26; a longer step is cut in pieces with zero
    steps between them.
    """
    letters = []
    for i, (dx, dy) in enumerate((np.roll(loop, -1, 0) - loop).tolist()):
        step = dx if i % 2 == 0 else dy
        while abs(step) > 25:
            part = 25 if step > 0 else -25
            letters.append(_letter(part) + "a")
            step -= part
        letters.append(_letter(step))
    return [int(loop[0, 0]), int(loop[0, 1]), "".join(letters)]


def _letter(step: int) -> str:
    return chr(97 + step) if step >= 0 else chr(64 - step)


def svg_path(loops: list[np.ndarray], dx: int = 0, dy: int = 0) -> str:
    """Loops as the data of an SVG path, displaced by (dx, dy)."""
    parts = []
    for loop in loops:
        x, y = (loop[0] + (dx, dy)).tolist()
        steps = (np.diff(loop, axis=0)).tolist()
        moves = "".join(f"h{s[0]}" if i % 2 == 0 else f"v{s[1]}" for i, s in enumerate(steps))
        parts.append(f"M{x} {y}{moves}z")
    return "".join(parts)
