"""The untuned Segment Anything of the benchmark: what it is shown, and what is taken from its answer."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

SOURCE = Path(__file__).parents[2] / "benchmarks" / "untuned_sam.py"


class Answers:
    """In place of the mask generator: three known masks, and it keeps what it was shown."""

    def __init__(self, *masks):
        self.masks = masks

    def generate(self, image):
        self.shown = image
        return [
            {"segmentation": m, "area": int(m.sum()), "predicted_iou": 0.9 - 0.1 * n} for n, m in enumerate(self.masks)
        ]


@pytest.fixture
def untuned():
    pytest.importorskip("segment_anything")
    spec = importlib.util.spec_from_file_location("untuned_sam", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return object.__new__(module.UntunedSam)


def rectangle(rows, columns, shape=(20, 30)):
    out = np.zeros(shape, bool)
    out[slice(*rows), slice(*columns)] = True
    return out


def test_background_and_empty_masks_are_left_out(untuned):
    first, second = rectangle((2, 8), (3, 9)), rectangle((4, 12), (6, 20))
    untuned._generator = Answers(first, rectangle((0, 20), (0, 16)), second, rectangle((0, 0), (0, 0)))
    found = untuned.predict({"adf": np.arange(600.0).reshape(20, 30)})
    np.testing.assert_array_equal([found.full(i) for i in range(2)], [first, second])
    np.testing.assert_allclose(found.score, [0.9, 0.7], rtol=1e-6)


def test_it_sees_one_image_in_the_range_of_photographs(untuned):
    untuned._generator = answers = Answers()
    adf = np.linspace(-5, 7, 600).reshape(20, 30)
    assert len(untuned.predict({"bf": np.zeros((20, 30)), "adf": adf})) == 0
    assert answers.shown.shape == (20, 30, 3)
    assert answers.shown.dtype == np.uint8
    assert answers.shown.min() == 0
    assert answers.shown.max() == 255
    assert (np.diff(answers.shown[..., 0].ravel().astype(int)) >= 0).all()
