"""What the statistics of one task may be at most: `LIMITS`, and `failures` of a posterior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from bayesfs.types import Posterior

KHAT_MAX = 0.7
"""Vehtari et al. 2024; for variational inference Yao et al. 2018."""

GRADIENT_MAX = 0.01
"""Nats per unit of a latent with a standard normal prior, at the mode."""

KSD_RATIO_MAX = 2.0
"""Squared kernel Stein discrepancy, as a multiple of that of as many independent draws."""

LATENTS_PER_PARTICLE_MAX = 0.5
"""Beyond it SVGD's default kernel takes each latent apart, and correlations are lost."""

STEIN_MOMENTS_MAX = 1.0
"""Largest deviation of a latent's score from Stein's identities, as a multiple of what passes."""

REPEATS_MAX = 1.0
"""Draws that were resampled by weights, for each independent one that the weights are worth."""

LIMITS: Mapping[str, float] = {
    "khat": KHAT_MAX,
    "gradient": GRADIENT_MAX,
    "ksd_ratio": KSD_RATIO_MAX,
    "latents_per_particle": LATENTS_PER_PARTICLE_MAX,
    "stein_moments": STEIN_MOMENTS_MAX,
    "repeats": REPEATS_MAX,
}
"""Statistic (task,) of a posterior -> the most that passes."""


def failures(posterior: Posterior, limits: Mapping[str, float] = LIMITS) -> dict[str, Tensor]:
    """Statistic -> (task,) whether a task fails it; NaN is none that passes.

    Args:
        posterior: of T tasks, or of one joint density.
        limits: statistic -> the most that passes; what the posterior does not have is left out.
    """
    return {
        name: ~(posterior.sample_stats[name].reshape(-1) <= most)
        for name, most in limits.items()
        if name in posterior.sample_stats
    }
