"""The image tower of a CLIP as a frozen backbone: `OpenClipBackbone` (extra `open-clip`)."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bayesfs.errors import DataError
from bayesfs.features.backbones.module import ModuleBackbone
from bayesfs.features.backbones.naming import IMAGENET
from bayesfs.features.backbones.pooling import Pooling


class OpenClipBackbone(ModuleBackbone):
    """The image tower of a model of open_clip.

    Args:
        model: its name, and after a "/" the tag of its weights: "ViT-B-32/laion2b_s34b_b79k".
        px: side of the frames; the model's own input size by default, and no other for most.
        device: where it runs; the best there is by default.
        batch: frames per pass; `CPU_PIXELS` of them or `GPU_BATCH` by default.
        pooling: of its tokens, "mean" or "gem"; None as the model does it, which is what its text
            tower is aligned with.
        weights: file of a state dict, in place of a tag; nothing in it is unpickled.

    Raises:
        DataError: open_clip cannot be imported, does not know the model, or its weights are
            neither on this machine nor can be fetched.
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
        tower = _made(model, weights)
        size = tower.image_size
        own = int(size[0] if isinstance(size, tuple | list) else size)
        mean, std = tower.image_mean, tower.image_std
        normalisation = IMAGENET if mean is None or std is None else (tuple(mean), tuple(std))
        if pooling is not None and pooling.kind == "cls":
            raise DataError("the token 'cls' of a CLIP is what it gives by itself: leave pool out")
        if pooling is not None:
            tower.output_tokens = True

        def tokens(x: Tensor) -> Tensor:
            """(frame, token, channel) of the positions alone."""
            found: Tensor = tower(x)[1]
            return found

        super().__init__(
            f"open_clip:{model}",
            tower,
            normalisation,
            px or own,
            pooling,
            run=None if pooling is None else tokens,
            prefix=0,
            device=device,
            batch=batch,
        )


def _made(model: str, weights: Path | None) -> Any:
    """The image tower with its weights."""
    name, _, tag = model.partition("/")
    if not (tag or weights) or ":" in model:
        raise DataError(
            "expected the name of a CLIP and its weights, such as open_clip:ViT-B-32/"
            f"laion2b_s34b_b79k or open_clip:ViT-B-32,weights=FILE, got {model!r}"
        )
    try:
        clip = importlib.import_module("open_clip")
    except Exception as error:  # a torchvision that does not fit torch fails in many ways
        raise DataError(
            f"cannot import open_clip ({type(error).__name__}: {str(error)[:200]}); "
            "pip install 'bayesfs[open-clip]' with a torchvision made for this torch"
        ) from error
    try:
        made = clip.create_model(
            name, pretrained=str(weights) if weights else tag, weights_only=True
        )
    except Exception as error:  # unknown name, no network, damaged file: errors of many kinds
        raise DataError(
            f"cannot load the CLIP {model!r} ({str(error)[:200]}); is the name right, and are its "
            "weights on this machine or can they be fetched?"
        ) from error
    return made.visual
