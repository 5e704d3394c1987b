"""Linking outlines over the tilts: predict every particle on the rigid stage, then assign.

A particle at p in the sample is seen at R(a, α)·p plus the field's drift. Each track is a Kalman filter on that
static p, so that a particle that was lost for some tilts is expected where it must reappear.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stemtomo_dl.config import TrackConfig
from stemtomo_dl.geometry import field_centre, tilt_rotation
from stemtomo_dl.records import Instrument, Masks, Tracks
from stemtomo_dl.track.assign import assign
from stemtomo_dl.track.cost import link_cost
from stemtomo_dl.track.drift import vote_shift
from stemtomo_dl.track.features import Features, features
from stemtomo_dl.track.position import solve_positions

_COST_LIMIT = 30.0
_OFF_PX, _OFF_RADII = 2.0, 0.5  # a sighting further from its place than both shows something else
_LEAST_SHARE = 1 / 3  # of the tilts at which a particle should be in view
_WANDER_PX = 0.3  # what a particle and the drift estimate may wander per tilt


@dataclass
class _Live:
    """A track being followed: position in the sample frame (px) with its covariance, and the last outline."""

    state: np.ndarray
    covariance: np.ndarray
    area: float
    moments: np.ndarray
    last_step: int = 0
    tilts: list[int] = field(default_factory=list)
    instances: list[int] = field(default_factory=list)


def track(masks: Masks, instrument: Instrument, config: TrackConfig) -> Tracks:
    """Link outlines into particles.

    Parameters
    ----------
    masks : Masks
        Outlines of all tilts.
    instrument : Instrument
        Its tilt axis and scan step are used.
    config : TrackConfig

    Returns
    -------
    Tracks
        Numbered from 1 by the number of tilts seen (most first), then by position.
    """
    seen = features(masks)
    order = np.argsort(masks.alpha_deg, kind="stable")
    order = order[np.isfinite(masks.alpha_deg[order])]
    linker = _Linker(masks, seen, instrument, config)
    for step, tilt in enumerate(order):
        linker.advance(step, int(tilt))
    needed = min(config.min_tilts, max(1, len(order) // 2))
    kept = [t for t in linker.all if len(t.tilts) >= needed]
    solution = _solve(kept, masks, seen, instrument, linker.drift)
    kept = _pruned(kept, solution, masks, seen, instrument, needed)
    kept.sort(key=lambda t: (-len(t.tilts), *seen.xy[t.instances[0]]))
    return _to_record(kept, masks, seen, instrument, _solve(kept, masks, seen, instrument, linker.drift))


class _Linker:
    """The state of linking: live tracks, finished tracks, the drift so far."""

    def __init__(self, masks: Masks, seen: Features, instrument: Instrument, config: TrackConfig) -> None:
        self.masks, self.seen, self.config = masks, seen, config
        self.axis = instrument.tilt_axis_deg
        self.centre = field_centre(masks.shape)
        self.drift = np.zeros((len(masks.alpha_deg), 2))
        self.current = np.zeros(2)
        self.live: list[_Live] = []
        self.all: list[_Live] = []

    def advance(self, step: int, tilt: int) -> None:
        """Take in the next tilt."""
        rows = tilt_rotation(self.axis, self.masks.alpha_deg[tilt])[:2]
        instances = self.masks.at(tilt)
        self.live = [t for t in self.live if step - t.last_step <= 1 + self._patience(t)]
        for t in self.live:
            t.covariance = t.covariance + np.eye(3) * _WANDER_PX**2
        if len(instances):
            self._match(step, tilt, rows, instances)
        self.drift[tilt] = self.current

    def _confirmed(self, t: _Live) -> bool:
        return len(t.tilts) >= self.config.confirm_tilts

    def _patience(self, t: _Live) -> int:
        """Tilts that a track may miss; spurious outlines must not lie in wait for each other."""
        return self.config.max_gap_tilts if self._confirmed(t) else min(1, self.config.max_gap_tilts)

    def _match(self, step: int, tilt: int, rows: np.ndarray, instances: np.ndarray) -> None:
        found, area, moments = self.seen.xy[instances], self.seen.area[instances], self.seen.covariance[instances]
        noise = 0.6 + 0.12 * np.sqrt(area / np.pi)
        matched = np.zeros(len(instances), bool)
        if self.live:
            predicted = np.array([rows @ t.state for t in self.live]) + self.centre + self.current
            last_area = np.array([t.area for t in self.live])
            trust = np.array([1.0 if self._confirmed(t) else 0.1 for t in self.live])
            shift = vote_shift(predicted, found, last_area, area, trust, self.config.drift_reach_px)
            self.current = self.current + shift
            predicted += shift
            radius = np.sqrt(last_area / np.pi)
            spread = np.array([rows @ t.covariance @ rows.T for t in self.live])
            spread += (0.6 + 0.12 * radius)[:, None, None] ** 2 * np.eye(2)
            gate = self.config.gate_radii * radius + 2 * np.sqrt(np.trace(spread, axis1=1, axis2=2))
            last_moments = np.array([t.moments for t in self.live])
            cost = link_cost(predicted, spread, last_area, last_moments, found, area, moments, gate)
            for i, j in zip(*assign(cost, _COST_LIMIT), strict=True):
                self._update(self.live[i], step, tilt, rows, int(instances[j]), float(noise[j]))
                matched[j] = True
        for j in np.flatnonzero(~matched):
            self._start(step, tilt, rows, int(instances[j]), float(noise[j]))

    def _update(self, t: _Live, step: int, tilt: int, rows: np.ndarray, instance: int, noise: float) -> None:
        """Kalman update of a track with a sighting."""
        innovation = self.seen.xy[instance] - self.centre - self.current - rows @ t.state
        gain = t.covariance @ rows.T @ np.linalg.inv(rows @ t.covariance @ rows.T + noise**2 * np.eye(2))
        t.state = t.state + gain @ innovation
        t.covariance = (np.eye(3) - gain @ rows) @ t.covariance
        t.area, t.moments = float(self.seen.area[instance]), self.seen.covariance[instance]
        t.tilts.append(tilt)
        t.instances.append(instance)
        t.last_step = step

    def _start(self, step: int, tilt: int, rows: np.ndarray, instance: int, noise: float) -> None:
        """A new track; before it is seen at other tilts its height is only known to be near the film's."""
        reach = float(max(self.masks.shape))
        t = _Live(np.zeros(3), np.diag([100 * reach**2, 100 * reach**2, (0.1 * reach) ** 2]), 0.0, np.eye(2))
        self._update(t, step, tilt, rows, instance, noise)
        self.live.append(t)
        self.all.append(t)


def _columns(kept: list[_Live]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Particle (from 0), tilt and instance of every sighting."""
    particle = np.repeat(np.arange(len(kept), dtype="i4"), [len(t.tilts) for t in kept])
    tilt, instance = (np.array([i for t in kept for i in getattr(t, k)], "i4") for k in ("tilts", "instances"))
    return particle, tilt, instance


def _solve(
    kept: list[_Live], masks: Masks, seen: Features, instrument: Instrument, drift: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions (px), drift (px) and every sighting's misfit (px)."""
    particle, tilt, instance = _columns(kept)
    xy = seen.xy[instance].reshape(-1, 2) - field_centre(masks.shape)
    return solve_positions(particle, tilt, xy, masks.alpha_deg, instrument.tilt_axis_deg, drift, masks.shape)


def _pruned(
    kept: list[_Live],
    solution: tuple[np.ndarray, np.ndarray, np.ndarray],
    masks: Masks,
    seen: Features,
    instrument: Instrument,
    needed: int,
) -> list[_Live]:
    """Tracks without the sightings that do not lie where the rigid stage puts their particle.

    A wrong link adds another crystal's pattern to a series. What is left must be long enough, and must have been
    seen at a fair share of the tilts at which it should have been in view: what is not was no particle.
    """
    position, drift, misfit = solution
    scale = 1.4826 * float(np.median(misfit)) if len(misfit) else 0.0
    tilts = np.unique(masks.tilt)
    rotation = tilt_rotation(instrument.tilt_axis_deg, masks.alpha_deg[tilts])[:, :2]
    height, width = masks.shape
    out, start = [], 0
    for t, p in zip(kept, position, strict=True):
        mine = misfit[start : start + len(t.tilts)]
        start += len(t.tilts)
        radius = np.sqrt(seen.area[t.instances] / np.pi)
        good = mine <= np.maximum(np.maximum(_OFF_PX, _OFF_RADII * radius), 5 * scale)
        t.tilts = [i for i, g in zip(t.tilts, good, strict=True) if g]
        t.instances = [i for i, g in zip(t.instances, good, strict=True) if g]
        x, y = (rotation @ p + field_centre(masks.shape) + drift[tilts]).T
        expected = int(((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)).sum())
        if len(t.tilts) >= max(needed, _LEAST_SHARE * expected):
            out.append(t)
    return out


def _to_record(
    kept: list[_Live],
    masks: Masks,
    seen: Features,
    instrument: Instrument,
    solution: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> Tracks:
    particle, tilt, instance = _columns(kept)
    position, drift, misfit = solution
    row = np.lexsort((tilt, particle))
    xy = seen.xy[instance].reshape(-1, 2)[row]
    count = np.bincount(particle, minlength=len(kept))
    return Tracks.plain(
        track=particle[row] + np.int32(1),
        tilt=tilt[row],
        instance=instance[row],
        x_px=xy[:, 0],
        y_px=xy[:, 1],
        area_px=seen.area[instance][row],
        alpha_deg=masks.alpha_deg,
        drift_px=drift,
        particle=np.arange(1, len(kept) + 1, dtype="i4"),
        position_nm=position * instrument.step_nm,
        residual_px=np.sqrt(np.bincount(particle, misfit**2, len(kept)) / np.maximum(count, 1)),
    )
