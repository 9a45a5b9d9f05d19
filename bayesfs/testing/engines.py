"""What every engine must hold: `EngineContract`, a mixin of tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from bayesfs.data.from_arrays import stack
from bayesfs.protocols import Engine
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing.expect import expect
from bayesfs.testing.toy import GaussianToy
from bayesfs.types import EpisodeBatch, Posterior


class EngineContract:
    """Inherit it, supply `make_engine`, and pytest runs every check below against your engine.

    The truth is the closed-form posterior of `GaussianToy`, whose class and video latents are
    correlated a posteriori. Give the engine as many steps and draws as its tolerances need.

    Attributes:
        mean_tolerance: largest error of a posterior mean, in posterior standard deviations.
        sd_ratio: smallest and largest accepted ratio of posterior standard deviations to the
            truth. A mean-field guide is too narrow where latents are correlated: say so here.
        joint_sd_ratio: the same where the population is inferred too; None means `sd_ratio`.
        learns_population: whether the engine can infer population sites.

    Example:
        >>> class TestMyEngine(EngineContract):
        ...     sd_ratio = (0.95, 1.05)
        ...     def make_engine(self):
        ...         return MyEngine(draws=2000)
    """

    mean_tolerance: float = 0.25
    sd_ratio: tuple[float, float] = (0.85, 1.15)
    joint_sd_ratio: tuple[float, float] | None = None
    learns_population: bool = True

    def make_engine(self) -> Engine:
        """The engine under test."""
        raise NotImplementedError("supply make_engine")

    def make_episodes(self) -> EpisodeBatch:
        """Tasks of unequal ways, shots and frames; override to change their sizes."""
        episodes, _ = synthetic_episodes(
            users=3, way=3, shots=2, frames=2, query_videos=1, dim=2, ragged=True, seed=3
        )
        return episodes

    def test_posterior_is_that_of_a_linear_gaussian_model(self) -> None:
        """Means and standard deviations against the dense solve, population given."""
        episodes = self.make_episodes()
        self._compare(self._usual(), GaussianToy().exact(episodes), self.sd_ratio, episodes)

    def test_population_is_inferred_jointly(self) -> None:
        """Without `given`, the population's sites are part of the posterior."""
        if not self.learns_population:
            return
        model, episodes = GaussianToy(), self.make_episodes()
        posterior = self.make_engine().infer(model, episodes, seed=0)
        limits = self.joint_sd_ratio or self.sd_ratio
        self._compare(posterior, model.exact(episodes, joint=True), limits, episodes)

    def test_posterior_is_complete(self) -> None:
        """Every task site is there, with the model's axes, finite; the population as given."""
        model, episodes, posterior = GaussianToy(), self.make_episodes(), self._usual()
        expect(
            set(posterior.draws) >= {"class_raw", "video_raw"}, f"sites {sorted(posterior.draws)}"
        )
        expect((posterior.draws.get("mean", torch.zeros(())) == 0).all(), "the population moved")
        for site, value in posterior.draws.items():
            expect(
                tuple(posterior.dims[site]) == model.dims[site],
                f"axes of {site} are not the model's",
            )
            expect(torch.isfinite(value).all(), f"{site} is not finite")
            expect(value.dtype == episodes.support.dtype, f"{site} is {value.dtype}")
        expect(
            posterior.kind in ("exact", "mcmc", "variational", "particles"),
            f"{posterior.kind!r} is no kind of posterior",
        )
        expect(posterior.seed == 0, f"seed 0 became {posterior.seed}")

    def test_the_same_seed_gives_the_same_draws(self) -> None:
        """And another seed gives others."""
        first = self._usual().draws["class_raw"]
        again, other = (
            _infer(self.make_engine(), self.make_episodes(), seed=s).draws["class_raw"]
            for s in (0, 1)
        )
        expect(torch.equal(first, again), "one seed gave two results")
        expect(not torch.equal(first, other), "two seeds gave one result")

    def test_global_random_state_is_left_alone(self) -> None:
        """Inference neither reads nor moves torch's global generator."""
        usual = self._usual().draws["class_raw"]
        torch.rand(1)  # wherever the generator stood then, it stands elsewhere now
        before = torch.get_rng_state()
        again = _infer(self.make_engine(), self.make_episodes()).draws["class_raw"]
        expect(torch.equal(before, torch.get_rng_state()), "the global generator has moved")
        expect(torch.equal(usual, again), "the global generator moves the draws")

    def test_the_query_never_changes_the_posterior(self) -> None:
        """Neither its features nor its labels."""
        episodes = self.make_episodes()
        changed = replace(
            episodes,
            query=torch.zeros_like(episodes.query),
            query_labels=torch.full_like(episodes.query_labels, -1),
        )
        first, second = self._usual(), _infer(self.make_engine(), changed)
        expect(
            torch.equal(first.draws["class_raw"], second.draws["class_raw"]),
            "the query changes the posterior",
        )

    def test_a_batch_is_its_tasks_one_by_one(self) -> None:
        """Up to Monte Carlo error, in units of the posterior's standard deviation."""
        episodes, together = self.make_episodes(), self._usual()
        for task in range(len(episodes)):
            alone = _infer(self.make_engine(), episodes.select([task]))
            exists = episodes.way_mask[task]
            self._close(
                together.draws["class_raw"][:, task], alone.draws["class_raw"][:, 0], exists
            )

    def test_padding_changes_nothing(self) -> None:
        """More classes, videos and frames in the arrays, none in the masks."""
        episodes, plain = self.make_episodes(), self._usual()
        wide = _infer(self.make_engine(), pad(episodes))
        ways = episodes.way
        inside = wide.draws["class_raw"][:, :, :ways]
        self._close(plain.draws["class_raw"], inside, episodes.way_mask)

    def test_relabelling_classes_permutes_the_posterior(self) -> None:
        """New class j is old class order[j]."""
        episodes, plain = self.make_episodes(), self._usual()
        order = [*range(1, episodes.way), 0]
        moved = _infer(self.make_engine(), episodes.permute_classes(order))
        exists = episodes.way_mask[:, order]
        self._close(plain.draws["class_raw"][:, :, order], moved.draws["class_raw"], exists)

    def _usual(self) -> Posterior:
        """What the engine infers from the tasks at seed 0, once for all checks of the class."""
        kind: Callable[[], EngineContract] = type(self)
        return _usual_of(kind)

    def _compare(
        self,
        posterior: Posterior,
        truth: dict[str, tuple[Tensor, Tensor]],
        limits: tuple[float, float],
        episodes: EpisodeBatch,
    ) -> None:
        """Moments of what exists; padding has independent draws of the prior."""
        expect(set(posterior.draws) >= set(truth), f"sites {sorted(posterior.draws)}")
        low, high = limits
        for site, (mean, sd) in truth.items():
            draws = posterior.draws[site].double()
            here = _exists(posterior.dims[site], episodes).expand(draws.shape[1:])
            draws, mean, sd = draws[:, here], mean[here], sd[here]
            error = ((draws.mean(0) - mean).abs() / sd).max()
            expect(error < self.mean_tolerance, f"mean of {site} is {error:.3f} sd off")
            ratio = draws.std(0) / sd
            expect(ratio.min() > low, f"sd of {site} is {ratio.min():.3f} times the truth")
            expect(ratio.max() < high, f"sd of {site} is {ratio.max():.3f} times the truth")

    def _close(self, first: Tensor, second: Tensor, exists: Tensor) -> None:
        """Means agree to twice the tolerance, where `exists` (..., way) is True."""
        gap = (first.mean(0) - second.mean(0)).abs() / first.std(0)
        worst = gap[exists].max()
        expect(worst < 2 * self.mean_tolerance, f"means are {worst:.3f} sd apart")


def _exists(axes: tuple[str, ...], episodes: EpisodeBatch) -> Tensor:
    """Mask, broadcast over the axes of a site, of what is no padding."""
    known = {("task", "way", "shot"): episodes.shot_mask, ("task", "way"): episodes.way_mask}
    mask = next((m for names, m in known.items() if axes[: len(names)] == names), None)
    if mask is None:
        return torch.ones((), dtype=torch.bool)
    return mask.reshape(*mask.shape, *[1] * (len(axes) - mask.ndim))


def pad(episodes: EpisodeBatch) -> EpisodeBatch:
    """The same tasks with one more padded class, video and frame in every array."""
    _, way, shots, frames, dim = episodes.support.shape
    wider, _ = synthetic_episodes(
        users=1,
        way=way + 1,
        shots=shots + 1,
        frames=frames + 1,
        query_videos=episodes.query.shape[1] + 1,
        query_frames=episodes.query.shape[2] + 1,
        dim=dim,
        seed=0,
    )
    return stack([episodes, wider.to(episodes.support.dtype)]).select(range(len(episodes)))


def _infer(engine: Engine, episodes: EpisodeBatch, seed: int = 0) -> Posterior:
    model = GaussianToy()
    given = model.fixed_population(episodes.dim)
    return engine.infer(model, episodes, seed=seed, given=given)


@lru_cache(maxsize=1)
def _usual_of(contract: Callable[[], EngineContract]) -> Posterior:
    return _infer(contract().make_engine(), contract().make_episodes())
