"""The registry of weights, models/registry.toml, and where on this computer they lie.

Small weights come with the package; others are fetched once into ``weights`` under the user's cache folder, or under
``$STEMTOMO_CACHE``. No file is used whose SHA-256 is not the registry's, however it came there.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, model_validator

from stemtomo_dl import resources
from stemtomo_dl.config import Count, Finite, Model, load
from stemtomo_dl.errors import InputError

Place = Literal["shipped", "cached", "absent", "damaged"]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Text = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\n]+$")]  # one line
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.-]*\.(safetensors|pth|onnx)$")]


class Entry(Model):
    """One set of weights."""

    purpose: Text
    file: FileName | None = None  # in models/, shipped
    url: Annotated[str, StringConstraints(pattern=r"^https://")] | None = None  # or fetched from there
    cached: FileName | None = None  # its name in the cache, where the URL's end would say too little
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    size: Count  # bytes
    licence: Text  # as SPDX calls it
    data: Text  # what it was trained on
    recipe: Annotated[str, StringConstraints(pattern=r"^[\w-]+\.toml$")] | None = None  # in training/recipes
    metrics: dict[str, Finite] = {}  # on what, the card says

    @model_validator(mode="after")
    def _one_source(self) -> Entry:
        if (self.file is None) == (self.url is None):
            raise ValueError("give file, of weights in models/, or url, of weights to fetch, and not both")
        if self.file and self.cached:
            raise ValueError(f"cached: {self.file} is shipped and never lies in the cache; remove the key")
        if not self.file_name.endswith((".safetensors", ".pth", ".onnx")):
            raise ValueError(f"{self.url}: must end in the name of a .safetensors, .pth or .onnx file, or give cached")
        return self

    @property
    def file_name(self) -> str:
        """Name of the file in models/, or in the cache and in a mirror."""
        return self.file or self.cached or PurePosixPath(urlsplit(self.url or "").path).name

    @property
    def path(self) -> Path:
        """Where the file is, or would be once it is fetched."""
        return (resources.models() if self.file else cache_folder()) / self.file_name


class _Registry(Model):
    model: Annotated[dict[Name, Entry], Field(min_length=1)]


def cache_folder() -> Path:
    """Folder of fetched weights; it may not exist yet."""
    import pooch

    chosen = os.environ.get("STEMTOMO_CACHE")
    return (Path(chosen).expanduser() if chosen else Path(pooch.os_cache("stemtomo"))) / "weights"


def entries() -> dict[str, Entry]:
    """The registry, by name.

    Raises
    ------
    InputError
        If the registry is missing or wrong.
    """
    return load(_Registry, resources.models() / "registry.toml").model


def find(name: str) -> Entry:
    """One entry of the registry.

    Raises
    ------
    InputError
        If there is none of this name.
    """
    known = entries()
    if name not in known:
        raise InputError(f"weights '{name}': not in the registry; choose one of {', '.join(known)}")
    return known[name]


def place(entry: Entry) -> Place:
    """Where an entry's file lies, judged by its size alone, which is at once; `locate` verifies."""
    try:
        size = entry.path.stat().st_size
    except OSError:
        return "absent"
    if size != entry.size:
        return "damaged"
    return "shipped" if entry.file else "cached"


def locate(name: str) -> Path:
    """Path of an entry's file on this computer, verified; nothing is fetched.

    Raises
    ------
    InputError
        If the name is not known, the file is not there, or it is not the file that the registry describes.
    """
    entry = find(name)
    remedy = "reinstall the package" if entry.file else f"run 'stemtomo weights fetch {name}'"
    if place(entry) == "absent":
        raise InputError(f"weights '{name}': not at {entry.path}; {remedy}")
    if not is_whole(entry):
        raise InputError(f"weights '{name}': {entry.path} is damaged, or another file; {remedy}")
    return entry.path


def is_whole(entry: Entry) -> bool:
    """Whether the file is there and has the registry's SHA-256.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    import pooch

    if place(entry) not in ("shipped", "cached"):
        return False
    try:
        return bool(pooch.file_hash(str(entry.path), alg="sha256") == entry.sha256)
    except OSError as e:
        raise InputError(f"{entry.path}: cannot be read ({e.strerror}); make it readable, or remove it") from e


def sha256(path: Path) -> str:
    """SHA-256 of a file of weights.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    import pooch

    try:
        return str(pooch.file_hash(str(path), alg="sha256"))
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror}); give the path of a file of weights") from e
