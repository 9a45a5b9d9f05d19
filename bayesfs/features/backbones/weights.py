"""Weights of a network from a file that nobody vouches for: `read_weights`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from bayesfs.errors import DataError


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """Name -> tensor of a state dict, of safetensors or of `torch.save`; nothing is unpickled.

    Raises:
        DataError: there is no such file, it is damaged, or holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            found = importlib.import_module("safetensors.torch").load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # no file, unpickling refused, damaged: of many kinds
        raise DataError(
            f"{str(path)!r}: no state dict in safetensors or as torch.save writes it "
            f"({type(error).__name__}: {str(error)[:200]})"
        ) from error
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()):
        raise DataError(f"{str(path)!r}: expected a state dict, name -> tensor, and nothing else")
    return found
