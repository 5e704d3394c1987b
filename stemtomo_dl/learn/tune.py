"""What is chosen on validation data once a network has learned: how scores are made, which of them to believe."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.optimize import minimize

from stemtomo_dl.learn.detection import Case, compare, ranked, scores
from stemtomo_dl.learn.examples import LEAST_AREA, Example
from stemtomo_dl.segment.networks.prompted import PromptedNetwork
from stemtomo_dl.segment.predict import Tuning, outlines

_CHOICES: dict[str, tuple[float, ...]] = {
    "heat_power": (0.3, 0.5, 0.7),
    "most_overlap": (0.5, 0.65, 0.8),
    "edge": (-0.25, -0.5, -0.75),
}
_LEAST_GAIN = 0.01  # in average precision: less is what other examples of the same kind would have taken back
_RIDGE = 1e-3  # keeps the calibration finite where scores tell right from wrong without fail


def judged(network: PromptedNetwork, examples: list[Example], tuning: Tuning) -> list[Case]:
    """What a network finds in examples, held against their outlines."""
    out = []
    for e in examples:
        found, truth = outlines(network, e.planes, tuning), e.outlines
        out.append(compare(found, np.arange(len(found)), truth, np.arange(len(truth)), e.counts, LEAST_AREA))
    return out


def tuned(network: PromptedNetwork, examples: list[Example]) -> Tuning:
    """Choose the tuning on validation examples.

    The way in which scores are made, the overlap from which two outlines are one, and the logit at which outlines are
    drawn are those of the highest average precision, where it is clearly higher; scores are then calibrated to
    probabilities, and the least score is that of the highest F1 at IoU .5.
    """
    best = Tuning(least_score=0.0, least_heat=0.05)
    found = judged(network, examples, best)
    reached = scores(found)["ap"] or 0.0
    for key, values in _CHOICES.items():
        for value in values:
            trial = replace(best, **{key: value})  # type: ignore[arg-type]
            cases = judged(network, examples, trial)
            ap = scores(cases)["ap"] or 0.0
            if ap > reached + _LEAST_GAIN:
                best, reached, found = trial, ap, cases
    score, right = ranked(found, 0.5)
    slope, offset = calibration(score, right)
    at = scores(found)["best_f1_score"] or 0.5
    chosen = replace(best, calibration=(slope, offset))
    return replace(chosen, least_score=round(float(_sigmoid(slope * _logit(np.array(at)) + offset)), 4))


def calibration(score: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Slope and offset of the logit of the probability over that of the raw score (Platt 1999).

    Parameters
    ----------
    score : (n,) array
    right : (n,) bool array
    """
    if right.all() or not right.any():
        return 1.0, 0.0
    x = _logit(score)

    def cost(line: np.ndarray) -> float:
        z = np.where(right, 1.0, -1.0) * (line[0] * x + line[1])
        return float(np.logaddexp(0, -z).mean() + _RIDGE * ((line - [1, 0]) ** 2).sum())

    slope, offset = minimize(cost, np.array([1.0, 0.0])).x
    return round(float(max(slope, 0.05)), 4), round(float(offset), 4)


def _logit(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(p / (1 - p)))


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-z)))
