"""The densities of a posterior's draws, for `bayesfs.diagnostics.prior_sensitivity`."""

from __future__ import annotations

import torch

from bayesfs.diagnostics.prior_sensitivity import PRIOR
from bayesfs.errors import DataError
from bayesfs.inference.program.simulation import Simulator
from bayesfs.protocols import Model
from bayesfs.types import EpisodeBatch, Posterior


def with_densities(model: Model, posterior: Posterior, episodes: EpisodeBatch) -> Posterior:
    """The posterior with the log prior of each of its sites and the log-likelihood, in nats.

    Args:
        model: the program that the posterior is of, such as an objective's.
        posterior: draws of every site of the program.
        episodes: what it was inferred from.

    Returns:
        The same draws, with `log_prior_SITE` and `log_likelihood` among the `sample_stats`: (draw,)
        of the population's sites if there are any, else (draw, task) of the tasks'.

    Raises:
        DataError: a site of the program has no draws.
    """
    lacking = sorted(set(model.dims) - set(posterior.draws))
    if lacking:
        raise DataError(f"expected draws of every site of the program, missing {lacking}")
    program = Simulator(model, episodes)
    found = program.log_densities(posterior.draws)
    likelihood = torch.stack([found[name] for name in program.observed]).sum(0)
    if posterior.population:
        likelihood = likelihood.reshape(len(likelihood), -1).sum(-1)
    priors = {f"{PRIOR}{site}": found[site] for site in posterior.population or model.dims}
    stats = {**posterior.sample_stats, **priors, "log_likelihood": likelihood}
    return posterior.changed(sample_stats=stats)
