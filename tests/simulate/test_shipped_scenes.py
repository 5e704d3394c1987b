"""The shipped scenes give what data/synthetic/README.md says; run as a program, this file writes its table anew."""

import hashlib
import platform
from pathlib import Path

import numpy as np
import pytest

from stemtomo_dl import resources
from stemtomo_dl.simulate.scene import load_scene
from stemtomo_dl.simulate.series import simulate

FOLDER = resources.synthetic()
SMALL = ("tiny", "brookite_small", "needle")  # played as a whole; the others are left to the program: they take minutes
README = FOLDER / "README.md"
SCENES = sorted(p.stem for p in (FOLDER / "scenes").glob("*.toml"))


def facts(name: str) -> list[str]:
    """A row of the table: what the truth of a scene holds, and the bytes of its first scan."""
    series = simulate(*load_scene(Path(name)))
    truth, shape = series.truth, series.shape
    scan = series.scan(0)
    outlines = hashlib.sha256()
    for i in range(len(truth.masks)):
        outlines.update(np.packbits(truth.masks.full(i)).tobytes())
    return [
        f"`{name}`",
        str(len(truth.ub)),
        str(len(truth.alpha_deg)),
        " × ".join(map(str, shape)),
        str(len(truth.masks)),
        str(int(scan.sum(dtype=np.int64))),
        f"`{outlines.hexdigest()[:16]}`",
        f"`{hashlib.sha256(scan.tobytes()).hexdigest()[:16]}`",
    ]


def written() -> dict[str, list[str]]:
    """The rows of the README's table by the scene's name."""
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in README.read_text().splitlines() if "×" in line]
    return {row[0].strip("`"): row for row in rows if row[0].startswith("`") and len(row) == 8}


def test_the_table_names_every_scene():
    assert list(written()) == SCENES


@pytest.mark.parametrize("name", SMALL)
def test_the_table_is_right(name):
    found, stated = facts(name), written()[name]
    assert found[:5] == stated[:5]
    assert int(found[5]) == pytest.approx(int(stated[5]), abs=6 * int(stated[5]) ** 0.5)
    if platform.machine() in ("x86_64", "AMD64"):  # other machines round differently in the last place
        assert found == stated


def test_what_ships_is_small():
    assert sum(p.stat().st_size for p in FOLDER.rglob("*") if p.is_file()) < 1_000_000


def rewrite() -> None:
    """Play all scenes and put their rows in the place of the README's."""
    lines = README.read_text(encoding="utf-8").splitlines()
    old = [i for i, line in enumerate(lines) if "×" in line and line.startswith("| `")]
    rows = []
    for scene in SCENES:
        rows.append("| " + " | ".join(facts(scene)) + " |")
        print(rows[-1], flush=True)
    lines[old[0] : old[-1] + 1] = rows
    README.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    rewrite()
