"""The rooms of facts are found in a clone and in a wheel."""

import pytest

from stemtomo_dl import resources
from stemtomo_dl.errors import InputError


def test_clone_has_the_rooms():
    assert (resources.synthetic() / "scenes" / "demo.toml").is_file()
    assert (resources.models() / "registry.toml").is_file()


def test_a_wheels_own_room_comes_first(tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    monkeypatch.setattr(resources, "_PACKAGE", package)
    with pytest.raises(InputError, match="synthetic"):
        resources.synthetic()
    (tmp_path / "data/synthetic").mkdir(parents=True)
    assert resources.synthetic() == tmp_path / "data/synthetic"
    (package / "_share/data/synthetic").mkdir(parents=True)
    assert resources.synthetic() == package / "_share/data/synthetic"
