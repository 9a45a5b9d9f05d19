"""A normalising flow per task, batched over tasks: `Flow`, a guide for `SVI`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad

from bayesfs._utils.ranges import Count, check_ranges
from bayesfs.errors import InferenceError

WEIGHT_UNIT = 0.1
"""Scale of the conditioners' weights per unit of their parameters: they learn more slowly."""


@dataclass(frozen=True)
class Flow:
    r"""Affine coupling layers, then a scale and a shift: for posteriors far from Gaussian.

    A layer splits the latents at random in halves a and b and maps

        b -> b * exp(s(a)) + t(a),    (s, t)(a) = 2 tanh(V tanh(W a + c) / 2),

    with its own W (hidden x size/2), c and V for every task; z = m + s_0 * layers(e). It starts as
    a mean-field Gaussian (V = 0). A posterior whose scale depends on another latent, such as a
    hierarchical funnel, is what it is for.

    Attributes:
        layers: coupling layers.
        hidden: width of each conditioner.
        whiten: see `bayesfs.inference.svi.guides.MeanField`.

    Source: Dinh, Sohl-Dickstein and Bengio (2017), Density estimation using Real NVP, section 3.2;
    refs.bib: dinh2017. Here with one narrow conditioner per task.
    """

    layers: Count = 4
    hidden: Count = 8
    whiten: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, InferenceError)

    def noise_size(self, size: int) -> int:
        """One normal per latent."""
        return size

    def start(self, like: Tensor, scale: float) -> Tensor:
        """See `bayesfs.inference.svi.guides.Guide.start`; W is random, the same for all tasks."""
        task, size = like.shape
        generator = torch.Generator().manual_seed(0)
        parts = [torch.zeros(size), torch.full((size,), math.log(scale))]
        for layer in range(self.layers):
            kept, moved = self._halves(size, layer)
            first = torch.randn(self.hidden * (len(kept) + 1), generator=generator)
            parts += [first / WEIGHT_UNIT, torch.zeros(2 * len(moved) * self.hidden)]
        return torch.cat(parts).to(like).expand(task, -1).clone()

    def draw(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """See `bayesfs.inference.svi.guides.Guide.draw`."""
        return self._transform(parameters, noise)[0]

    def log_density(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """See `bayesfs.inference.svi.guides.Guide.log_density`: change of variables."""
        base = -0.5 * (noise.square().sum(-1) + noise.shape[-1] * math.log(2 * math.pi))
        return base - self._transform(parameters, noise)[1]

    def ascent(self, parameters: Tensor, noise: Tensor, score: Tensor) -> Tensor:
        """See `bayesfs.inference.svi.guides.Guide.ascent`; one backward pass through the layers."""

        def surrogate(p: Tensor) -> Tensor:
            z, log_det = self._transform(p, noise)
            return ((z * score).sum(-1) + log_det).mean(1).sum()

        gradient: Tensor = grad(surrogate)(parameters)
        return gradient

    def _transform(self, parameters: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Noise -> z (task, particle, size) and log |dz / d noise| (task, particle)."""
        size = noise.shape[-1]
        mean, log_scale, *weights = torch.split(parameters, self._lengths(size), 1)
        x = noise.expand(len(parameters), -1, -1)
        log_det = log_scale.sum(1, keepdim=True).expand(x.shape[:2])
        for layer in range(self.layers):
            kept, moved = (index.to(x.device) for index in self._halves(size, layer))
            shift, log_stretch = self._condition(x[..., kept], *weights[2 * layer : 2 * layer + 2])
            changed = x[..., moved] * log_stretch.exp() + shift
            x = x.index_copy(-1, moved, changed)
            log_det = log_det + log_stretch.sum(-1)
        return mean.unsqueeze(1) + log_scale.exp().unsqueeze(1) * x, log_det

    def _condition(self, kept: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and log stretch (task, particle, moved) from the kept half."""
        inputs = kept.shape[-1]
        matrix = first.reshape(len(first), self.hidden, inputs + 1) * WEIGHT_UNIT
        hidden = torch.tanh(
            kept @ matrix[..., :inputs].mT / math.sqrt(max(inputs, 1))
            + matrix[..., inputs].unsqueeze(1)
        )
        out = hidden @ second.reshape(len(second), self.hidden, -1) * WEIGHT_UNIT
        shift, log_stretch = (2 * torch.tanh(out / 2)).chunk(2, -1)
        return shift, log_stretch

    def _halves(self, size: int, layer: int) -> tuple[Tensor, Tensor]:
        """Indices kept and moved; the next layer swaps them, every second one deals anew."""
        generator = torch.Generator().manual_seed(layer // 2)
        order = torch.randperm(size, generator=generator)
        cut = size // 2
        halves = order[:cut], order[cut:]
        return halves if layer % 2 == 0 else halves[::-1]

    def _lengths(self, size: int) -> list[int]:
        lengths = [size, size]
        for layer in range(self.layers):
            kept, moved = self._halves(size, layer)
            lengths += [self.hidden * (len(kept) + 1), 2 * len(moved) * self.hidden]
        return lengths
