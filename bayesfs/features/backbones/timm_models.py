"""Any classifier of timm as a frozen backbone: `TimmBackbone` (extra `timm`)."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from bayesfs.errors import DataError
from bayesfs.features.backbones.network import Network


class TimmBackbone(Network):
    """Any classifier of timm (extra `timm`) without its head.

    Args:
        model: name in timm, with the tag of its weights, such as "mobilenetv3_small_100.lamb_in1k".
        px: side of the frames; the model's own input size by default.
        device: where it runs; a GPU where there is one by default.
        batch: frames per pass; `CPU_BATCH` or `GPU_BATCH` by default.

    Raises:
        DataError: timm cannot be imported, does not know the model, or the weights are neither on
            this machine nor can be fetched.
    """

    def __init__(
        self,
        model: str,
        px: int | None = None,
        device: torch.device | str | None = None,
        batch: int | None = None,
    ) -> None:
        timm = _timm()
        try:
            net = timm.create_model(model, pretrained=True, num_classes=0)
        except Exception as error:  # unknown name, no network, no such weights: timm has many kinds
            raise DataError(
                f"cannot load timm model {model!r} ({str(error)[:200]}); is the name right, and "
                "are its weights on this machine or can they be fetched?"
            ) from error
        config = net.pretrained_cfg
        self.mean, self.std = tuple(config["mean"]), tuple(config["std"])
        size = px or int(config["input_size"][-1])
        super().__init__(f"timm/{model}", size, int(net.num_features), device, batch)
        self._net = net.eval().to(self.device)

    def forward(self, x: Tensor) -> Tensor:
        """(frame, 3, px, px) normalised -> (frame, feature)."""
        features: Tensor = self._net(x)
        return features


def _timm() -> Any:
    try:
        return importlib.import_module("timm")
    except Exception as error:  # a torchvision that does not fit torch fails in many ways
        raise DataError(
            f"cannot import timm ({type(error).__name__}: {str(error)[:200]}); "
            "pip install 'bayesfs[timm]' with a torchvision made for this torch"
        ) from error
