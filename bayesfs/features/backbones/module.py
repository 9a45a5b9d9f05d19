"""A frozen network of torch with whatever output, pooled and named: `ModuleBackbone`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bayesfs.errors import DataError
from bayesfs.features.backbones.naming import BackboneName, Normalisation, weights_digest
from bayesfs.features.backbones.network import Network
from bayesfs.features.backbones.pooling import Pooling


class ModuleBackbone(Network):
    """A module of torch, put to evaluation; its name says weights, pooling, colours and pixels.

    Args:
        source: what a person types for it, without files.
        net: the module; its weights are part of the name.
        normalisation: mean and sd of the colours in [0, 1].
        px: side of the frames in pixels.
        pooling: from positions to one vector a frame; None where the network does it by itself.
        run: (frame, 3, px, px) -> (frame, feature), (frame, token, channel) or maps (frame,
            channel, height, width); the module itself by default.
        prefix: tokens before those of positions, of which the first is of the whole frame; those
            beyond the largest square by default.
        device: where it runs; the best there is by default.
        batch: frames per pass; `CPU_PIXELS` of them or `GPU_BATCH` by default.

    Raises:
        DataError: the network cannot take frames of this size, or needs a pooling.
    """

    def __init__(
        self,
        source: str,
        net: nn.Module,
        normalisation: Normalisation,
        px: int,
        pooling: Pooling | None,
        *,
        run: Callable[[Tensor], Tensor] | None = None,
        prefix: int | None = None,
        device: torch.device | str | None = None,
        batch: int | None = None,
    ) -> None:
        self.mean, self.std = normalisation
        name = BackboneName(source, weights_digest(net.state_dict()), pooling, normalisation, px)
        super().__init__(name.text.removesuffix(f"@{px}px"), px, 0, device, batch)
        self.pooling, self._prefix = pooling, prefix
        self._run = run or net
        self._net = net.eval().requires_grad_(False).to(self.device)
        self.dim = self._probed(source)

    def forward(self, x: Tensor) -> Tensor:
        """(frame, 3, px, px) normalised -> (frame, feature)."""
        output = self._run(x)
        return output if self.pooling is None else self.pooling(output, self._prefix)

    def _probed(self, source: str) -> int:
        """Number of features, found with one frame.

        Raises:
            DataError: the network fails on it, or gives no vector.
        """
        try:
            with torch.inference_mode():
                given = self.forward(torch.zeros(1, 3, self.px, self.px, device=self.device))
        except DataError:
            raise
        except Exception as error:  # a network of somebody else's: errors of any kind
            raise DataError(
                f"the network of {source!r} fails on a frame of {self.px} pixels "
                f"({type(error).__name__}: {str(error)[:200]}); is it made for another px?"
            ) from error
        if not isinstance(given, Tensor) or given.ndim != 2 or len(given) != 1:
            shape = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
            raise DataError(
                f"expected (frame, feature) from the network of {source!r}, got {shape}; positions "
                "are pooled by choice: pool=cls, pool=mean or pool=gem3"
            )
        return int(given.shape[1])
