"""Bare HDF5: one 4-D dataset (y, x, qy, qx), or 3-D stacks of frames as Dectris detectors write them.

The file is opened anew for every tile. That costs 0.3 ms, and in return a scan has no handle to share between
threads, to pickle, to inherit across a fork, or to run out of when a series has hundreds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (importing it registers bitshuffle, blosc, zstd, … with HDF5)
import numpy as np

from stemtomo_dl.errors import BadScan
from stemtomo_dl.records import Tile
from stemtomo_dl.store.scans import chunks, layout, lz4

NAMED = 6  # candidates named in a message
Found = dict[str, h5py.Dataset]  # by the path that leads to each
DECTRIS = "entry/instrument/detector/detectorSpecific"


@dataclass
class HdfScan:
    """A scan in an HDF5 file: one 4-D dataset, or 3-D ones that follow each other."""

    name: str
    path: Path
    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    datasets: tuple[str, ...]
    lengths: tuple[int, ...]  # along the first axis of each dataset
    chunk: tuple[int, int]  # along (y, x)
    fold: layout.Fold | None = None  # None for a 4-D dataset

    @property
    def flyback(self) -> int:
        """Frames at the end of every scan line that belong to no probe position."""
        return self.fold.flyback if self.fold else 0

    @property
    def guessed(self) -> bool:
        """Whether nothing says how many rows and columns the scan has."""
        return self.fold is not None and self.fold.guessed

    @property
    def companions(self) -> list[Path]:
        """Files beside this one that hold its patterns: those it links to, virtual sources and raw data."""
        found: dict[Path, None] = {}
        seen: set[tuple[Path, str]] = set()
        with _opened(self.path) as file:
            for name in self.datasets:
                _collect(file[name], found, seen)
        return sorted(p for p in found if p.resolve() != self.path.resolve())

    def tiles(self, budget: int) -> list[Tile]:
        """Tiles of at most ``budget`` bytes along chunk boundaries, so that each chunk is decoded once."""
        return layout.tiles(self.shape, self.dtype.itemsize, budget, self.chunk)

    def read(self, tile: Tile) -> np.ndarray:
        """Patterns of a tile, (y, x, qy, qx), in native byte order.

        Raises
        ------
        BadScan
            If the file is gone, truncated, or a chunk cannot be decoded.
        """
        try:
            with _opened(self.path) as file:
                if self.fold is None:
                    data = _checked(file[self.datasets[0]], tile.window)
                else:
                    data = self._stacked(file, tile, self.fold)
        except (OSError, RuntimeError, KeyError, ValueError) as e:
            raise BadScan(
                f"{self.path}: rows {tile.y0}–{tile.y1 - 1}, columns {tile.x0}–{tile.x1 - 1} cannot be decoded "
                f"({layout.first_line(e)}); copy the file again or leave the tilt out"
            ) from e
        return np.asarray(data, self.dtype)

    def _stacked(self, file: h5py.File, tile: Tile, fold: layout.Fold) -> np.ndarray:
        out = np.empty((*tile.shape, *self.shape[2:]), self.dtype)
        flat = out.reshape(-1, *self.shape[2:])
        ends = np.cumsum(self.lengths)
        at = 0
        for a, b in fold.runs(tile):
            while a < b:
                i = int(np.searchsorted(ends, a, "right"))
                start, stop = int(ends[i]) - self.lengths[i], min(b, int(ends[i]))
                flat[at : at + stop - a] = _checked(file[self.datasets[i]], (slice(a - start, stop - start),))
                at, a = at + stop - a, stop
        return out


def _checked(dataset: h5py.Dataset, window: tuple[slice, ...]) -> np.ndarray:
    """Read a window of a dataset whose chunks are looked through first if its decoder would trust them.

    Data that lie in the file as they are get mapped, so that only patterns that are looked at are read; plain chunks
    are read past HDF5.
    """
    if dataset.is_virtual:
        return np.asarray(dataset[window])
    if (at := dataset.id.get_offset()) is not None and not dataset.external:
        return np.asarray(np.memmap(dataset.file.filename, dataset.dtype, "r", at, dataset.shape)[window])
    if lz4.applies(dataset):
        return lz4.read(dataset, window)
    if chunks.applies(dataset):
        return chunks.read(dataset, window)
    return np.asarray(dataset[window])


def open_hdf5(path: Path, dataset: str | None, shape: tuple[int, int] | None) -> HdfScan:
    """Open an HDF5 file by its metadata.

    Parameters
    ----------
    path : Path
    dataset : str or None
        A 4-D dataset, a 3-D stack of frames, or a group of stacks. By default the one 4-D dataset in the file,
        else the stacks of the one group that has any.
    shape : (int, int) or None
        Rows and columns of the scan, needed for stacks that are not a square scan.

    Raises
    ------
    BadScan
        If the file is missing, truncated, incomplete, or it is not clear which dataset is the scan.
    """
    layout.file_size(path)
    try:
        with _opened(path) as file:
            chosen = _choose(path, file, dataset)
            for d in chosen.values():
                _check_complete(path, d)
            return _scan(path, file, chosen, shape)
    except (OSError, RuntimeError) as e:
        raise BadScan(
            f"{path}: not a whole HDF5 file ({layout.first_line(e)}); copy the file again or leave the tilt out"
        ) from e


def holds_one_scan(path: Path) -> bool:
    """Whether a file has one 4-D dataset, its scan axes first as far as HyperSpy's metadata say.

    True also of a damaged file, so that opening it here says what is wrong with it.
    """
    try:
        with _opened(path) as file:
            four = [d for _, d in _datasets(file, "", set(), []) if d.ndim == 4]
            if len(four) != 1:
                return False
            axes = [four[0].parent.get(f"axis-{i}") for i in range(4)]
            flags = [bool(a.attrs.get("navigate", i < 2)) for i, a in enumerate(axes) if a is not None]
            return flags in ([], [True, True, False, False])
    except (OSError, RuntimeError):
        return True


def _opened(path: Path) -> h5py.File:
    # Without HDF5's own file locks: they fail on read-only and network disks, and nothing writes here.
    return h5py.File(path, "r", locking=False)


def _scan(path: Path, file: h5py.File, chosen: Found, shape: tuple[int, int] | None) -> HdfScan:
    names, (first, *others) = tuple(chosen), chosen.values()
    dtype = layout.check_values(path, first.dtype, first.shape)
    lengths = tuple(d.shape[0] for d in chosen.values())
    if first.ndim == 4:
        layout.check_shape(path, first.shape, shape)
        chunk = first.chunks[:2] if first.chunks else (1, 1)
        return HdfScan(path.name, path, first.shape, dtype, names, lengths, chunk)
    if any(d.shape[1:] != first.shape[1:] or d.dtype != first.dtype for d in others):
        raise BadScan(f"{path}: stacks differ in shape or type ({_names(chosen)}); name one with dataset in [scans]")
    frames = sum(lengths)
    fold = layout.fold(path, frames, shape, _frames_per_trigger(file, frames), flyback=True)
    length = first.chunks[0] if first.chunks else 1
    if length % fold.cols == 0 and not fold.flyback:
        chunk = (length // fold.cols, fold.cols)
    else:
        chunk = (1, length if fold.cols % length == 0 else fold.cols)
    return HdfScan(path.name, path, (fold.rows, fold.cols, *first.shape[1:]), dtype, names, lengths, chunk, fold)


def _choose(path: Path, file: h5py.File, dataset: str | None) -> Found:
    """The datasets that are the scan."""
    broken: list[str] = []
    found = {k: d for k, d in _datasets(file, "", set(), broken) if d.ndim in (3, 4)}
    if dataset is not None:
        return _named(path, file, dataset, found)
    four = {k: d for k, d in found.items() if d.ndim == 4}
    if len(four) == 1:
        return four
    if len(four) > 1:
        raise BadScan(f"{path}: holds several 4-D datasets ({_names(four)}); name one with dataset in [scans]")
    if broken:
        raise BadScan(f"{path}: links to {broken[0]}, which cannot be read; put that file beside it")
    groups = {k.rpartition("/")[0] for k in found}
    if len(groups) == 1:
        return _in_order(found)
    if groups:
        raise BadScan(f"{path}: holds several stacks of frames ({_names(found)}); name one with dataset in [scans]")
    raise BadScan(f"{path}: holds no 4-D dataset; correct [scans] files or leave the tilt out")


def _named(path: Path, file: h5py.File, dataset: str, found: Found) -> Found:
    try:
        item = file.get(dataset)
    except (KeyError, OSError):  # a link to a file that is not there
        item = None
    name = "/" + dataset.strip("/")
    if isinstance(item, h5py.Group):
        inside = {k: d for k, d in found.items() if d.ndim == 3 and k.rpartition("/")[0] == name.rstrip("/")}
        if inside:
            return _in_order(inside)
    elif isinstance(item, h5py.Dataset):
        if item.ndim in (3, 4):
            return {name: item}
        raise BadScan(f"{path}: dataset '{dataset}' has {item.ndim} axes {item.shape}; a scan has 4 (y, x, qy, qx)")
    has = f"it holds {_names(found)}" if found else "it holds no scan"
    raise BadScan(f"{path}: no dataset '{dataset}'; {has}: correct dataset in [scans]")


def _in_order(found: Found) -> Found:
    return {k: found[k] for k in sorted(found, key=layout.natural)}


def _names(found: Found) -> str:
    return ", ".join([*found][:NAMED]) + (", …" if len(found) > NAMED else "")


def _datasets(group: h5py.Group, at: str, seen: set[Any], broken: list[str]) -> Iterator[tuple[str, h5py.Dataset]]:
    """Numeric datasets below a group, each once, by the path that led to it through links of every kind.

    Links that lead nowhere are noted in ``broken``.
    """
    for key in group:
        try:
            item = group[key]
        except (KeyError, OSError):
            link = group.get(key, getlink=True)
            broken.append(str(getattr(link, "filename", None) or getattr(link, "path", key)))
            continue
        info = h5py.h5o.get_info(item.id)
        if (info.fileno, info.addr) in seen:
            continue
        seen.add((info.fileno, info.addr))
        if isinstance(item, h5py.Group):
            yield from _datasets(item, f"{at}/{key}", seen, broken)
        elif isinstance(item, h5py.Dataset) and item.dtype.kind in "uifbc":
            yield f"{at}/{key}", item


def _check_complete(path: Path, d: h5py.Dataset) -> None:
    """Raise `BadScan` where HDF5 would hand out zeros for data that were never written or lie elsewhere."""
    folder = Path(d.file.filename).parent
    if d.is_virtual:
        for name, inside in sorted({(s.file_name, s.dset_name) for s in d.virtual_sources()}):
            if name != "." and "%" not in name:
                _check_source(path, folder / name, inside)
        return
    if d.external:
        have, want = sum(_size(folder / name) for name, _, _ in d.external), d.size * d.dtype.itemsize
        what = "bytes in its external files"
    elif d.chunks:
        have, want = d.id.get_num_chunks(), prod(ceil(n / c) for n, c in zip(d.shape, d.chunks, strict=True))
        what = "chunks"
    else:
        have, want, what = d.id.get_storage_size(), d.size * d.dtype.itemsize, "bytes"
    if have < want:
        raise BadScan(f"{path}: incomplete: {have} of {want} {what}; copy the file again or leave the tilt out")


def _collect(d: h5py.Dataset, found: dict[Path, None], seen: set[tuple[Path, str]]) -> None:
    """Note the files that a dataset's values come from."""
    path = Path(d.file.filename)
    if (path, d.name) in seen:
        return
    seen.add((path, d.name))
    found[path] = None
    if d.external:
        found.update((path.parent / name, None) for name, _, _ in d.external)
    for name, inside in sorted({(s.file_name, s.dset_name) for s in d.virtual_sources()}) if d.is_virtual else []:
        like = path.name if name == "." else re.sub(r"%\d*b", "*", name)  # %b counts files that belong together
        for source in sorted(path.parent.glob(like)) if "*" in like else [path.parent / like]:
            with _opened(source) as file:
                if isinstance(item := file.get(inside), h5py.Dataset):
                    _collect(item, found, seen)


def _check_source(path: Path, source: Path, inside: str) -> None:
    try:
        with _opened(source) as file:
            if inside in file:
                return
    except OSError:
        pass
    raise BadScan(f"{path}: takes data from {source.name}, which is missing or damaged; put it beside the file")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _frames_per_trigger(file: h5py.File, frames: int) -> int | None:
    """Frames per scan line, where a Dectris file says that every line had its trigger."""
    group = file.get(DECTRIS)
    if not isinstance(group, h5py.Group) or "nimages" not in group or "ntrigger" not in group:
        return None
    lines, each = int(group["ntrigger"][()]), int(group["nimages"][()])
    return each if lines > 1 and each > 1 and lines * each == frames else None
