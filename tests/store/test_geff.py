"""Tracks as a graph, read back by the format's own library."""

import sys

import numpy as np
import pytest

from stemtomo_dl.errors import InputError
from stemtomo_dl.records import Masks, Tracks
from stemtomo_dl.store.track_formats import write_geff


def few():
    """Track 1 at tilts 0, 1 and 3, track 2 at tilts 1 and 2, in no order."""
    full = np.zeros((5, 10, 12), bool)
    full[:, 1:7, 1:7] = True
    tilt, track = np.array([3, 1, 0, 2, 1], "i4"), np.array([1, 2, 1, 2, 1], "i4")
    masks = Masks.pack(full, tilt, np.ones(5), np.arange(4.0) * 10)
    tracks = Tracks.plain(
        track=track,
        tilt=tilt,
        instance=np.arange(5, dtype="i4"),
        x_px=np.arange(5.0),
        y_px=np.arange(5.0) + 0.25,
        area_px=full.sum((1, 2)).astype("f8"),
        alpha_deg=masks.alpha_deg,
        drift_px=np.zeros((4, 2)),
        particle=np.array([1, 2], "i4"),
        position_nm=np.zeros((2, 3)),
        residual_px=np.zeros(2),
    )
    return masks, tracks


def test_a_track_is_a_path_over_its_gaps(tmp_path):
    geff = pytest.importorskip("geff")
    masks, tracks = few()
    write_geff(tmp_path, masks, tracks)
    graph, about = geff.read(write_geff(tmp_path, masks, tracks), data_validation=None)  # in the place of what is there
    seen = {n: (d["track"], d["t"]) for n, d in graph.nodes(data=True)}
    assert sorted(seen.values()) == [(1, 0), (1, 1), (1, 3), (2, 1), (2, 2)]
    assert sorted((seen[a], seen[b]) for a, b in graph.edges) == [((1, 0), (1, 1)), ((1, 1), (1, 3)), ((2, 1), (2, 2))]
    last = next(d for d in graph.nodes.values() if d["t"] == 3)
    assert (last["x"], last["y"], last["instance"], last["alpha_deg"]) == (0, 0.25, 0, 30)
    assert [a.name for a in about.axes] == ["t", "y", "x"]
    assert about.track_node_props == {"tracklet": "track"}


def test_without_the_library_a_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "geff.core_io", None)
    monkeypatch.setitem(sys.modules, "geff", None)
    with pytest.raises(InputError, match=r"stemtomo_dl\[geff\]"):
        write_geff(tmp_path, *few())
