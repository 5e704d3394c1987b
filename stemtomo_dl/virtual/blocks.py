"""Sums over bins of detector pixels, in native numbers: blocks of pixels that lie in one bin are added at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

WIDTH = 16  # pixels of a block: a vector register of wide sums


def cut_blocks(bins: np.ndarray) -> np.ndarray:
    """Blocks that together hold every pixel which is in a bin, once.

    Parameters
    ----------
    bins : (pixel) int array
        The bin of each pixel, −1 for none; at least `WIDTH` of them.

    Returns
    -------
    (block, 3) i8 array
        First pixel of the block, in rising order nearly; where its bin begins in an accumulator of `WIDTH` numbers a
        bin; and where in `masks` stands which of its pixels count.
    """
    n = len(bins)
    edges = np.union1d(np.flatnonzero(np.diff(bins)) + 1, np.arange(0, n, WIDTH))
    start, stop = edges, np.append(edges[1:], n)
    inside = bins[start] >= 0
    start, stop = start[inside], stop[inside]
    first = np.minimum(start // WIDTH * WIDTH, n - WIDTH)
    mask = (start - first) * (WIDTH + 1) + stop - first
    return np.stack([first, bins[start].astype(int) * WIDTH, mask * WIDTH], 1)


def masks() -> np.ndarray:
    """Which pixels of a block count (0 or 1), for every first and last + 1 of them, one after the other."""
    first, last, i = np.ogrid[:WIDTH, : WIDTH + 1, :WIDTH]
    return ((i >= first) & (i < last)).astype("u1").ravel()


@intrinsic
def add_block(
    typing: Any, total: types.Array, at: Any, values: types.Array, start: Any, mask: types.Array, which: Any
) -> Any:
    """In compiled loops: total[at + i] += values[start + i] for i < WIDTH where mask[which + i] is not 0.

    Values that are not finite count as nothing. Written in vectors, since the compiler would make single additions
    of so short a loop. All must be within the contiguous arrays.
    """

    def vector(context: Any, builder: Any, kind: types.Array, array: Any, i: Any) -> Any:
        data = context.make_array(kind)(context, builder, array).data
        of = ir.VectorType(context.get_data_type(kind.dtype), WIDTH)
        return builder.bitcast(builder.gep(data, [i]), of.as_pointer())

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        goal = vector(context, builder, kinds[0], *args[:2])
        value = builder.load(vector(context, builder, kinds[2], *args[2:4]), align=1)
        use = builder.load(vector(context, builder, kinds[4], *args[4:]), align=1)
        use = builder.icmp_unsigned("!=", use, ir.Constant(use.type, [0] * WIDTH))
        old = builder.load(goal, align=1)
        floats = isinstance(kinds[2].dtype, types.Float)
        if floats:
            nothing = builder.fsub(value, value)  # NaN where it is not finite
            use = builder.and_(use, builder.fcmp_ordered("ord", nothing, nothing))
        value = builder.select(use, value, ir.Constant(value.type, [0] * WIDTH))
        if value.type != old.type:
            widen = builder.fpext if floats else builder.sext if kinds[2].dtype.signed else builder.zext
            value = widen(value, old.type)
        builder.store((builder.fadd if floats else builder.add)(old, value), goal, align=1)
        return context.get_dummy_value()

    return types.void(total, at, values, start, mask, which), codegen
