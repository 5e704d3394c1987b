"""States, shared outlines and fills of particles whose motion is known."""

import numpy as np
import pytest

from stemtomo_dl.records import SOURCES, STATES, Masks
from stemtomo_dl.track.features import features
from stemtomo_dl.track.fill import append, fill
from stemtomo_dl.track.outline import Outline, agreement
from stemtomo_dl.track.overlap import overlap_share, stand
from stemtomo_dl.track.solution import Solution, Stage
from stemtomo_dl.track.tracked import track_record

SHAPE, ALPHA = (60, 80), np.arange(-10.0, 11.0, 2.0)
TILTS = len(ALPHA)


def disk(xy, radius):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return (x - xy[0]) ** 2 + (y - xy[1]) ** 2 <= radius**2


def solution(position, alpha=ALPHA, axis=0.0, rigid=True):
    position = np.asarray(position, float)
    stage = Stage(axis, 0.1, 0.2, rigid)
    zeros = np.zeros(len(alpha))
    return Solution(
        stage,
        SHAPE,
        alpha,
        zeros,
        np.zeros((len(alpha), 2)),
        position,
        np.full(position.shape, 0.1),
        np.zeros(3),
        np.zeros(0),
        np.zeros((len(position), 0, 2)),
    )


class Field:
    """Disks on a stage that tilts about x: what each tilt shows, with detections taken away or joined."""

    def __init__(self, position, radius):
        self.solution = solution(position)
        self.xy = self.solution.predict(np.arange(TILTS))
        self.radius = radius
        self.rows = {(p, t): disk(self.xy[p, t], r) for p, r in enumerate(radius) for t in range(TILTS)}

    def masks(self):
        keys = sorted(self.rows)
        tilt = np.array([t for _, t in keys], int)
        label = np.array([p for p, _ in keys], int)
        masks = Masks.pack(np.array([self.rows[k] for k in keys]), tilt, np.full(len(keys), 0.9), ALPHA)
        return masks, label

    def record(self, prompt=None, filling=True, recorded=None):
        masks, label = self.masks()
        recorded = np.ones(TILTS, bool) if recorded is None else recorded
        return track_record(masks, features(masks), label, self.solution, recorded, 2.0, prompt, filling=filling)


def apart():
    return Field([[-20, 0, 0], [18, 0, 0]], [6, 5])


def state(tracks, particle, tilt):
    return STATES[tracks.states[particle, tilt]]


def sighting(tracks, particle, tilt):
    return np.flatnonzero((tracks.track == particle + 1) & (tracks.tilt == tilt))


def test_particles_apart_are_clean():
    tracks, masks = apart().record()
    assert (tracks.states == 0).all()
    assert (tracks.source == 0).all()
    assert len(masks) == 2 * TILTS
    np.testing.assert_array_equal(tracks.usable_deg, [[-10, 10]] * 2)
    np.testing.assert_array_equal(tracks.overlap_share, 0)
    assert np.nanmax(tracks.misfit_px) < 0.3


def test_a_short_gap_is_projected_and_an_end_is_not():
    field = apart()
    for tilt in (4, 5, 9, 10):
        del field.rows[0, tilt]
    tracks, masks = field.record()
    for tilt in (4, 5):
        (row,) = sighting(tracks, 0, tilt)
        assert SOURCES[tracks.source[row]] == "projected"
        assert tracks.detected[row] == -1
        assert state(tracks, 0, tilt) == "clean"
        truth = Outline(disk(field.xy[0, tilt], 6), 0, 0)
        assert agreement(Outline.of(masks, tracks.instance[row]), truth) > 0.9
        assert masks.tilt[tracks.instance[row]] == tilt
    for tilt in (9, 10):
        assert state(tracks, 0, tilt) == "hidden"
        assert not len(sighting(tracks, 0, tilt))


def test_a_long_gap_is_not_projected():
    field = apart()
    for tilt in range(3, 8):
        del field.rows[0, tilt]
    tracks, _ = field.record()
    assert [state(tracks, 0, t) for t in range(2, 9)] == ["clean", *["hidden"] * 5, "clean"]


def answers(field, shift=0.0, score=0.9):
    """A segmenter that draws the disk nearest to each box's middle, wherever it may be shifted to."""
    asked = []

    def prompt(tilt, boxes):
        asked.append((tilt, boxes))
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2 - 0.5
        which = np.linalg.norm(field.xy[None, :, tilt] - middle[:, None], axis=-1).argmin(1)
        drawn = np.array([disk(field.xy[p, tilt] + [shift, 0], field.radius[p]) for p in which])
        return Masks.pack(drawn, np.zeros(len(drawn)), np.full(len(drawn), score), np.zeros(1))

    return prompt, asked


@pytest.mark.parametrize(
    ("how", "expected"),
    [({}, "clean"), ({"shift": 6.0}, "hidden"), ({"score": 0.2}, "hidden")],
    ids=["agrees", "elsewhere", "unsure"],
)
def test_the_segmenter_is_asked_and_must_agree(how, expected):
    field = apart()
    del field.rows[1, 10]
    prompt, asked = answers(field, **how)
    tracks, _ = field.record(prompt)
    assert [tilt for tilt, _ in asked] == [10]
    np.testing.assert_allclose(asked[0][1].mean(1), np.mean([*(field.xy[1, 10] + 0.5)]), atol=1)
    assert state(tracks, 1, 10) == expected
    assert [SOURCES[tracks.source[r]] for r in sighting(tracks, 1, 10)] == (["prompted"] if expected == "clean" else [])


def test_a_detection_of_two_is_cut_into_both():
    field = Field([[-6, 0, 0], [6, 0, 0]], [6, 5])
    for tilt in (4, 5, 6):  # the first is linked to the joined outline, the second finds none
        field.rows[0, tilt] = field.rows[0, tilt] | field.rows.pop((1, tilt))
    tracks, masks = field.record()
    for tilt in (4, 5, 6):
        rows = [sighting(tracks, p, tilt).item() for p in (0, 1)]
        assert {state(tracks, p, tilt) for p in (0, 1)} == {"merged"}
        assert len({int(tracks.detected[r]) for r in rows}) == 1
        assert masks.found.tolist().count(tracks.detected[rows[0]]) == 1
        for p, r in enumerate(rows):
            truth = Outline(disk(field.xy[p, tilt], field.radius[p]), 0, 0)
            assert agreement(Outline.of(masks, tracks.instance[r]), truth) > 0.85
    np.testing.assert_allclose(tracks.overlap_share, 3 / TILTS)


def test_an_unlinked_outline_where_one_is_expected_is_the_particles():
    field = apart()
    masks, label = field.masks()
    left = np.flatnonzero((label == 1) & (masks.tilt == 5))
    label[left] = -1
    tracks, joined = track_record(masks, features(masks), label, field.solution, np.ones(TILTS, bool), 2.0)
    assert joined.source is None
    assert tracks.instance[sighting(tracks, 1, 5)].tolist() == left.tolist()


def test_without_filling_only_detections_are_sightings_and_a_merged_one_is_of_all_whom_it_shows():
    field = Field([[-6, 0, 0], [6, 0, 0]], [6, 5])
    field.rows[0, 5] = field.rows[0, 5] | field.rows.pop((1, 5))
    tracks, masks = field.record(filling=False)
    assert masks.source is None
    np.testing.assert_array_equal(tracks.instance, tracks.detected)
    assert [state(tracks, p, 5) for p in (0, 1)] == ["merged"] * 2
    one, other = (sighting(tracks, p, 5) for p in (0, 1))
    assert tracks.instance[one] == tracks.instance[other]
    assert len(tracks.track) == len(masks) + 1
    for row, p in ((one, 0), (other, 1)):  # each where it is expected, not in the middle of both
        np.testing.assert_allclose([tracks.x_px[row], tracks.y_px[row]], tracks.predicted_px[p, 5][:, None])
    assert (tracks.residual_px < 0.5).all()


def test_a_particle_behind_another_is_hidden_and_its_cover_overlapped():
    field = Field([[0, 0, 0], [0, 0, 30]], [9, 3])  # they part as the stage tilts
    for tilt in range(4, 7):
        del field.rows[1, tilt]
    tracks, _ = field.record()
    assert state(tracks, 1, 5) == "hidden"
    assert state(tracks, 0, 5) == "overlapped"
    assert not len(sighting(tracks, 1, 5))


def test_what_leaves_the_field_is_outside():
    field = Field([[0, 0, 0], [10, 27, 40]], [5, 6])  # y = 29.5 + 27 cos α - 40 sin α: below the edge at α < 0
    for tilt in [t for t in range(TILTS) if field.xy[1, t, 1] > 58]:
        del field.rows[1, tilt]
    tracks, _ = field.record()
    for tilt in range(TILTS):
        y = field.xy[1, tilt, 1]
        if abs(y - 59.5) > 1:
            assert (state(tracks, 1, tilt) == "outside") == (y > 59.5)


def test_tilts_without_an_image_have_no_state():
    field, recorded = apart(), np.ones(TILTS, bool)
    recorded[3] = False
    for p in (0, 1):
        del field.rows[p, 3]
    tracks, _ = field.record(recorded=recorded)
    assert (tracks.states[:, 3] == -1).all()
    assert (np.delete(tracks.states, 3, 1) == 0).all()


def test_filled_outlines_follow_the_found_ones():
    field = apart()
    del field.rows[0, 5]
    masks, label = field.masks()
    filled = fill(masks, stand(masks, label, field.solution, np.ones(TILTS, bool)))
    joined = append(masks, filled)
    assert joined.source.tolist() == [0] * len(masks) + [SOURCES.index("projected")]
    assert all((a == b).all() for a, b in zip(joined.crops, masks.crops, strict=False))


def test_overlap_share_is_the_pixels_shared():
    a, b, c = np.zeros((3, 10, 10), bool)
    a[:4, :5], b[2:6, :5], c[8:, 8:] = True, True, True
    outlines = [Outline(m, 0, 0) for m in (a, b, c)]
    np.testing.assert_allclose(overlap_share(outlines, (10, 10)), [10 / 20, 10 / 20, 0])


@pytest.mark.parametrize("shift", [[0, 0], [3, -2], [0.5, 7.25]])
def test_a_moved_outline_keeps_its_place_and_size(shift):
    shape = Outline(disk([20, 30], 8), 0, 0).tight()
    moved = shape.moved(np.array(shift, float), np.eye(2))
    rows, columns = np.nonzero(moved.crop)
    np.testing.assert_allclose(
        [columns.mean() + moved.column, rows.mean() + moved.row], np.add([20, 30], shift), atol=0.1
    )
    assert moved.area == pytest.approx(shape.area, rel=0.06)


def test_a_stretched_outline_is_narrower_across_the_axis():
    flat = Outline(disk([30, 30], 12), 0, 0).tight().moved(np.zeros(2), np.diag([1, 0.5]))
    assert flat.crop.shape == (13, 25)
    assert flat.area == pytest.approx(np.pi * 12 * 6, rel=0.05)


@pytest.mark.parametrize("side", [4, 6, 10])
@pytest.mark.parametrize("shift", [(0.3, 0.4), (0.5, -0.2), (1e-9, 2.0), (-3.7, 0.0)])
def test_a_moved_outline_with_flat_edges_keeps_its_area(side, shift):
    moved = Outline(np.ones((side, side + 1), bool), 20, 30).moved(np.array(shift), np.eye(2))
    assert abs(moved.area - side * (side + 1)) <= side + 1  # within a row or a column that lies half in
    rows, columns = np.nonzero(moved.crop)
    middle = np.array([moved.column + columns.mean(), moved.row + rows.mean()])
    assert np.abs(middle - (np.array([30 + side / 2, 20 + (side - 1) / 2]) + shift)).max() <= 0.51
