"""Single images of any kind: what `predict` outlines, and what people have drawn outlines in.

TIFF is read by tifffile, and by Pillow where tifffile cannot; PNG, JPEG and the like by Pillow; ``.npy`` by NumPy;
everything else by RosettaSciIO, which is an optional extra. Values are kept as they are; colours become grey.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stemtomo_dl.errors import InputError
from stemtomo_dl.store.scans.rosetta import read_signals

PLAIN = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".pgm", ".pnm", ".ppm")
TIFF = (".tif", ".tiff")
LUMA = np.array([0.299, 0.587, 0.114])  # weights of red, green and blue in grey, ITU-R BT.601
_MODES = {"P": "RGB", "PA": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "LAB": "RGB", "HSV": "RGB", "1": "L", "RGBX": "RGB"}


def read_picture(path: Path) -> np.ndarray:
    """One image as grey values.

    Parameters
    ----------
    path : Path

    Returns
    -------
    (y, x) f4 array
        In the file's own units. Colours are weighted as ITU-R BT.601 does; transparency is left out.

    Raises
    ------
    InputError
        If the file is missing, damaged, of an unknown kind, or does not hold exactly one image.
    """
    pixels = read_pixels(path)
    if pixels.ndim == 3 and pixels.shape[2] in (1, 2):  # grey, and how opaque it is
        pixels = pixels[..., 0]
    if pixels.ndim == 3:
        pixels = pixels[..., :3] @ LUMA
    if np.iscomplexobj(pixels) or pixels.dtype.kind not in "buif":
        raise InputError(f"{path}: its values are of type {pixels.dtype}, not brightness; save an intensity image")
    values = np.asarray(pixels, np.float32)
    if not np.isfinite(values).any():
        raise InputError(f"{path}: has no pixel with a number; save it again")
    return values


def read_pixels(path: Path, palette: bool = False) -> np.ndarray:
    """One image as it is stored: (y, x), or (y, x, colour) with up to four colours.

    Parameters
    ----------
    path : Path
    palette : bool
        Give an indexed image's numbers, not the colours that they stand for.

    Raises
    ------
    InputError
        If the file is missing, damaged, of an unknown kind, or does not hold exactly one image.
    """
    if not path.is_file() and path.suffix.lower() != ".zspy":  # which is a folder
        raise InputError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}; give the path of an image")
    suffix = path.suffix.lower()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on metadata that nothing here uses
            pixels = _tiff(path, palette) if suffix in TIFF else _other(path, suffix, palette)
    except InputError:
        raise
    except Exception as e:  # whatever a format's reader raises on a damaged file
        why = (str(e).splitlines() or [type(e).__name__])[0]
        raise InputError(f"{path}: cannot be read as an image ({why}); save it again, as .tif or .png") from e
    pixels = pixels[0] if pixels.ndim == 3 and pixels.shape[0] == 1 and pixels.shape[2] > 4 else pixels
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] > 4):
        raise InputError(f"{path}: holds an array of {pixels.shape}, not one image; save the image alone")
    if 0 in pixels.shape:
        raise InputError(f"{path}: its image has no pixels; save it again")
    return pixels


def _other(path: Path, suffix: str, palette: bool) -> np.ndarray:
    if suffix in PLAIN:
        return _pillow(path, palette)
    if suffix == ".npy":
        return np.asarray(np.load(path, allow_pickle=False))
    signals = read_signals(path, unknown="convert it to .tif or .png", damaged="save it again, as .tif or .png")
    images = [a for s in signals if (a := _image(s["data"])) is not None]
    if len(images) != 1:
        raise InputError(f"{path}: holds {len(images)} images, and one is needed; save it alone")
    return images[0]


def _image(data: Any) -> np.ndarray | None:
    """A signal as one image; None if it is something else: a spectrum, a stack."""
    if len([n for n in data.shape if n > 1]) > 2 or len(data.shape) < 2:
        return None
    pixels = np.asarray(data)
    pixels = pixels.reshape(pixels.shape[-2:] if 1 not in pixels.shape[-2:] else [n for n in pixels.shape if n > 1])
    return np.stack([pixels[k] for k in pixels.dtype.names], -1) if pixels.dtype.names else pixels


def _tiff(path: Path, palette: bool) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(path) as file:
        _one(path, len(file.pages))
        page = file.pages.first
        known = page.photometric in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
        if known or (palette and page.photometric == tifffile.PHOTOMETRIC.PALETTE):
            try:
                pixels = np.asarray(page.asarray())
            except (ValueError, KeyError, RuntimeError):  # a compression that it has no codec for
                return _pillow(path, palette)
            planar = pixels.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
            return np.moveaxis(pixels, 0, -1) if planar else pixels
    return _pillow(path, palette)


def _pillow(path: Path, palette: bool) -> np.ndarray:
    from PIL import Image

    Image.MAX_IMAGE_PIXELS, limit = None, Image.MAX_IMAGE_PIXELS  # micrographs are larger than photographs
    try:
        with Image.open(path) as image:
            _one(path, getattr(image, "n_frames", 1))
            indexed = palette and image.mode in ("P", "1")
            return np.array(image if indexed else image.convert(_MODES.get(image.mode, image.mode)))
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _one(path: Path, n: int) -> None:
    if n != 1:
        raise InputError(f"{path}: holds a stack of {n} images; save each as a file of its own")


def picture_names(paths: Sequence[Path]) -> list[str]:
    """Names for the outcome of several images: their own without the suffix.

    Raises
    ------
    InputError
        If two images have one name.
    """
    first: dict[str, Path] = {}
    for path in paths:
        if first.setdefault(path.stem, path) != path:
            raise InputError(f"{path}: has the name of {first[path.stem]}; their outcomes need a folder (-o) each")
    return [p.stem for p in paths]
