"""Merlin/Medipix .mib files: a text header before each frame, big-endian counts, rows from the bottom up.

Assembled frames ('U08', 'U16', 'U32') are read and byte-swapped batch by batch. Raw frames ('R64') of
1, 6 or 12 bits hold the pixels of each 64-bit word in reverse; those of a 2 × 2 assembly hold the chips side
by side, which are put where they belong (the lower two turned by 180°).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from stemtomo_dl.errors import BadScan
from stemtomo_dl.records import Tile
from stemtomo_dl.store.scans import layout

ASSEMBLED = {"U08": ">u1", "U16": ">u2", "U32": ">u4"}
BATCH = 2 << 20  # bytes read at once: small enough to be swapped while still in the cache, twice as fast as mapping
RAW = {1: ("u1", 64), 6: ("u1", 8), 12: (">u2", 4)}  # stored type, pixels per 64-bit word


@dataclass(frozen=True)
class Frame:
    """How one frame lies in the file."""

    header: int  # bytes
    rows: int
    cols: int
    stored: np.dtype[Any]
    raw_bits: int = 0  # 0 for assembled frames
    quad: bool = False

    @property
    def record(self) -> np.dtype[Any]:
        """Header and pixels as one structured dtype."""
        cols = self.cols // 8 if self.raw_bits == 1 else self.cols
        return np.dtype([("header", f"V{self.header}"), ("data", self.stored, (self.rows, cols))])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the pattern it becomes."""
        return (self.rows * 2, self.cols // 2) if self.raw_bits and self.quad else (self.rows, self.cols)


@dataclass
class MibScan:
    """A scan in a .mib file."""

    name: str
    path: Path
    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    frame: Frame
    fold: layout.Fold

    @property
    def flyback(self) -> int:
        """Frames at the end of every scan line that belong to no probe position."""
        return self.fold.flyback

    @property
    def guessed(self) -> bool:
        """Whether nothing says how many rows and columns the scan has."""
        return self.fold.guessed

    @property
    def companions(self) -> list[Path]:
        """Files beside this one that tell how to read it."""
        hdr = self.path.with_suffix(".hdr")
        return [hdr] if hdr.exists() else []

    def tiles(self, budget: int) -> list[Tile]:
        """Tiles of whole rows, or parts of rows, of at most ``budget`` bytes."""
        return layout.tiles(self.shape, self.dtype.itemsize, budget)

    def read(self, tile: Tile) -> np.ndarray:
        """Patterns of a tile, (y, x, qy, qx), in native byte order.

        Raises
        ------
        BadScan
            If the file is gone or has become shorter.
        """
        out = np.empty((*tile.shape, *self.shape[2:]), self.dtype)
        patterns, at = out.reshape(-1, *self.shape[2:]), 0
        batch = np.empty(max(1, BATCH // self.frame.record.itemsize), self.frame.record)
        try:
            with open(self.path, "rb") as file:
                for first, end in self.fold.runs(tile):
                    file.seek(first * batch.itemsize)
                    for start in range(first, end, len(batch)):
                        part = batch[: end - start]
                        if file.readinto(part.view("u1").data) < part.nbytes:
                            raise BadScan(f"{self.path}: truncated since it was opened; copy it again or leave it out")
                        data = _assemble(part["data"], self.frame)
                        np.copyto(patterns[at : at + len(part)], data[:, ::-1])  # flip, swap and copy in one pass
                        at += len(part)
        except OSError as e:
            raise BadScan(f"{self.path}: cannot be read ({e.strerror}); leave the tilt out") from e
        return out


def open_mib(path: Path, shape: tuple[int, int] | None) -> MibScan:
    """Open a .mib file by its first header, its size and the .hdr file beside it.

    The scan's shape is ``shape``; or the frames per trigger in the .hdr file; or what pauses between the time
    stamps of the first frames say; or a square.

    Raises
    ------
    BadScan
        If the file is truncated, is no .mib file, or its frames do not fold to a scan.
    """
    size = layout.file_size(path)
    try:
        with open(path, "rb") as f:
            head = f.read(4096)
    except OSError as e:
        raise BadScan(f"{path}: cannot be read ({e.strerror}); leave the tilt out") from e
    frame = parse_header(path, head)
    bytes_each = frame.record.itemsize
    frames, rest = divmod(size, bytes_each)
    hdr = read_hdr(path.with_suffix(".hdr"))
    stated = hdr.get("Frames in Acquisition", 0)
    if rest or frames < stated:
        of = f" of {stated}" if stated else ""
        raise BadScan(
            f"{path}: truncated: {size} bytes are {size / bytes_each:.2f} frames{of}; "
            "copy the file again or leave the tilt out"
        )
    line = hdr.get("Frames per Trigger", 0)
    if line == frames:
        line = 0  # one trigger for the whole acquisition says nothing about its lines
    if line <= 1 and shape is None:
        line = _line_from_times(path, frame, frames)
    folded = layout.fold(path, frames, shape, line or None, flyback=True)
    if shape is not None and line > 1 and folded.stride != line:
        raise BadScan(
            f"{path}: shape = [{folded.rows}, {folded.cols}] makes lines of {folded.stride} frames, but the .hdr file "
            f"states {line} a trigger; correct shape in [scans], or remove the .hdr file if it is wrong"
        )
    qy, qx = frame.shape
    return MibScan(path.name, path, (folded.rows, folded.cols, qy, qx), frame.stored.newbyteorder("="), frame, folded)


def parse_header(path: Path, head: bytes) -> Frame:
    """Layout of the frames from the first header: id, number, bytes, chips, columns, rows, type, assembly, …"""
    text = head.decode("latin-1").split(",")
    try:
        if text[0] != "MQ1":
            raise ValueError(f"starts with {text[0][:8]!r}")
        size, cols, rows, kind = int(text[2]), int(text[4]), int(text[5]), text[6]
        if kind in ASSEMBLED:
            return Frame(size, rows, cols, np.dtype(ASSEMBLED[kind]))
        tail = head[:size].decode("latin-1").split(",")
        bits = int(tail[tail.index("MQ1A") + 3])
    except (ValueError, IndexError) as e:
        raise BadScan(f"{path}: not a .mib file ({e}); correct [scans] files or leave the tilt out") from e
    if kind != "R64" or bits not in RAW or text[7].strip() not in ("1x1", "2x2"):
        raise BadScan(
            f"{path}: frames of type {kind}, {bits} bits, {text[7].strip()} chips cannot be read; export them assembled"
        )
    return Frame(size, rows, cols, np.dtype(RAW[bits][0]), bits, text[7].strip() == "2x2")


def read_hdr(path: Path) -> dict[str, int]:
    """Whole numbers in the .hdr file, by key without its bracketed part; empty where there is no file."""
    try:
        lines = path.read_text(encoding="latin-1").splitlines()
    except OSError:
        return {}
    pairs = (line.partition("\t")[::2] for line in lines)
    return {k.partition("(")[0].strip(" :"): int(v) for k, v in pairs if v.strip().isdigit()}


def _assemble(data: np.ndarray, frame: Frame) -> np.ndarray:
    """Stored pixels (frame, row, stored column) as patterns (frame, qy, qx), rows still from the bottom up."""
    if not frame.raw_bits:
        return data
    n, rows = data.shape[:2]
    if frame.raw_bits == 1:
        data = np.unpackbits(data.reshape(n, rows, -1, 8)[..., ::-1], axis=-1, bitorder="little")
    else:
        data = data.reshape(n, rows, -1, RAW[frame.raw_bits][1])[..., ::-1]
    data = data.reshape(n, rows, -1)
    if not frame.quad:
        return data
    c4, c3, c2, c1 = np.split(data, 4, axis=2)
    top = np.concatenate([c1, c2], 2)
    bottom = np.concatenate([c3[:, ::-1, ::-1], c4[:, ::-1, ::-1]], 2)
    return np.concatenate([top, bottom], 1)


def _line_from_times(path: Path, frame: Frame, frames: int) -> int:
    """Frames per line, where the time stamps show a pause after every line and nowhere else; else 0.

    Only the first headers are looked at: enough for lines up to four times as long as those of a square scan.
    """
    n = min(frames, 4 * int(frames**0.5) + 2)
    headers = np.memmap(path, frame.record, "r", 0, (n,))["header"]
    try:
        times = [_nanoseconds(h.tobytes()) for h in headers]
    except (ValueError, IndexError):
        return 0
    gaps = np.diff(np.array(times, np.int64))
    if len(gaps) < 2:
        return 0
    middle = np.median(gaps)
    jitter = np.median(np.abs(gaps - middle))
    pauses = np.flatnonzero(gaps - middle > max(10 * jitter, 1e-4 * middle)) + 1
    if len(pauses) == 0 or (pauses != pauses[0] * np.arange(1, len(pauses) + 1)).any():
        return 0
    line = int(pauses[0])
    return line if frames % line == 0 and len(pauses) == (n - 1) // line else 0


def _nanoseconds(header: bytes) -> int:
    """Time of a frame: its time stamp in UTC, which has nine decimals."""
    text = header.decode("latin-1").split(",")
    stamp, _, decimals = text[text.index("MQ1A") + 1].rstrip("Z").partition(".")
    return int(datetime.fromisoformat(stamp + "+00:00").timestamp()) * 10**9 + int(decimals.ljust(9, "0")[:9])
