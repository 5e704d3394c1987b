"""The import law: one pipeline, one direction."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "stemtomo_dl"

# A room may import rooms of lower rank, and itself; stages of one rank are strangers to each other.
RANK = {
    "errors": 0,
    "records": 1,
    "geometry": 2,
    "config": 3,
    "resources": 3,
    "scattering": 3,
    "stream": 4,
    "surfaces": 4,
    "workers": 4,
    "cluster": 5,
    "weights": 4,
    "virtual": 5,
    "segment": 5,
    "track": 5,
    "extract": 5,
    "crystal": 5,
    "simulate": 5,
    "solve": 5,
    "store": 6,
    "export": 6,
    "learn": 7,
    "report": 9,
    "run": 8,
    "reduction": 8,
    "tilts": 8,
    "particles": 9,
    "crystals": 9,
    "phases": 9,
    "dynamical": 9,
    "conventional": 9,
    "interchange": 10,
    "freshness": 10,
    "known": 10,
    "structures": 10,
    "pipeline": 11,
    "cli_progress": 9,
    "cli_alone": 11,
    "cli_solve": 11,
    "cli": 12,
}
ONLY = {
    "h5py": ("store",),
    "rsciio": ("store",),
    "hdf5plugin": ("store",),
    "lightning": ("learn",),
    "distributed": ("cluster",),
    "typer": ("cli", "cli_alone", "cli_progress", "cli_solve"),
}
HEAVY = ("torch", "numba", "scipy", "h5py", "skimage", "matplotlib", "pydantic", "rsciio")


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Modules that a file imports, also inside functions; names under TYPE_CHECKING count too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            found |= {f"{node.module}.{a.name}" for a in node.names}
    return found


def sources() -> list[Path]:
    return [p for p in sorted(PACKAGE.rglob("*.py")) if room(p) not in ("__init__", "_share")]


def test_every_room_is_known():
    assert {room(p) for p in sources()} <= set(RANK)


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    here = room(path)
    for name in imports(path):
        top = name.split(".")[0]
        assert here in ONLY.get(top, (here,)), f"{path} imports {top}, which only {ONLY.get(top)} may"
        if top == "stemtomo_dl" and "." in name:
            there = name.split(".")[1]
            if there in RANK and there != here:
                assert RANK[there] < RANK[here], f"{path}: {here} may not import {there}"


def test_no_code_outside_package_and_tests():
    root = PACKAGE.parent
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    outside = [p for p in listed.stdout.split() if p.split("/")[0] not in ("stemtomo_dl", "tests", "benchmarks")]
    assert not outside


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['stemtomo', '--help']\n"
        "from stemtomo_dl import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "segment" in done.stdout
