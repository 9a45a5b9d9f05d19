"""From a posterior to label predictives: start with `predict`.

For a query x (a frame, or a whole video), support D and draws theta_s of the posterior,

    p(y | x, D) = sum_s w_s p(y | x, theta_s),
    p(y | x, theta_s) = p(y, x | theta_s) / sum_k p(k, x | theta_s),
    w_s proportional to sum_k p(k, x | theta_s).

A generative model learns about theta from the query itself, hence the weights; a discriminative
model's joint is already normalised over the classes, and its weights are equal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from bayesfs._utils.spacing import evenly_spaced
from bayesfs.errors import InferenceError
from bayesfs.models.population_draws import distinct_rows, each_value
from bayesfs.protocols import Conjugate, Model, OpenSetDraws
from bayesfs.types import EpisodeBatch, LabelDraws, Posterior, Predictive


def predict(
    model: Model,
    posterior: Posterior,
    episodes: EpisodeBatch,
    *,
    given: Posterior | None = None,
    exact: bool | None = None,
) -> Predictive:
    """Predictive of every query frame and, its frames jointly, of every query video.

    Args:
        model: the model that the posterior is of.
        posterior: draws of the task-level sites of the same tasks.
        episodes: T tasks; their query is predicted. Query labels are not used.
        given: posterior of the population, where `posterior` does not hold its sites itself.
        exact: integrate a conjugate model's class means in closed form. None does so where the
            posterior is of kind "exact".

    Returns:
        Predictive over (task, video, frame) and (task, video).

    Raises:
        InferenceError: a site of the model has no draws, or the posterior is of other tasks.
    """
    draws = complete_draws(model, posterior, given)
    closed = posterior.kind == "exact" if exact is None else exact
    with torch.no_grad():
        if closed and isinstance(model, Conjugate):
            return _closed_form(model, draws, posterior, episodes)
        frame = label_draws(model.log_joint_frame(draws, episodes))
        video = label_draws(model.log_joint_video(draws, episodes))
        return Predictive(frame, video, _absent(model, draws, episodes, frame))


def query_evidence(
    model: Model, posterior: Posterior, episodes: EpisodeBatch, *, given: Posterior | None = None
) -> Tensor:
    """(task, video) log p(x | D) of each query video, in the condition that the batch says.

        log p(x | D) = log E_s sum_k p(k, x | theta_s),    theta_s from the posterior.

    Zero for every model of labels alone, which says nothing of x.

    Args:
        model: the model that the posterior is of.
        posterior: draws of the task-level sites of the same tasks.
        episodes: T tasks.
        given: posterior of the population, where `posterior` does not hold its sites itself.
    """
    with torch.no_grad():
        joint = model.log_joint_video(complete_draws(model, posterior, given), episodes)
        return joint.logsumexp(-1).logsumexp(0) - math.log(len(joint))


def label_draws(log_joint: Tensor) -> LabelDraws:
    """Predictive from log p(y, x | theta_s) (draw, ..., way); see the module for the formula."""
    log_weight = log_joint.logsumexp(-1).log_softmax(0)
    given = log_joint.log_softmax(-1)  # not a difference, which absorbs log way in long distances
    return LabelDraws((given + log_weight[..., None]).logsumexp(0), given, log_weight)


def complete_draws(
    model: Model, posterior: Posterior, given: Posterior | None = None
) -> dict[str, Tensor]:
    """Draws of every site of the model; the population's come from `given` where they must.

    A posterior that was inferred at the population's mean takes that mean for every draw.

    Raises:
        InferenceError: a site has no draws.
    """
    draws = dict(posterior.draws)
    for site in set(model.dims) - set(draws):
        if given is None or site not in given.draws:
            raise InferenceError(
                f"expected draws of {sorted(model.dims)}, missing {site!r}; was the population "
                "left out (given=), or is this the posterior of another model?"
            )
        mean = given.draws[site].mean(0)
        draws[site] = mean.expand(posterior.num_draws, *mean.shape)
    return draws


def _absent(
    model: Model, draws: dict[str, Tensor], episodes: EpisodeBatch, frame: LabelDraws
) -> Tensor | None:
    """(task, video, frame) probability that nothing taught is there, if the model knows of it."""
    if not isinstance(model, OpenSetDraws):
        return None
    log_absent = model.log_absent_frame(draws, episodes) + frame.log_weight
    return log_absent.logsumexp(0).exp()


def _closed_form(
    model: Conjugate,
    draws: dict[str, Tensor],
    posterior: Posterior,
    episodes: EpisodeBatch,
) -> Predictive:
    """The distinct population draws, in order, and as many label draws as the posterior has."""
    values = distinct_population(model, draws)
    per_value = -(-posterior.num_draws // len(next(iter(values.values()))))
    return model.predictive(episodes, values, draws=per_value, seed=posterior.seed)


def distinct_population(model: Model, draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The distinct draws of the population among draws of all sites, in order."""
    population = {s: draws[s] for s, axes in model.dims.items() if "task" not in axes}
    keep = distinct_rows(population)
    return {s: v[keep] for s, v in population.items()}


def thinned(population: Posterior, count: int) -> dict[str, Tensor]:
    """Evenly spaced draws of the population sites."""
    index = evenly_spaced(population.num_draws, count)
    return {site: v[index] for site, v in population.population.items()}


def thinned_values(population: Posterior, count: int) -> list[dict[str, Tensor]]:
    """The same, one value of every population site after the other."""
    return [*each_value(thinned(population, count))]
