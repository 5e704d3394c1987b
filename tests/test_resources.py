"""The rooms of facts are found in a clone and in a wheel."""

import pytest

from stemtomo_dl import resources
from stemtomo_dl.errors import InputError


def test_clone_has_the_rooms():
    assert (resources.synthetic() / "scenes" / "demo.toml").is_file()
    assert resources.training().name == "training"
    assert resources.models().name == "models"


def test_a_wheels_own_rooms_come_first(tmp_path, monkeypatch):
    package = tmp_path / "package"
    (tmp_path / "models").mkdir()
    package.mkdir()
    monkeypatch.setattr(resources, "_PACKAGE", package)
    assert resources.models() == tmp_path / "models"
    (package / "_share" / "models").mkdir(parents=True)
    assert resources.models() == package / "_share" / "models"
    with pytest.raises(InputError, match="training"):
        resources.training()
