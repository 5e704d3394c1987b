"""Tracks for other programs, read back the way those read them."""

import csv

import numpy as np
import tifffile

from stemtomo_dl.records import Masks, Tracks
from stemtomo_dl.store.track_formats import write_ctc, write_napari


def small():
    """Track 1 at tilts 0, 1 and 3, a gap at 2; track 2, smaller and partly over it, at tilts 1 and 2."""
    full = np.zeros((5, 10, 12), bool)
    full[:3, 1:7, 1:7] = True
    full[3:, 5:8, 5:8] = True
    tilt, track = np.array([0, 1, 3, 1, 2], "i4"), np.array([1, 1, 1, 2, 2], "i4")
    masks = Masks.pack(full, tilt, np.ones(5), np.arange(4.0))
    area = full.sum((1, 2)).astype("f8")
    tracks = Tracks.plain(
        track=track,
        tilt=tilt,
        instance=np.arange(5, dtype="i4"),
        x_px=np.array([3.5, 3.5, 3.5, 6, 6]),
        y_px=np.array([3.5, 3.5, 3.5, 6, 6]) + 0.25,
        area_px=area,
        alpha_deg=masks.alpha_deg,
        drift_px=np.zeros((4, 2)),
        particle=np.array([1, 2], "i4"),
        position_nm=np.zeros((2, 3)),
        residual_px=np.zeros(2),
    )
    return masks, tracks


def test_napari_gets_rows_by_track_then_tilt_with_y_before_x(tmp_path):
    masks, tracks = small()
    with write_napari(tmp_path, masks, tracks).open() as f:
        header, *rows = csv.reader(f)
    data = np.array(rows, float)
    assert len(header) == 4
    np.testing.assert_array_equal(data[:, :2], [[1, 0], [1, 1], [1, 3], [2, 1], [2, 2]])
    np.testing.assert_array_equal(data[3, 2:], [6.25, 6])


def test_cell_tracking_challenge_gets_pieces_without_gaps_and_images_of_them(tmp_path):
    masks, tracks = small()
    write_ctc(tmp_path, masks, tracks)
    folder = write_ctc(tmp_path, masks, tracks)  # in the place of what is there
    table = np.loadtxt(folder / "res_track.txt", int)
    np.testing.assert_array_equal(table, [[1, 0, 1, 0], [2, 3, 3, 1], [3, 1, 2, 0]])
    images = [tifffile.imread(folder / f"mask{t:03d}.tif") for t in range(4)]
    assert {p.name for p in folder.iterdir()} == {"res_track.txt", *(f"mask{t:03d}.tif" for t in range(4))}
    for label, first, last, _ in table:  # as the format's own check of a result asks: present just from first to last
        assert [t for t in range(4) if (images[t] == label).any()] == list(range(first, last + 1))
    assert images[1][6, 6] == 3  # where both are, the smaller one
    assert (images[0] == 1).sum() == 36


def test_a_sighting_that_others_cover_wholly_is_a_gap(tmp_path):
    full = np.zeros((4, 10, 12), bool)
    full[:3, 2:6, 2:6] = True
    full[3, 2:6, 2:6] = True  # of track 2, drawn later: as large, and after the other in the table
    tilt, track = np.array([0, 1, 2, 1], "i4"), np.array([1, 1, 1, 2], "i4")
    masks = Masks.pack(full, tilt, np.ones(4), np.arange(3.0))
    some = np.ones(4)
    tracks = Tracks.plain(
        track=track,
        tilt=tilt,
        instance=np.arange(4, dtype="i4"),
        x_px=some,
        y_px=some,
        area_px=16 * some,
        alpha_deg=masks.alpha_deg,
        drift_px=np.zeros((3, 2)),
        particle=np.array([1, 2], "i4"),
        position_nm=np.zeros((2, 3)),
        residual_px=np.zeros(2),
    )
    table = np.loadtxt(write_ctc(tmp_path, masks, tracks) / "res_track.txt", int)
    np.testing.assert_array_equal(table, [[1, 0, 0, 0], [2, 2, 2, 1], [3, 1, 1, 0]])
