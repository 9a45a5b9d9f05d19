"""A network of one's own in front of a kernel: `ModuleMap`.

With theta_0 the parameters as they come and x a frame's features,

    phi(x) = module(x; theta),      theta_j ~ N(theta_0j, spread^2)  for every parameter,

so that the network is learnt with the kernel, by either objective and any engine, and stays near
where it began unless the train users say otherwise.

Source: Wilson et al. (2016), Deep kernel learning; the prior about the start is Li et al. (2018).
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.func import functional_call

from bayesfs._utils.ranges import Positive, check_ranges
from bayesfs.errors import ShapeError
from bayesfs.models.gp.feature_maps import FeatureMap
from bayesfs.models.gp.hyperparameters import Hyperparameter, Prior, Values

PREFIX = "module."
"""Before the names of parameters, in those of sites."""


@dataclass(frozen=True)
class ModuleMap(FeatureMap):
    """Any `torch.nn.Module` as a feature map; each of its parameters is a site.

    Sites are called "module." and the parameter's name. The module is copied and put into its
    evaluation mode (no dropout, running statistics); buffers stay as they are.

    Attributes:
        module: (..., feature) -> (..., latent); acts on each frame by itself.
        spread: prior sd of every parameter about its value.

    Raises:
        ShapeError: spread is not positive, or there is no parameter.

    Example:
        >>> sorted(ModuleMap(torch.nn.Linear(3, 2)).sites)
        ['module.bias', 'module.weight']
    """

    module: nn.Module = field(repr=False)
    spread: Positive = 0.1

    def __post_init__(self) -> None:
        check_ranges(self, ShapeError)
        object.__setattr__(self, "module", deepcopy(self.module).eval())
        if not [*self.module.parameters()]:
            raise ShapeError("expected a module with parameters to learn, got one without")

    @property
    def sites(self) -> Mapping[str, Hyperparameter]:
        """The parameters."""
        return {
            PREFIX + name: Hyperparameter(
                tuple(f"{name}_{i}" for i in range(value.ndim)), self._prior(value)
            )
            for name, value in self.module.named_parameters()
        }

    def __call__(self, values: Values, x: Tensor, condition: Tensor) -> Tensor:
        """(task, n, latent).

        Raises:
            ShapeError: the module gives something else.
        """
        own = {name: values[PREFIX + name] for name, _ in self.module.named_parameters()}
        rest = {name: value.to(x) for name, value in self.module.named_buffers()}
        z = functional_call(self.module, {**own, **rest}, (x,))
        if not isinstance(z, Tensor) or z.shape[:-1] != x.shape[:-1]:
            found = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
            raise ShapeError(
                f"expected a module from {tuple(x.shape)} to (..., latent) with the same axes in "
                f"front, got {found}; does it act on each frame by itself?"
            )
        return z

    def width(self, feature: int) -> int:
        """Number of outputs for `feature` inputs."""
        first = next(self.module.parameters())
        with torch.no_grad():
            return int(self.module(first.new_zeros(1, feature)).shape[-1])

    def prepare(self, x: Tensor, condition: Tensor) -> ModuleMap:
        """Itself: it has no constants of the frames."""
        return self

    def _prior(self, value: Tensor) -> Prior:
        start = value.detach().clone()
        return lambda x: dist.Normal(start.to(x), self.spread).to_event(start.ndim)
