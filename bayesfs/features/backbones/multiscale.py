"""A frame at two scales, by any network: `MultiScale`.

An object that fills a small part of a frame is a few pixels to a network that sees the whole. Its
middle at twice the resolution shows it large, and the whole frame is still there where it lies
elsewhere. With f the network's features of p x p pixels, scaled to length 1, of a frame x of twice
that width,

    features(x) = (f(whole x) + f(middle x)) / 2,

where the whole is the mean of each 2 x 2 pixels, and the middle the p x p pixels about the centre.

Source: evaluation of one network by several crops and scales (Krizhevsky et al. 2012; Simonyan and
Zisserman 2015).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from bayesfs.features.backbones.naming import MULTISCALE
from bayesfs.features.backbones.network import Network


class MultiScale(Network):
    """A network on whole frames and on their middles.

    Args:
        network: of frames half as wide as those that this takes.

    Example:
        >>> import numpy as np
        >>> from bayesfs.features.backbones.efficientnet_lite0 import EfficientNetLite0
        >>> two = MultiScale(EfficientNetLite0(px=32))
        >>> two(np.zeros((1, 64, 64, 3), np.uint8)).shape
        (1, 1280)
    """

    def __init__(self, network: Network) -> None:
        name = MULTISCALE + network.name.removesuffix(f"@{network.px}px")
        super().__init__(name, 2 * network.px, network.dim, network.device, network.batch)
        self.mean, self.std = network.mean, network.std
        self._network = network

    def forward(self, x: Tensor) -> Tensor:
        """(frame, 3, px, px) normalised -> (frame, feature)."""
        half, start = self.px // 2, self.px // 4
        middle = x[:, :, start : start + half, start : start + half].contiguous()
        whole, near = (self._network.forward(v) for v in (avg_pool2d(x, 2), middle))
        return (normalize(whole, dim=1) + normalize(near, dim=1)) / 2
