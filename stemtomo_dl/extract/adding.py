"""The loops that add patterns up: moved to a common centre, by their coefficients, to the sums they take part in."""

from __future__ import annotations

import numba
import numpy as np

from stemtomo_dl.stream import is_finite

KINDS = 6  # of sums a particle: own, rest, and the parts of its outline
_STRIP_BYTES = 512 << 10  # of patterns that are added up at once: about what a core's own cache holds


@numba.njit(nogil=True, cache=True, fastmath={"contract"})
def add_patterns(
    patterns: np.ndarray,
    pattern: np.ndarray,
    displaced: np.ndarray,
    moved: np.ndarray,
    sum_of: np.ndarray,
    coefficient: np.ndarray,
    good: np.ndarray,
    first: int,
    last: int,
    sums: np.ndarray,
    squares: np.ndarray,
    lost: np.ndarray,
) -> None:
    """Add patterns (n, qy, qx) to rows first … last − 1 of the sums and squares, as `_Work` says.

    A strip of all patterns, counts as they are, is moved to the common centre first; it stays in the cache while it
    is added up. Values that are not finite count as nothing, and go to ``lost``.
    """
    cols = patterns.shape[2]
    height = max(1, _STRIP_BYTES // (good.itemsize * cols * max(1, len(pattern))))
    strip = np.empty((len(pattern), height * cols), good.dtype)
    for top in range(first, last, height):
        bottom = min(top + height, last)
        whole = True
        for i in range(len(pattern)):
            dx, dy = displaced[i]
            whole &= _move(patterns[pattern[i]], good, dx, dy, top, bottom, False, strip[i])
        _add_up(strip, moved, sum_of, coefficient, top * cols, bottom * cols, sums, squares, False)
        if not whole:
            for i in range(len(pattern)):
                dx, dy = displaced[i]
                _move(patterns[pattern[i]], good, dx, dy, top, bottom, True, strip[i])
            _add_up(strip, moved, sum_of, coefficient, top * cols, bottom * cols, lost, squares, True)


@numba.njit(nogil=True, cache=True)
def _move(
    pattern: np.ndarray, good: np.ndarray, dx: int, dy: int, top: int, bottom: int, gaps: bool, out: np.ndarray
) -> bool:
    """Rows of a pattern, moved back by (dx, dy), zero beyond its edges and where it is not good or finite.

    With ``gaps`` 1 for good pixels that are not finite instead. Whether all good pixels that were met are finite.
    """
    rows, cols = pattern.shape
    first, last, shift = max(top, -dy), min(bottom, rows - dy), dy * cols + dx
    if first >= last or abs(dx) >= cols:
        out[: (bottom - top) * cols] = 0
        return True
    # all rows in one loop, as they lie in memory: what has come from the row before or after is put right then
    begin, end, origin = max(first * cols, -shift), min(last * cols, rows * cols - shift), top * cols
    out[: begin - origin] = 0
    out[end - origin : (bottom - top) * cols] = 0
    source, ok = _flat(pattern, begin + shift, end + shift), _flat(good, begin + shift, end + shift)
    inside = out[begin - origin : end - origin]
    whole = _as_gaps(source, ok, inside) if gaps else _as_values(source, ok, inside)
    if dx != 0:
        for at in range(first * cols - origin, last * cols - origin, cols):
            out[at : at + max(0, -dx)] = 0
            out[at + min(cols, cols - dx) : at + cols] = 0
    return whole


@numba.njit(nogil=True, cache=True)
def _as_values(source: np.ndarray, ok: np.ndarray, out: np.ndarray) -> bool:
    gone, zero = 0, out.dtype.type(0)
    for x in range(len(out)):
        value, finite = source[x], is_finite(source[x])
        gone += not finite and ok[x] > 0
        value = value if finite else source.dtype.type(0)
        out[x] = value if ok[x] else zero  # fetched in any case, or the loop would not be vectorised
    return gone == 0


@numba.njit(nogil=True, cache=True)
def _as_gaps(source: np.ndarray, ok: np.ndarray, out: np.ndarray) -> bool:
    for x in range(len(out)):
        out[x] = ok[x] if not is_finite(source[x]) else 0
    return True


@numba.njit(nogil=True, cache=True, fastmath={"contract"})
def _add_up(
    strip: np.ndarray,
    moved: np.ndarray,
    sum_of: np.ndarray,
    coefficient: np.ndarray,
    begin: int,
    end: int,
    sums: np.ndarray,
    squares: np.ndarray,
    gaps: bool,
) -> None:
    """Add the strips' pixels, ``begin`` … ``end`` − 1 of a pattern, to the sums; of ``gaps`` the weight alone.

    Four at a time, so that a sum is fetched and put back once for four; short of four, the rest count nothing.
    """
    k, n = 0, len(sum_of)
    zero = np.float32(0)
    while k < n:
        to = sum_of[k]
        m = 1
        while m < 4 and k + m < n and sum_of[k + m] == to:
            m += 1
        k1, k2, k3 = k + min(1, m - 1), k + min(2, m - 1), k + min(3, m - 1)
        a, b, c, d = strip[moved[k]], strip[moved[k1]], strip[moved[k2]], strip[moved[k3]]
        ca = coefficient[k]
        cb = coefficient[k1] if m > 1 else zero
        cc = coefficient[k2] if m > 2 else zero
        cd = coefficient[k3] if m > 3 else zero
        particle, kind = to // KINDS, to % KINDS
        if gaps and kind < 2:
            total = _flat(sums[2 * particle + kind], begin, end)
            _add(a, b, c, d, abs(ca), abs(cb), abs(cc), abs(cd), total)
        elif not gaps and kind < 2:
            _add_both(a, b, c, d, ca, cb, cc, cd, _flat(sums[to], begin, end), _flat(squares[particle], begin, end))
        elif not gaps:
            _add(a, b, c, d, ca, cb, cc, cd, _flat(sums[to], begin, end))
        k += m


@numba.njit(nogil=True, cache=True)
def _flat(image: np.ndarray, begin: int, end: int) -> np.ndarray:
    return image.reshape(image.size)[begin:end]


@numba.njit(nogil=True, cache=True, fastmath={"contract"})
def _add(
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    d: np.ndarray,
    ca: float,
    cb: float,
    cc: float,
    cd: float,
    total: np.ndarray,
) -> None:
    for x in range(len(total)):
        va, vb, vc, vd = np.float32(a[x]), np.float32(b[x]), np.float32(c[x]), np.float32(d[x])
        total[x] = (((total[x] + ca * va) + cb * vb) + cc * vc) + cd * vd


@numba.njit(nogil=True, cache=True, fastmath={"contract"})
def _add_both(
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    d: np.ndarray,
    ca: float,
    cb: float,
    cc: float,
    cd: float,
    total: np.ndarray,
    squares: np.ndarray,
) -> None:
    """Four patterns by their coefficients to a sum, and by the squares of those to another."""
    aa, bb, cc2, dd = ca * ca, cb * cb, cc * cc, cd * cd
    for x in range(len(total)):
        va, vb, vc, vd = np.float32(a[x]), np.float32(b[x]), np.float32(c[x]), np.float32(d[x])
        total[x] = (((total[x] + ca * va) + cb * vb) + cc * vc) + cd * vd
        squares[x] = (((squares[x] + aa * va) + bb * vb) + cc2 * vc) + dd * vd


@numba.njit(nogil=True, cache=True)
def add_gauge(
    patterns: np.ndarray, chosen: np.ndarray, good: np.ndarray, first: int, last: int, gauge: np.ndarray
) -> None:
    """Add some patterns to rows first … last − 1 of the sum and the sum of squares, on the detector's own grid."""
    for i in chosen:
        for y in range(first, last):
            _add_with_squares(patterns[i, y], good[y], gauge[0, y], gauge[1, y])


@numba.njit(nogil=True, cache=True)
def _add_with_squares(line: np.ndarray, ok: np.ndarray, total: np.ndarray, squares: np.ndarray) -> None:
    for x in range(len(line)):
        value = np.float32(line[x]) if is_finite(line[x]) else np.float32(0)
        value = value if ok[x] else np.float32(0)
        total[x] += value
        squares[x] += value * value
