"""Simulation-based calibration: is an engine right about a model's own data? Use `calibrate`.

If theta ~ p(theta), x ~ p(x | theta) and theta_1..L are independent draws from p(theta | x), then
for every quantity f(theta, x) the rank of f(theta, x) among f(theta_1, x)..f(theta_L, x) is uniform
on 0..L. So a model run forwards says whether an engine inverts it, without any known posterior:
ranks that pile up at both ends are of a posterior that is too narrow, in the middle of one that is
too wide, at one end of one that is shifted. Given the population, the tasks of a batch are
independent, so that one batch of T tasks is T simulations.

Quantities (`standard_quantities`): a few scalars and the root mean square of every site; the joint
log-likelihood, which depends on the data and so finds what no function of theta alone can, such as
an engine that returns the prior; and TARP, the distance to a random point, whose ranks are the
expected coverage of balls around it.

Width. A posterior whose sds are all .9 of what they should be shows little in one scalar: that
takes some 500 simulations. It shows in all scalars of a site together. With u the scaled rank of
each and m = E Phi^-1(u)^2 for uniform ranks,

    s_t = mean over the scalars of the site of Phi^-1(u)^2 in simulation t,    E s_t = m,

and the s_t of independent simulations are held against m by Student's t, for sites of `WIDTH_NEEDS`
scalars or more. `benchmarks/sbc.py` measures what a
short run of it finds.

p values. Each quantity's ranks are held against uniformity over all places at once: with C_i the
number of ranks <= i among N simulations, gamma = 2 min_i min{P(B_i <= C_i), P(B_i >= C_i)},
B_i ~ Binomial(N, (i + 1) / (L + 1)), whose null distribution is simulated. The pair's p is
Bonferroni's, the number of quantities times their smallest p: of pairs that are right, at most 1 %
fall below .01. The chi-square p over bins is told beside it.

Source: Talts et al. 2018 (SBC); Säilynoja, Bürkner and Vehtari 2022 (gamma and its envelope);
Modrák et al. 2023 (data-dependent quantities); Lemos et al. 2023 (TARP).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import binom, chisquare, ttest_1samp
from torch import Tensor

from bayesfs._utils.arrays import Ints
from bayesfs._utils.spacing import evenly_spaced
from bayesfs.diagnostics.sbc_tasks import Simulated, simulate_tasks
from bayesfs.errors import DataError
from bayesfs.inference.program.simulation import Simulator
from bayesfs.protocols import Engine, Model
from bayesfs.types import EpisodeBatch, Posterior

Quantity = Callable[[Mapping[str, Tensor]], Tensor]
"""Draws (site -> (draw, task, ...)) -> (draw, task)."""

RANKED_DRAWS = 63
"""Posterior draws that the truth is ranked among, thinned from all."""

NULL_DRAWS = 20_000
"""Simulations of uniform ranks behind a p value: it is never below 1 / (this + 1)."""


WIDTH_NEEDS = 4
"""Scalars of a site in a task at least, for its width to be tested."""


@dataclass(frozen=True)
class Calibration:
    """Ranks of the truth, and whether they are uniform.

    Attributes:
        ranks: quantity -> (simulation,) rank in 0..levels.
        levels: posterior draws that the truth was ranked among.
        widths: site -> (simulation,) mean squared normal score of the ranks of all its scalars, as
            a multiple of what uniform ranks have.
    """

    ranks: Mapping[str, Ints]
    levels: int
    widths: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def table(self) -> pd.DataFrame:
        """Per quantity: `p` (gamma), `chi_square_p`, mean and sd of the scaled rank.

        The scaled rank (rank + 1/2) / (levels + 1) has mean .5 and sd .289 if all is well; a larger
        sd says too narrow, a smaller one too wide. The width of a site has a p alone, and as sd
        .289 times the root of its mean.
        """
        counts = len(next(iter(self.ranks.values())))
        null = np.sort(null_gamma(counts, self.levels))
        rows = {}
        for name, ranks in self.ranks.items():
            below = np.searchsorted(null, gamma(ranks, self.levels) * (1 + 1e-9), side="right")
            scaled = (ranks + 0.5) / (self.levels + 1)
            rows[name] = {
                "p": (below + 1) / (len(null) + 1),
                "chi_square_p": chi_square_p(ranks, self.levels),
                "mean": scaled.mean(),
                "sd": scaled.std(),
            }
        for site, widths in self.widths.items():
            rows[f"width of {site}"] = {
                "p": float(ttest_1samp(widths, 1.0).pvalue),
                "chi_square_p": np.nan,
                "mean": np.nan,
                "sd": np.sqrt(widths.mean() / 12),
            }
        return pd.DataFrame.from_dict(rows, orient="index")

    @property
    def p(self) -> float:
        """Bonferroni's p value of all quantities together."""
        each = self.table["p"]
        return min(1.0, len(each) * float(each.min()))

    @property
    def simulations(self) -> int:
        """Number of simulations."""
        return len(next(iter(self.ranks.values())))

    def joined(self, other: Calibration) -> Calibration:
        """The simulations of both, as of two populations."""
        if set(self.ranks) != set(other.ranks) or self.levels != other.levels:
            raise DataError("expected calibrations of the same quantities and levels")
        ranks = {n: np.concatenate([r, other.ranks[n]]) for n, r in self.ranks.items()}
        shared = [site for site in self.widths if site in other.widths]
        widths = {n: np.concatenate([self.widths[n], other.widths[n]]) for n in shared}
        return replace(self, ranks=ranks, widths=widths)

    def to_datatree(self) -> xr.DataTree:
        """ArviZ's group `prior_sbc`, (rank + 1) / (levels + 1), for its `plot_ecdf_pit`."""
        scaled = {
            name.replace("/", " "): (("chain", "draw"), (ranks[None] + 1) / (self.levels + 1))
            for name, ranks in self.ranks.items()
        }
        return xr.DataTree.from_dict({"prior_sbc": xr.Dataset(scaled)})


def calibrate(
    model: Model,
    engine: Engine,
    template: EpisodeBatch,
    *,
    population: Posterior | None = None,
    seed: int = 0,
    levels: int = RANKED_DRAWS,
) -> Calibration:
    """Simulate the support of every task of a batch, infer, and rank the truth.

    Args:
        model: what the tasks are drawn from and inferred with.
        engine: what infers them, given the population.
        template: sizes, masks and conditions of the tasks, and the features where the model is of
            labels given features (see `bayesfs.diagnostics.sbc_tasks`).
        population: one draw of the population; None for a model without one.
        seed: of simulations and inference.
        levels: posterior draws to rank among; evenly spread over those that the engine returns.

    Returns:
        The ranks, one per task and quantity.

    Raises:
        DataError: the population has several draws, the model cannot be run forwards, or the
            engine returns fewer draws than `levels`.
    """
    simulated = simulate_tasks(model, template, population=population, seed=seed)
    posterior = engine.infer(model, simulated.episodes, seed=seed, given=population)
    return ranked(model, posterior, simulated, seed=seed, levels=levels)


def ranked(
    model: Model,
    posterior: Posterior,
    simulated: Simulated,
    *,
    seed: int,
    levels: int = RANKED_DRAWS,
) -> Calibration:
    """The truth of simulated tasks among the draws of their posterior; see `calibrate`.

    Args:
        model: the model.
        posterior: of the simulated tasks.
        simulated: the tasks, and what they were drawn from.
        seed: of TARP's reference points.
        levels: posterior draws to rank among.
    """
    draws = _thinned(model, posterior, simulated, levels)
    quantities = standard_quantities(model, simulated.episodes, seed=seed)
    ranks = {}
    for name, quantity in quantities.items():
        truth, drawn = quantity(simulated.truth), quantity(draws)
        ranks[name] = (drawn < truth).sum(0).cpu().numpy().astype(np.int64)
    return Calibration(ranks, levels, _widths(model, draws, simulated, levels))


def _widths(
    model: Model, draws: Mapping[str, Tensor], simulated: Simulated, levels: int
) -> dict[str, NDArray[np.float64]]:
    """Mean squared normal scores of every site with enough scalars; see the module."""
    score = torch.from_numpy(ndtri((np.arange(levels + 1) + 0.5) / (levels + 1)) ** 2)
    score = score / score.mean()
    found = {}
    for site, mask in task_masks(model, simulated.episodes).items():
        rank = (draws[site] < simulated.truth[site]).sum(0).cpu()
        whole = mask.reshape(*mask.shape, *[1] * (rank.ndim - mask.ndim)).expand(rank.shape).cpu()
        whole, squares = whole.reshape(len(rank), -1), score[rank].reshape(len(rank), -1)
        if int((count := whole.sum(-1)).min()) >= WIDTH_NEEDS:
            found[site] = ((squares * whole).sum(-1) / count).numpy()
    return found


def _thinned(
    model: Model, posterior: Posterior, simulated: Simulated, levels: int
) -> dict[str, Tensor]:
    """`levels` evenly spaced draws of every site, the population's as it was given."""
    if posterior.num_draws < levels:
        raise DataError(f"expected at least {levels} posterior draws, got {posterior.num_draws}")
    index = torch.tensor(evenly_spaced(posterior.num_draws, levels))
    draws = {s: v[index.to(v.device)] for s, v in posterior.draws.items() if s in model.dims}
    shared = {s: v for s, v in simulated.truth.items() if s not in draws}
    return draws | {s: v.expand(levels, *v.shape[1:]) for s, v in shared.items()}


def standard_quantities(
    model: Model, episodes: EpisodeBatch, *, seed: int = 0, per_site: int = 2
) -> dict[str, Quantity]:
    """The quantities of the module's docstring, for the task-level sites of a model.

    Args:
        model: the model.
        episodes: the simulated tasks.
        seed: of TARP's reference points, drawn from the prior of each site.
        per_site: scalars of each site, evenly spread over those that every task has.
    """
    found: dict[str, Quantity] = {}
    masks = task_masks(model, episodes)
    for site, mask in masks.items():
        like = Simulator(model, episodes).draw(seed=seed).draws[site]
        whole = mask.reshape(*mask.shape, *[1] * (like.ndim - mask.ndim)).expand(like.shape)
        everywhere = whole.all(0).nonzero()
        for row in everywhere[evenly_spaced(len(everywhere), per_site)].tolist():
            place = f"[{', '.join(map(str, row))}]" if row else ""
            found[f"{site}{place}"] = _scalar(site, tuple(row))
        if like.ndim > 1:
            found[f"rms of {site}"] = _root_mean_square(site, whole)
    program = Simulator(model, episodes)
    found["log-likelihood"] = program.log_likelihood
    found["TARP"] = _distance({s: program.draw(seed=seed + 1).draws[s] for s in masks}, masks)
    return found


def task_masks(model: Model, episodes: EpisodeBatch) -> dict[str, Tensor]:
    """Task-level site -> which of its entries exist: (task,), (task, way) or (task, way, shot)."""
    return {s: _mask(axes, episodes) for s, axes in model.dims.items() if "task" in axes}


def _mask(axes: tuple[str, ...], episodes: EpisodeBatch) -> Tensor:
    """(task,), (task, way) or (task, way, shot): which entries of a site exist."""
    if "shot" in axes:
        return episodes.shot_mask
    return episodes.way_mask if "way" in axes else episodes.way_mask.any(-1)


def _scalar(site: str, row: tuple[int, ...]) -> Quantity:
    at: tuple[int | slice, ...] = (slice(None), slice(None), *row)
    return lambda draws: draws[site][at]


def _root_mean_square(site: str, exists: Tensor) -> Quantity:
    def quantity(draws: Mapping[str, Tensor]) -> Tensor:
        squares = draws[site].square() * exists
        return (squares.flatten(2).sum(-1) / exists.flatten(1).sum(-1)).sqrt()

    return quantity


def _distance(reference: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Quantity:
    """Distance of the task-level sites from a reference point of each task."""

    def quantity(draws: Mapping[str, Tensor]) -> Tensor:
        parts = []
        for site, point in reference.items():
            mask = masks[site].reshape(*masks[site].shape, *[1] * (point.ndim - masks[site].ndim))
            squares = (draws[site] - point).square() * mask
            parts.append(squares.reshape(*squares.shape[:2], -1).sum(-1))
        return torch.stack(parts).sum(0).sqrt()

    return quantity


def gamma(ranks: Ints, levels: int) -> float:
    """The smallest two-sided binomial tail over all places; see the module."""
    counts = np.bincount(ranks, minlength=levels + 1)[:levels].cumsum()
    return float(_tails(len(ranks), levels)[np.arange(levels), counts].min())


def null_gamma(simulations: int, levels: int, draws: int = NULL_DRAWS) -> NDArray[np.float64]:
    """(draws,) gammas of uniform ranks."""
    rng = np.random.default_rng(0)
    even = np.full(levels + 1, 1 / (levels + 1))
    counts = rng.multinomial(simulations, even, size=draws)[:, :levels].cumsum(1)
    smallest: NDArray[np.float64] = _tails(simulations, levels)[np.arange(levels), counts].min(1)
    return smallest


def _tails(simulations: int, levels: int) -> NDArray[np.float64]:
    """(place, count): 2 min{P(B <= count), P(B >= count)}, at most 1."""
    share = (np.arange(levels)[:, None] + 1) / (levels + 1)
    count = np.arange(simulations + 1)
    lower, upper = binom.cdf(count, simulations, share), binom.sf(count - 1, simulations, share)
    tails: NDArray[np.float64] = np.minimum(1.0, 2 * np.minimum(lower, upper))
    return tails


def envelope(
    simulations: int, levels: int, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(levels,) ends of the band that holds all C_i / N - place with that probability."""
    cut = np.quantile(null_gamma(simulations, levels), 1 - level)
    share = (np.arange(levels) + 1) / (levels + 1)
    low = binom.ppf(cut / 2, simulations, share) / simulations - share
    high = binom.ppf(1 - cut / 2, simulations, share) / simulations - share
    return low, high


def chi_square_p(ranks: Ints, levels: int, least: int = 5) -> float:
    """P value of the chi-square test over bins that expect at least so many ranks, 20 at most."""
    most = max(2, min(20, len(ranks) // least))
    bins = max(b for b in range(2, most + 1) if (levels + 1) % b == 0 or b == 2)
    counts = np.bincount(ranks * bins // (levels + 1), minlength=bins)
    return float(chisquare(counts).pvalue)
