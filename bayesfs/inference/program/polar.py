"""A density in coordinates in which what data know the sum of is straight: `Polar`.

Scales that a law pairs (`bayesfs._distributions.polar`) stand in z by their logarithms. Here each
pair has its log length and the normal score a of its angle instead: u -> z, with

    log p(u) = log p(z(u)) + log |dz / du|.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bayesfs._distributions.polar import Pairs, PolarPairs
from bayesfs.inference.program.potential import Potential


class Polar:
    """The density of a potential whose paired latents are in polar coordinates.

    Without pairs it is the potential's.

    Args:
        density: of the latents z.
    """

    def __init__(self, density: Potential) -> None:
        self.density = density
        pairs = density.pairs
        self._places = [place for pair in pairs for place in pair]
        own: Pairs = tuple((2 * k, 2 * k + 1) for k in range(len(pairs)))
        self._transform = PolarPairs(own)

    @property
    def tasks(self) -> int:
        """Rows of u."""
        return self.density.tasks

    @property
    def size(self) -> int:
        """Length of u."""
        return self.density.size

    @property
    def reads(self) -> int:
        """Numbers that go into the density of one row per task: latents and data."""
        return self.density.reads

    def latents(self, u: Tensor) -> Tensor:
        """(task, particle, size) -> z of the same shape."""
        return self._mapped(u)[0]

    def log_density(self, u: Tensor) -> Tensor:
        """(task, particle, size) -> (task, particle) in nats."""
        z, jacobian = self._mapped(u)
        return self.density.log_density(z) + jacobian

    def value(self, u: Tensor) -> Tensor:
        """The same, detached."""
        z, jacobian = self._mapped(u)
        return self.density.value(z) + jacobian

    def value_and_gradient(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Log density and its gradient, both detached."""
        with torch.enable_grad():
            point = u.detach().requires_grad_()
            z, jacobian = self._mapped(point)
            value, score = self.density.value_and_gradient(z.detach())
            (gradient,) = torch.autograd.grad((score * z).sum() + jacobian.sum(), point)
        return (value + jacobian).detach(), gradient

    def _mapped(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """z, and log |dz / du| (task, particle)."""
        if not self._places:
            return u.clone(), u.new_zeros(u.shape[:-1])
        polar = u[..., self._places]
        scales = self._transform(polar)
        logs = scales.log()
        jacobian = self._transform.log_abs_det_jacobian(polar, scales) - logs.sum(-1)
        places = torch.tensor(self._places, device=u.device)
        return u.index_copy(-1, places, logs), jacobian
