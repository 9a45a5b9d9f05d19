"""Any classifier of timm as a frozen backbone: `TimmBackbone` (extra `timm`)."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch

from bayesfs.errors import DataError
from bayesfs.features.backbones.module import ModuleBackbone
from bayesfs.features.backbones.pooling import Pooling
from bayesfs.features.backbones.weights import read_weights


class TimmBackbone(ModuleBackbone):
    """Any classifier of timm (extra `timm`) without its head.

    Args:
        model: name in timm, with the tag of its weights, such as "mobilenetv3_small_100.lamb_in1k".
        px: side of the frames; the model's own input size by default.
        device: where it runs; the best there is by default.
        batch: frames per pass; `CPU_PIXELS` of them or `GPU_BATCH` by default.
        pooling: of its positions; None as the model does it by itself.
        weights: file of a state dict (safetensors or torch's, nothing is unpickled); by default
            those of the tag, on this machine or fetched from the hub.

    Raises:
        DataError: timm cannot be imported, does not know the model, the weights are neither on
            this machine nor can be fetched, or are of another model; or the model does not take
            this px or pooling.
    """

    def __init__(
        self,
        model: str,
        px: int | None = None,
        device: torch.device | str | None = None,
        batch: int | None = None,
        pooling: Pooling | None = None,
        weights: Path | None = None,
    ) -> None:
        net = _made(_timm(), model, px, weights)
        config = net.pretrained_cfg
        normalisation = (tuple(config["mean"]), tuple(config["std"]))
        super().__init__(
            f"timm:{model}",
            net,
            normalisation,
            px or int(config["input_size"][-1]),
            pooling,
            run=None if pooling is None else net.forward_features,
            device=device,
            batch=batch,
        )


def _made(timm: Any, model: str, px: int | None, weights: Path | None) -> Any:
    """The network with its weights and without a head."""
    if ":" in model or "/" in model:
        raise DataError(
            f"expected a name that timm lists, such as 'resnet18.a1_in1k', got {model!r}; weights "
            "of a file are given besides: timm:NAME,weights=FILE"
        )
    size = {} if px is None else {"img_size": px}
    source: dict[str, Any] = {"pretrained": True}
    if weights is not None:
        source["pretrained_cfg_overlay"] = {"state_dict": read_weights(weights)}
    try:
        try:
            return timm.create_model(model, num_classes=0, **source, **size)
        except TypeError:  # a convolutional network, which takes any size
            return timm.create_model(model, num_classes=0, **source)
    except Exception as error:  # unknown name, no network, no such weights: timm has many kinds
        where = "its tag" if weights is None else repr(str(weights))
        raise DataError(
            f"cannot load timm model {model!r} with the weights of {where} ({str(error)[:200]}); "
            "is the name right, and are the weights on this machine or can they be fetched? "
            f"Weights of a file: timm:{model},weights=FILE"
        ) from error


def _timm() -> Any:
    try:
        return importlib.import_module("timm")
    except Exception as error:  # a torchvision that does not fit torch fails in many ways
        raise DataError(
            f"cannot import timm ({type(error).__name__}: {str(error)[:200]}); "
            "pip install 'bayesfs[timm]' with a torchvision made for this torch"
        ) from error
