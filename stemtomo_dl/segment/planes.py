"""What a network sees: virtual images, or any grey image, as planes of one scale."""

from __future__ import annotations

import numpy as np

_SINGLE = ("bf", "adf", "haadf", "variance", "maximum", "grey")  # grey: an image of which only its look is known
COMPONENTS = ("component1", "component2", "component3")  # of `segment.components`
PLANES = (*_SINGLE, *COMPONENTS)
KINDS = (PLANES, _SINGLE)  # that networks were trained on: now, and before there were components
_COUNTS = ("adf", "haadf", "variance")  # seen as square roots, in which counting noise is even
_SPREAD = (2.0, 98.0)  # percentiles that bound the bulk of an image
_SOFT = 2.0  # beyond this many spreads, bright crystals are compressed


def normalised(image: np.ndarray) -> np.ndarray:
    """An image with its median at 0 and the bulk of its values within about ±2, bright ends compressed.

    The scale comes from percentiles, or from the standard deviation where few pixels differ from the rest, so that
    neither one particle on an empty film nor a crowded field is lost. Values that are not numbers become the median.

    Parameters
    ----------
    image : (y, x) array

    Returns
    -------
    (y, x) f4 array
    """
    good = np.isfinite(image)
    if not good.any():
        return np.zeros(image.shape, np.float32)
    values = np.where(good, image, np.median(image[good])).astype(np.float64)
    low, middle, high = np.percentile(values, [_SPREAD[0], 50.0, _SPREAD[1]])
    spread = max((high - low) / 4, 0.5 * float(values.std()))
    if spread <= 1e-9 * max(abs(low), abs(high), 1e-30):
        return np.zeros(image.shape, np.float32)
    z = (values - middle) / spread
    return np.asarray(_SOFT * np.arcsinh(z / _SOFT), np.float32)


def planes(images: dict[str, np.ndarray], names: tuple[str, ...] = PLANES) -> np.ndarray:
    """Images by name as the planes of a network; what is not there is 0.

    Parameters
    ----------
    images : dict
        (y, x) arrays by a name from `PLANES`; other names are left out.
    names : tuple of str
        Of the planes that the network was trained on, in their order.

    Returns
    -------
    (plane, y, x) f4 array

    Raises
    ------
    ValueError
        If none of the names is known.
    """
    known = {k: v for k, v in images.items() if k in names}
    if not known:
        raise ValueError(f"none of {sorted(images)} is an image that the network knows ({', '.join(names)})")
    shape = next(iter(known.values())).shape
    out = np.zeros((len(names), *shape), np.float32)
    for name, image in known.items():
        out[names.index(name)] = normalised(np.sqrt(np.maximum(image, 0)) if name in _COUNTS else image)
    return out
