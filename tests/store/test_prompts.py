"""Points and boxes that a person gives."""

import numpy as np
import pytest

from stemtomo_dl.errors import InputError
from stemtomo_dl.store.prompts import BOX, POINT, check_inside, read_prompts


def test_numbers_and_a_file_are_the_same(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("track,y_px,x_px\n7,2,1.5\n8,4,3\n")
    np.testing.assert_array_equal(read_prompts("1.5,2; 3,4;", POINT, "--points"), [(1.5, 2), (3, 4)])
    np.testing.assert_array_equal(read_prompts(str(path), POINT, "--points"), [(1.5, 2), (3, 4)])
    np.testing.assert_array_equal(read_prompts("-1,0,5,6", BOX, "--boxes"), [(-1, 0, 5, 6)])


@pytest.mark.parametrize(
    ("given", "columns", "complaint"),
    [
        ("1,2,3", POINT, "1,2,3: must be x_px,y_px"),
        ("1,2;a,b", POINT, "a,b: must be"),
        ("", POINT, "holds none"),
        ("1,nan", POINT, "1,nan: not finite"),
        ("5,1,5,9", BOX, "5,1,5,9: has no inside"),
        ("absent.csv", POINT, "no such file"),
        ("letters.csv", POINT, "line 3: y_px must be a number, got 'b'"),
        ("letters.csv", BOX, "column 'x0_px' is missing"),
        ("empty.csv", POINT, "holds none"),
    ],
)
def test_a_wrong_prompt_is_one_line(given, columns, complaint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "letters.csv").write_text("x_px,y_px\n1,2\n3,b\n")
    (tmp_path / "empty.csv").write_text("x_px,y_px\n")
    with pytest.raises(InputError) as e:
        read_prompts(given, columns, "--points")
    assert complaint in str(e.value)
    assert "\n" not in str(e.value)


def test_the_middle_must_be_in_the_image():
    check_inside(np.array([(-0.5, 19.5), (29.5, 0)]), (20, 30), "--points")
    check_inside(np.array([(-40.0, 5, 50, 8)]), (20, 30), "--boxes")
    with pytest.raises(InputError, match="--points 30,0: not in the image, which is 30 px wide and 20 px high"):
        check_inside(np.array([(3.0, 3), (30, 0)]), (20, 30), "--points")
