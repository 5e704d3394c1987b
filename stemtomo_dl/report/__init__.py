"""Figures, the one HTML file, and the summary for programs."""

from stemtomo_dl.report.facts import gather
from stemtomo_dl.report.page import build_report
from stemtomo_dl.report.summary import summarise

__all__ = ["build_report", "gather", "summarise"]
