"""Weights into memory. Nothing in a file is executed: neither format that is read can hold code that would be."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from stemtomo_dl.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of a file, on the CPU, and what it says about itself.

    Parameters
    ----------
    path : Path
        ``.safetensors``, or a state dict of PyTorch in ``.pth`` or ``.pt``.

    Returns
    -------
    tensors : dict
        By name.
    metadata : dict
        Strings by name; a state dict has none.

    Raises
    ------
    InputError
        If the file is missing, damaged, of another kind, or would have to be executed.
    """
    readers = {".safetensors": _safetensors, ".pth": _state_dict, ".pt": _state_dict}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path}: weights are read from {', '.join(readers)}; convert the file")
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of a file with weights")
    return readers[path.suffix.lower()](path)


def _safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as e:
        raise InputError(f"{path}: not a readable safetensors file ({_first(e)}); copy or fetch it again") from e


def _state_dict(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    import torch

    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        raise InputError(
            f"{path}: holds more than tensors, or is damaged; it would have to be executed, so it is not loaded: "
            "save its state dict as .safetensors"
        ) from e
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as e:
        raise InputError(f"{path}: not a readable PyTorch file ({_first(e)}); copy or fetch it again") from e
    if not isinstance(held, dict) or not all(isinstance(v, torch.Tensor) for v in held.values()):
        raise InputError(f"{path}: is not a state dict, tensors by name; save it as one, or as .safetensors")
    return {str(k): v for k, v in held.items()}, {}


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
