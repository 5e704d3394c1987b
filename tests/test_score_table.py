"""What `stemtomo evaluate` shows on a terminal."""

import io

from rich.console import Console

from stemtomo_dl.cli_alone import score_table


def test_single_numbers_are_shown_and_coverage_by_its_median():
    scores = {"recall": 0.987, "mean_iou": None, "coverage": {0: 1.0, 1: 0.5, 2: 0.25}, "segmentation": {"all": {}}}
    out = io.StringIO()
    Console(file=out, width=60).print(score_table(scores))
    assert [line.split() for line in out.getvalue().splitlines()[1:]] == [
        ["recall", "0.987"],
        ["mean", "iou", "–"],
        ["median", "coverage", "0.5"],
    ]
