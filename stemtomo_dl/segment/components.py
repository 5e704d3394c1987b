"""Where on the dark field probes scatter, as a few images: crystals of equal brightness come apart in them."""

from __future__ import annotations

import numpy as np

from stemtomo_dl.records import VirtualImages
from stemtomo_dl.segment.planes import COMPONENTS

_SAMPLE = 4096  # probes that decide the directions
_ROUNDS, _CLIP = 3, 2.0  # of leaving out neighbours that differ by more than so many times the typical
_FAINTEST = 0.1  # of the mean bin: what is expected in a bin is not believed to be less
_BLOCK = 2048  # probes at once, which stay in the processor's cache
_LEAST = 100.0  # electrons in a bin, over all probes looked at: fewer tell of no pattern
_MARGIN = 8.0  # scales of that variance
_RUN = 4  # pairs of neighbouring probes whose differences are summed up
_LONGEST = 4.0  # times the length of noise: beyond it a probe's residuals are shortened to it


def with_components(images: VirtualImages) -> dict[str, np.ndarray]:
    """What a segmenter gets to see of a tilt: each detector's image and, where there are sectors, components.

    Where probes share a reduced pattern they share its components.
    """
    if images.sectors is None:
        return images.by_name
    found = component_images(images.sectors)
    rows, columns = (np.arange(n) // images.probes_together for n in images.images.shape[1:])
    return images.by_name | dict(zip(COMPONENTS, found[:, rows][:, :, columns], strict=True))


def component_images(sectors: np.ndarray) -> np.ndarray:
    """Leading components of the dark field's pattern, without the support's own pattern and the brightness.

    A probe's counts are compared with its total, shared out as the support does it: Pearson's residuals, whose
    noise is 1 in every bin however few counts there are (correspondence analysis: Greenacre 1984). Probes that stand
    far out of the noise count by their direction alone, so that one bright crystal does not take all components (as
    in spherical components: Locantore et al. 1999, Test 8, 1). Components are left out that counting noise alone
    would have: as many electrons are drawn with the support's pattern (parallel analysis: Horn 1965, Psychometrika
    30, 179), beyond whose greatest component is a margin (Johnstone 2001, Ann. Stat. 29, 295).

    Parameters
    ----------
    sectors : (y, x, bin) array
        Counts in bins of the dark field, up to a gain.

    Returns
    -------
    (3, y, x) f4 array
        0 where no component stands out. The sign is such that the longer tail is bright.
    """
    shape, counts = sectors.shape[:2], sectors.reshape(-1, sectors.shape[2]).astype(np.float32, copy=False)
    out = np.zeros((len(COMPONENTS), len(counts)), np.float32)
    filled = np.ones(len(counts), np.float32) @ counts > 0
    counts = counts if filled.all() else counts[:, filled]
    some = np.sort(np.random.default_rng(0).permutation(len(counts))[:_SAMPLE])
    gain = _gain(counts, some[some < len(counts) - _RUN])
    sample = counts[some]
    sample = sample[sample.sum(1) > gain / 2]  # the others hold no electron
    if gain <= 0 or min(sample.shape) < 2 or sample.sum() < _LEAST * gain * sample.shape[1]:
        return out.reshape(-1, *shape)
    share = _support(counts, gain)
    alike = _shared_out(sample, share, gain)
    directions = _leading(_residuals(sample, share, gain), _residuals(alike, _support(alike, gain), gain))
    found = out[: directions.shape[1]]
    for first in range(0, len(counts), _BLOCK):
        part = slice(first, first + _BLOCK)
        found[:, part] = (_residuals(counts[part], share, gain) @ directions).T
    found *= np.sign(np.mean(found**3, 1, keepdims=True))
    return out.reshape(-1, *shape)


def _gain(counts: np.ndarray, start: np.ndarray) -> float:
    """Counts per electron, from how neighbouring probes differ: for Poisson numbers Σ(a − b)² is gain·Σ(a + b).

    Summed over short runs of probes that begin at ``start``, without those that cross an edge. A camera's noise
    counts as a greater gain.
    """
    run = counts[start[:: _RUN + 1, None] + np.arange(_RUN + 1)]
    both = np.abs(run[:, 1:] + run[:, :-1]).sum((1, 2))
    apart = np.square(run[:, 1:] - run[:, :-1]).sum((1, 2))[both > 0]
    both = both[both > 0]
    gain = float(np.median(apart / both)) if len(both) else 0.0
    for _ in range(_ROUNDS):
        alike = apart <= _CLIP * gain * both
        gain = float(apart[alike].sum() / max(both[alike].sum(), 1e-30))
    return gain


def _support(counts: np.ndarray, gain: float) -> np.ndarray:
    """How the support shares out its electrons: as the darker half of the probes that hold any does.

    Brightness alone decides, since a choice by the pattern would favour what few counts happen to look like.
    """
    total = counts @ np.ones(counts.shape[1], np.float32)
    holds = total > gain / 2
    share = (holds & (total <= np.median(total[holds]))).astype(np.float32) @ counts
    share = np.maximum(share / max(float(share.sum()), 1e-30), _FAINTEST / len(share))
    return np.asarray(share / share.sum(), np.float32)


def _pearson(counts: np.ndarray, share: np.ndarray, gain: float) -> np.ndarray:
    """(count − expected)/√(gain·expected) for counts (n, bin), where a total below one electron counts as one."""
    total = np.maximum(counts @ np.ones((counts.shape[1], 1), np.float32), np.float32(gain))
    rest = counts - total * share
    rest *= 1 / np.sqrt(np.float32(gain) * total)
    rest *= 1 / np.sqrt(share)
    return np.asarray(rest)


def _residuals(counts: np.ndarray, share: np.ndarray, gain: float) -> np.ndarray:
    """Pearson's residuals, shortened where they stand far out of the noise."""
    rest = _pearson(counts, share, gain)
    square = np.einsum("ij,ij->i", rest, rest) / rest.shape[1]
    rest *= 1 / np.sqrt(np.maximum(square / np.float32(_LONGEST**2), np.float32(1)))[:, None]
    return rest


def _shared_out(sample: np.ndarray, share: np.ndarray, gain: float) -> np.ndarray:
    """Counts of probes as bright as these (n, bin) that all have the support's pattern."""
    electrons = np.round(sample.sum(1) / gain).astype(int)
    chance = share.astype(float)
    return np.asarray(gain * np.random.default_rng(0).multinomial(electrons, chance / chance.sum()), np.float32)


def _leading(rest: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Directions (bin, component) of the greatest variance, at most three, all above those of noise (n, bin)."""
    n, bins = rest.shape
    variance, directions = np.linalg.eigh((rest.T @ rest).astype(float) / n)
    greatest = np.linalg.eigvalsh((noise.T @ noise).astype(float) / n)[-1]
    # the scale by which the greatest variance of noise varies from field to field
    root = np.sqrt(n) + np.sqrt(bins)
    limit = greatest * (1 + _MARGIN * root / n * (1 / np.sqrt(n) + 1 / np.sqrt(bins)) ** (1 / 3))
    kept = [k for k in range(bins - 1, max(bins - 1 - len(COMPONENTS), -1), -1) if variance[k] > limit]
    return np.asarray(directions[:, kept], np.float32)
