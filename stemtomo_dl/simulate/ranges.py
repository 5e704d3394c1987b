"""Kinds of settings that are drawn at random."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from stemtomo_dl.config import Finite


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"{list(value)} runs downward; give the smaller value first")
    return value


def _positive(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] <= 0:
        raise ValueError("drawn evenly in the logarithm: give values above 0")
    return value


def _countable(value: tuple[int, int]) -> tuple[int, int]:
    if value[0] < 0 or value[0] > value[1]:
        raise ValueError(f"{list(value)}: give two numbers from 0 up, the smaller one first")
    return value


Share = Annotated[float, Field(ge=0, le=1)]
Even = Annotated[tuple[Finite, Finite], AfterValidator(_ordered)]  # values in between are equally likely
Log = Annotated[tuple[Finite, Finite], AfterValidator(_ordered), AfterValidator(_positive)]  # … their logarithms are
Counts = Annotated[tuple[int, int], AfterValidator(_countable)]
