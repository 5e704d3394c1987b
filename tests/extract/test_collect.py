"""The pass over a scan that adds patterns up, against the sums written out in full."""

import numpy as np
import pytest
from memory_scan import MemoryScan

from stemtomo_dl import stream as stream_module
from stemtomo_dl.config import ExtractConfig
from stemtomo_dl.extract.adding import KINDS
from stemtomo_dl.extract.collect import Sums, collect, parts_of, plan
from stemtomo_dl.extract.separate import Combination

SHAPE = (9, 11, 20, 26)
CENTRE = np.array([13.0, 10.0])


def combination(rng: np.random.Generator) -> Combination:
    probes = rng.permutation(SHAPE[0] * SHAPE[1])
    own, rest = np.sort(probes[:23]), np.sort(probes[30:47])
    return Combination(own, rng.normal(size=23), rest, rng.normal(size=17), rng.random(23) < 0.9, rest, True)


@pytest.fixture
def case(rng: np.random.Generator) -> tuple[np.ndarray, list[Combination], np.ndarray, np.ndarray, np.ndarray]:
    """Patterns, combinations, beam, bad pixels, gauged probes: displacements of several pixels, some out of sight."""
    y, x = np.indices(SHAPE[:2])
    beam = CENTRE + np.stack([1.7 * (x - 5), -2.1 * (y - 4)], -1)
    bad = rng.random(SHAPE[2:]) < 0.05
    return rng.poisson(3, SHAPE), [combination(rng) for _ in range(5)], beam, bad, np.array([4, 50, 51])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def run(data: np.ndarray, case: tuple) -> Sums:
    _, wanted, beam, bad, gauged = case
    return collect(MemoryScan(data), plan(wanted, beam, CENTRE, gauged), len(wanted), bad, ExtractConfig())


def written_out(data: np.ndarray, case: tuple) -> tuple[np.ndarray, ...]:
    """The same sums, entry by entry and pixel by pixel on arrays that are moved whole."""
    _, wanted, beam, bad, gauged = case
    todo = plan(wanted, beam, CENTRE, gauged)
    patterns = data.reshape(-1, *SHAPE[2:]).astype(float)
    known = np.isfinite(patterns) & ~bad
    patterns = np.where(known, patterns, 0)
    sums = np.zeros((len(wanted), KINDS, *SHAPE[2:]))
    lost, squares = np.zeros((len(wanted), 2, *SHAPE[2:])), np.zeros((len(wanted), *SHAPE[2:]))
    for probe in range(len(patterns)):
        for k in range(todo.start[probe], todo.start[probe + 1]):
            particle, kind = divmod(int(todo.sums[k]), KINDS)
            c, (dx, dy) = todo.coefficient[k], todo.displaced[k]
            wide = [
                np.pad(a, 60)[60 + dy :, 60 + dx :][: SHAPE[2], : SHAPE[3]] for a in (patterns[probe], known[probe])
            ]
            sums[particle, kind] += c * wide[0]
            if kind < 2:
                squares[particle] += c**2 * wide[0]
                lost[particle, kind] += abs(c) * ~wide[1]
    gauge = np.stack([patterns[gauged].sum(0), (patterns[gauged] ** 2).sum(0)])
    return sums, lost, squares, gauge


@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "f4", "f8"])
def test_sums_are_those_written_out(case: tuple, rng: np.random.Generator, dtype: str) -> None:
    data = case[0].astype(dtype)
    if data.dtype.kind == "f":
        data[rng.random(SHAPE) < 0.01] = np.nan
        data[3, 4, 5, 6] = np.inf
    found = run(data, case)
    for got, want in zip((found.sums, found.lost, found.squares, found.gauge), written_out(data, case), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
    assert found.n_gauge == 3


def test_the_same_bits_on_any_number_of_threads_and_for_any_type_of_counts(
    case: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(case[0].astype("u1"), case)
    for threads, dtype in ((1, "u2"), (3, "f8"), (40, "u4")):
        monkeypatch.setattr(stream_module, "THREADS", threads)
        again = run(case[0].astype(dtype), case)
        for name in ("sums", "lost", "squares", "gauge"):
            np.testing.assert_array_equal(getattr(again, name), getattr(first, name))


def test_parts_take_equal_shares_of_an_outline() -> None:
    own = np.arange(40)
    alone = own % 10 != 0
    outline = Combination(own, np.ones(40), own[:0], np.ones(0), alone, own[:0], True)
    parts, mine = parts_of(outline, 40)
    assert (mine == own[alone]).all()
    assert (np.bincount(parts) == 9).all()
    assert len(np.flatnonzero(np.diff(parts))) == 3
