"""Text for the page: numbers as they are printed, escaping, and the colours of the tracks."""

from __future__ import annotations

import html
import json
import math
from typing import Any

# Okabe and Ito's colours that stand out on grey images and on paper alike; told apart with any colour vision.
TRACK_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7")


def colour(track: int) -> str:
    """Colour of a track; neighbours in number differ, and the number always stands beside it."""
    return TRACK_COLOURS[(track - 1) % len(TRACK_COLOURS)]


def escape(text: Any) -> str:
    """Text that is safe between tags and in quoted attributes."""
    return html.escape(str(text), quote=True)


def number(value: float, digits: int = 1) -> str:
    """A number with a true minus sign; trailing zeros go, NaN is a dash."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text.replace("-", "−")


def fixed(value: float, digits: int) -> str:
    """A figure with all its decimals, which say how well it is known and line up in a column; NaN is a dash."""
    return f"{value:.{digits}f}".replace("-", "−") if math.isfinite(value) else "–"


def degrees(value: float) -> str:
    """A tilt angle with one decimal, or a dash where it is not known."""
    return f"{value:.1f}°".replace("-", "−") if math.isfinite(value) else "–"


def plus_minus(value: float, error: float, digits: int = 1, unit: str = "") -> str:
    """A number with its standard deviation where that is known."""
    text = number(value, digits) + unit
    return f"{text} ± {number(error, digits)}{unit}" if math.isfinite(error) else text


def percent(share: float) -> str:
    """A share in whole per cent; 99.7 % is not rounded up to all."""
    return f"{math.floor(100 * share + 1e-9)} %"


def plural(n: int, noun: str) -> str:
    """A count with its noun."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def json_for_script(value: Any) -> str:
    """JSON that cannot end the script element that it stands in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table whose cells are HTML already."""
    body = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows)
    heads = "".join(f"<th>{h}</th>" for h in head)
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
