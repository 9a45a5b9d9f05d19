"""A person's own network of torch as a frozen backbone: `own_network`."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import torch
from torch import nn

from bayesfs.errors import DataError
from bayesfs.features.backbones.module import ModuleBackbone
from bayesfs.features.backbones.naming import IMAGENET, Normalisation
from bayesfs.features.backbones.pooling import Pooling
from bayesfs.features.backbones.weights import read_weights

PX = 224
"""Side of the frames where nothing is said: what most networks are trained with."""


def own_network(
    factory: str,
    *,
    px: int | None = None,
    pooling: Pooling | None = None,
    normalisation: Normalisation | None = None,
    weights: Path | None = None,
    device: torch.device | str | None = None,
    batch: int | None = None,
) -> ModuleBackbone:
    """The network that a function of a person's own module makes. The module is code, and is run.

    Args:
        factory: "module:function"; the module is looked for where Python looks, and then in the
            current folder. The function takes nothing and gives an `nn.Module`, from (frame, 3,
            px, px) to features, tokens (frame, token, channel) or maps.
        px: side of the frames in pixels; `PX` by default.
        pooling: of tokens or maps; None where the network gives one vector a frame.
        normalisation: mean and sd of the colours; ImageNet's by default.
        weights: file of a state dict, read without unpickling; those that the function gives by
            default.
        device: where it runs; the best there is by default.
        batch: frames per pass; `CPU_PIXELS` of them or `GPU_BATCH` by default.

    Raises:
        DataError: there is no such module or function, it fails, or gives no module.
    """
    net = _made(factory)
    if weights is not None:
        try:
            net.load_state_dict(read_weights(weights))
        except RuntimeError as error:
            raise DataError(
                f"{str(weights)!r}: weights of another network than torch:{factory} "
                f"({str(error)[:200]})"
            ) from error
    return ModuleBackbone(
        f"torch:{factory}",
        net,
        normalisation or IMAGENET,
        px or PX,
        pooling,
        device=device,
        batch=batch,
    )


def _made(factory: str) -> nn.Module:
    module, _, function = factory.partition(":")
    if not module or not function.isidentifier():
        raise DataError(f"expected torch:MODULE:FUNCTION, got 'torch:{factory}'")
    here = os.getcwd()
    sys.path.append(here)  # last, so that it takes the place of no library
    try:
        net = getattr(importlib.import_module(module), function)()
    except Exception as error:  # a person's own code fails in any way
        raise DataError(
            f"torch:{factory}: {type(error).__name__}: {str(error)[:200]}; expected a module that "
            f"Python finds, or {module.partition('.')[0]}.py in the current folder, with a "
            f"function {function}() that gives the network"
        ) from error
    finally:
        sys.path.remove(here)
    if not isinstance(net, nn.Module):
        raise DataError(f"torch:{factory} gave {type(net).__name__}; expected a torch.nn.Module")
    return net
