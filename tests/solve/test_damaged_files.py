"""Files of reflections that are damaged, or of another kind, are refused; what is taken for granted is said."""

import pytest
from solve.test_hkl_forms import END, HKL, read

from stemtomo_dl.errors import InputError
from stemtomo_dl.store.intensities import read_intensities

LINE = "{:4d}{:4d}{:4d}{:8.2f}{:8.2f}\n"
WIDE = "{:4d}{:4d}{:4d}{:12.2f}{:12.2f}\n"
CELL = "CELL 0.0251 5 6 7 90 90 90\nLATT 1\nSFAC Ti O\n"


def lines(form=LINE, sigma=5.0):
    return [form.format(*h, 100.0 + i, sigma) for i, h in enumerate(HKL)]


@pytest.mark.parametrize("form", [LINE, WIDE])
@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("   1   2   3********    5.00\n", "asterisks"),
        ("   1   2   3     nan    5.00\n", "line 8 is not"),
        ("   1   2   3  100.00     inf\n", "line 8 is not"),
        ("   1   2   3      100.00\n", "line 8 is not"),
        ("   1   2 x 3  100.00    5.00\n", "line 8 is not"),
        ("\n", "an empty line, with reflections after it"),
    ],
)
def test_a_damaged_line_is_named_and_what_follows_is_not_dropped(tmp_path, form, broken, said):
    whole = lines(form)
    with pytest.raises(InputError, match="line 8 is not HKLF 4") as told:
        read(tmp_path, [*whole[:7], broken, *whole[7:], END])
    assert said in str(told.value)


@pytest.mark.parametrize("form", [LINE, WIDE])
def test_a_last_line_that_is_cut_is_named(tmp_path, form):
    whole = lines(form)
    with pytest.raises(InputError, match=f"line {len(whole)}, the last, is cut short"):
        read(tmp_path, [*whole[:-1], whole[-1][:-3]])
    assert len(read(tmp_path, [*whole[:-1], whole[-1].rstrip("\n")]).hkl) == len(HKL)  # no line end at the end is sound


def test_empty_lines_and_remarks_may_follow_the_last_reflection(tmp_path):
    assert len(read(tmp_path, [*lines(), END, "\n", "remark 1 2 3\n"]).hkl) == len(HKL)
    assert len(read(tmp_path, [*lines(), "\n", "\n"]).hkl) == len(HKL)


@pytest.mark.parametrize(
    ("instruction", "said"),
    [
        ("HKLF 5\n", "HKLF 5 is not read; write HKLF 4"),
        ("HKLF 4 1 0 1 0 1 0 0 0 0 -1\n", "HKLF 4 with a matrix is not read"),
        ("UNIT a b\n", "an instruction is not SHELX's"),
    ],
)
def test_other_forms_of_the_instruction_file_are_refused(tmp_path, instruction, said):
    with pytest.raises(InputError, match=said):
        read(tmp_path, [*lines(), END], CELL + instruction)
    assert len(read(tmp_path, [*lines(), END], CELL + "HKLF 4 1 1 0 0 0 1 0 0 0 1\nEND\n").hkl) == len(HKL)


@pytest.mark.parametrize("sigma", [0.0, -1.0])
def test_deviations_of_nothing_are_replaced_and_that_is_said(tmp_path, sigma):
    data = read(tmp_path, lines(sigma=sigma))
    assert (data.sigma > 0).all()
    assert data.notes[0].startswith(f"{len(HKL)} reflections have no σ above 0")
    assert not any("σ" in note for note in read(tmp_path, lines()).notes)


@pytest.mark.parametrize(("value", "rows"), [("?", len(HKL) - 1), ("12x", None), ("inf", None)])
def test_a_reflection_of_a_cif_is_unknown_or_read_or_refused(tmp_path, value, rows):
    head = "data_a\n" + "".join(f"_cell_length_{a} 5\n" for a in "abc")
    head += "".join(f"_cell_angle_{a} 90\n" for a in ("alpha", "beta", "gamma")) + "loop_\n"
    names = ["index_h", "index_k", "index_l", "intensity_meas", "intensity_sigma"]
    body = [f"{h} {k} {m} {value if i == 3 else 7} 1\n" for i, (h, k, m) in enumerate(HKL)]
    path = tmp_path / "a.cif_pets"
    path.write_text(head + "".join(f"_refln_{n}\n" for n in names) + "".join(body))
    if rows is None:
        with pytest.raises(InputError, match="is no reflection h k l I σ"):
            read_intensities(path, elements="Ti,O")
    else:
        assert len(read_intensities(path, elements="Ti,O").hkl) == rows


def test_a_lattice_is_no_space_group_unless_asked_for(tmp_path):
    data = read(tmp_path, lines(), CELL.replace("LATT 1", "LATT -2"))
    assert data.operations is None
    assert "the group was looked for" in data.notes[0]
    kept = read_intensities(tmp_path / "a.hkl", space_group="P 1")
    assert kept.operations == ("x,y,z",)
    chiral = read(tmp_path, lines(), CELL.replace("LATT 1", "LATT -1\nSYMM -X,-Y,Z"))
    assert len(chiral.operations) == 2


def test_folders_that_cannot_be_written_are_noticed_before_anything_is_read(tmp_path, complaint):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file/below"):
        said = complaint("phase", str(tmp_path / "missing.hkl"), "-o", str(folder))
        assert f"{folder}: cannot be written to" in said
    assert "missing.hkl: cannot be read" in complaint(
        "phase", str(tmp_path / "missing.hkl"), "-o", str(tmp_path / "a/b")
    )
    assert not (tmp_path / "a").exists()


def test_what_the_system_refuses_is_one_line(tmp_path, complaint, monkeypatch):
    from stemtomo_dl import structures

    def refuse(*_args, **_options):
        raise OSError(5, "Input/output error", "disk/a.hkl")

    monkeypatch.setattr(structures, "phase", refuse)
    assert "disk/a.hkl: Input/output error" in complaint("phase", "a.hkl", "-o", str(tmp_path / "out"))


def test_known_phases_may_be_a_folder(tmp_path, monkeypatch, complaint):
    from stemtomo_dl import cli_solve

    for name in ("b.cif", "a.cif", "c.txt"):
        (tmp_path / name).write_text("")
    assert cli_solve._cifs([tmp_path, tmp_path / "c.txt"]) == [tmp_path / n for n in ("a.cif", "b.cif", "c.txt")]
    (tmp_path / "empty").mkdir()
    assert "holds no .cif" in complaint("phase", "a.hkl", "-o", "out", "--known", str(tmp_path / "empty"))
