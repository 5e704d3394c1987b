"""Every particle is held against the known phases by its own intensities, and the report tells it."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from report.crystalline import NAME, crystal, make_crystal_run
from report.test_report import Page
from solve.synthetic import known, measured

from stemtomo_dl import phases, resources
from stemtomo_dl.crystal.nouns import Reflections
from stemtomo_dl.report import build_report, gather, summarise

STRUCTURES = resources.synthetic() / "structures"


def of(name, *, shuffled=False):
    """A particle of a phase as the stage has it: its crystal and reflections."""
    data = measured(known(name), "Ti,O", 0.8, 0.5, noise=0.1)
    value = np.random.default_rng(1).permutation(data.intensity) if shuffled else data.intensity
    lattice = replace(crystal(), cell=np.array(data.cell))
    return lattice, Reflections(data.hkl, value, data.sigma, np.full(len(value), np.nan))


def test_each_particle_has_a_figure_of_merit_whether_or_not_it_is_merged():
    book = {"integration": {"particles": [{"track": k} for k in range(1, 6)]}}
    candidates = [STRUCTURES / f"{n}.cif" for n in ("anatase", "brookite", "rutile")]
    run = SimpleNamespace(candidates=lambda: candidates, ledger=SimpleNamespace(book=book))
    found = {k: of(n) for k, n in enumerate(("rutile", "brookite", "anatase"), 1)} | {4: of("rutile", shuffled=True)}
    phases._enter_likenesses(run, found, 0.0251)
    entries = json.loads(json.dumps(book["integration"]["particles"]))
    assert [[e["name"] for e in p["likeness"] if e["named"]] for p in entries] == [
        *(["rutile"], ["brookite"], ["anatase"], []),  # the fourth has rutile's cell alone
        [],  # not measured
    ]
    assert [e["name"] for e in entries[3]["likeness"]] == ["rutile"]
    assert entries[3]["likeness"][0]["merit"] < entries[0]["likeness"][0]["merit"] - 0.3


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A run whose first particle is named by itself, and whose second is not."""
    run = make_crystal_run(tmp_path_factory.mktemp("named") / "run")
    book = json.loads((run / "run.json").read_text())
    entry = {"cell_misfit": 0.01, "correlation": 0.8, "reflections": 40, "turn": []}
    for particle, merit in zip(book["integration"]["particles"], (0.734, 0.21), strict=False):
        particle["likeness"] = [entry | {"name": "rutile <1>", "merit": merit, "named": merit > 0.35}]
    (run / "run.json").write_text(json.dumps(book))
    yield run
    shutil.rmtree(run)


def test_report_and_summary_tell_it(told):
    facts = gather(told)
    known_by_itself = [p["crystallography"] for p in summarise(facts)["particles"]]
    assert [p["candidate"] for p in known_by_itself] == ["rutile <1>", None, None]
    assert [p["phase"] for p in known_by_itself] == [NAME, NAME, None]
    assert known_by_itself[1]["likeness"][0]["merit"] == 0.21
    text = Page(build_report(facts)).text
    assert "rutile <1> 0.73" in text
    assert "(rutile <1> 0.21)" in text
