"""What every model must hold: `ModelContract`, a mixin of tests."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bayesfs.inference.exact import Exact
from bayesfs.inference.program.potential import Potential, potential
from bayesfs.inference.program.simulation import Simulator
from bayesfs.inference.svi.guides import FullRank
from bayesfs.inference.svi.svi import SVI
from bayesfs.prediction import predict
from bayesfs.protocols import Conjugate, Model
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing.engines import pad
from bayesfs.testing.expect import expect
from bayesfs.types import EpisodeBatch, Posterior
from bayesfs.uncertainty.decompose import decompose_draws


class ModelContract:
    """Inherit it, supply `make_model`, and pytest runs every check below against your model.

    Checks run in double precision, on the model's own unconstrained density and on its label
    likelihood at draws from the prior. Only those of epistemic uncertainty need an engine: `Exact`
    where the model is conjugate, else `SVI`.

    Attributes:
        class_axes: axes of `dims` that have one entry per class.
        video_axes: axes of `dims` that have one entry per support video.
        frames_are_redundant: whether repeating every frame of a video must leave the posterior
            as it is.
        repetition_gain: the largest share of the epistemic uncertainty that repeating every one of
            eight frames may take away. A model with frame noise takes the repeats for new frames;
            at equal variances of video and frame that lowers a video's variance by 1 in 18.
        has_epistemic: False for a point estimate, whose uncertainty cannot fall.

    Example:
        >>> class TestMyModel(ModelContract):
        ...     def make_model(self):
        ...         return MyModel()
    """

    class_axes: tuple[str, ...] = ("way",)
    video_axes: tuple[str, ...] = ("shot",)
    frames_are_redundant: bool = False
    repetition_gain: float = 0.01
    has_epistemic: bool = True

    def make_model(self) -> Model:
        """The model under test."""
        raise NotImplementedError("supply make_model")

    def make_population(self, model: Model, episodes: EpisodeBatch) -> Posterior | None:
        """Population to condition on: one prior draw of the model; None if it has no population."""
        names = [name for name, axes in model.dims.items() if "task" not in axes]
        if not names:
            return None
        joint = potential(model, episodes)
        draws = joint.constrain(joint.prior(1, seed=0))
        dims = {name: tuple(model.dims[name]) for name in names}
        return Posterior("exact", {name: draws[name] for name in names}, dims)

    def make_episodes(self) -> EpisodeBatch:
        """Tasks of unequal ways, shots and frames; override to change their sizes.

        Keep tasks, ways, shots and frames different in number: where two are equal, an axis in the
        place of another goes unseen.
        """
        episodes, _ = synthetic_episodes(
            users=3, way=4, shots=5, frames=2, query_videos=1, dim=3, ragged=True, seed=3
        )
        return episodes.to(torch.float64)

    def make_tasks(self) -> EpisodeBatch:
        """Many small tasks of equal size, three videos of eight frames each, to average over."""
        episodes, _ = synthetic_episodes(
            users=6, way=3, shots=3, frames=8, query_videos=2, query_frames=2, dim=3, seed=5
        )
        return episodes.to(torch.float64)

    def make_plain_population(self, model: Model, episodes: EpisodeBatch) -> Posterior | None:
        """Population whose tasks `make_tasks` might be of; prior medians by default."""
        names = [name for name, axes in model.dims.items() if "task" not in axes]
        if not names:
            return None
        joint = potential(model, episodes)
        prior = joint.constrain(joint.prior(201, seed=0))
        dims = {name: tuple(model.dims[name]) for name in names}
        return Posterior(
            "exact", {name: prior[name].median(0).values[None] for name in names}, dims
        )

    def infer(self, model: Model, episodes: EpisodeBatch, given: Posterior | None) -> Posterior:
        """Posterior for the checks of epistemic uncertainty.

        A mean-field guide will not do: it takes a class and its videos for independent, and then
        a video of many frames leaves nothing unknown about the class.
        """
        if isinstance(model, Conjugate) and given is not None:
            return Exact(draws=200, population_draws=1).infer(model, episodes, seed=0, given=given)
        engine = SVI(FullRank(), steps=200, draws=200, khat_draws=0)
        return engine.infer(model, episodes, seed=0, given=given)

    def test_dims_name_what_the_program_samples(self) -> None:
        """`potential` compares every site of the trace with `dims`."""
        model, episodes = self.make_model(), self.make_episodes()
        joint = potential(model, episodes)
        expect(
            set(joint.blocks) == set(model.dims),
            f"sites {sorted(joint.blocks)}, dims {sorted(model.dims)}",
        )
        for site, draws in joint.constrain(joint.prior(2, seed=0)).items():
            expect(draws.ndim == 1 + len(model.dims[site]), f"axes of {site}")

    def test_density_and_gradient_are_finite(self) -> None:
        """At draws from the prior."""
        density = self._density()
        value, gradient = density.value_and_gradient(density.prior(5, seed=1))
        expect(torch.isfinite(value).all(), f"density {value}")
        expect(torch.isfinite(gradient).all(), "a gradient is not finite")

    def test_gradient_is_that_of_the_density(self) -> None:
        """Against central differences along random directions."""
        density = self._density()
        z = density.prior(3, seed=1)
        _, gradient = density.value_and_gradient(z)
        direction = torch.randn(z.shape, generator=torch.Generator().manual_seed(0)).to(z)
        step = 1e-5 * direction
        slope = (density.log_density(z + step) - density.log_density(z - step)) / 2e-5
        _assert_close(slope, (gradient * direction).sum(-1), 1e-4)

    def test_tasks_are_independent_given_the_population(self) -> None:
        """The density of a batch is that of its tasks one by one."""
        model, episodes = self.make_model(), self.make_episodes()
        given = self.make_population(model, episodes)
        together = potential(model, episodes, given)
        z = together.prior(3, seed=2)
        for task in range(len(episodes)):
            alone = potential(model, episodes.select([task]), given)
            rows = z[[task]]
            _assert_close(alone.log_density(rows), together.log_density(z)[[task]], 1e-8)

    def test_densities_of_sites_are_those_of_the_tasks_one_by_one(self) -> None:
        """`Simulator.log_densities`, with as many tasks as classes: no axis stands for another."""
        model, ways = self.make_model(), self.make_episodes().way
        few = self.make_episodes()
        episodes = few.select([i % len(few) for i in range(ways)])
        given = self.make_population(model, episodes)
        draws = self._draws(model, episodes, given)
        together = Simulator(model, episodes).log_densities(draws)
        for task in range(ways):
            own = {s: _of_task(model, s, v, task) for s, v in draws.items()}
            alone = Simulator(model, episodes.select([task])).log_densities(own)
            for site, value in alone.items():
                if value.ndim == 2:
                    _assert_close(together[site][:, [task]], value, 1e-8)

    def test_the_query_never_enters_the_program(self) -> None:
        """Neither its features nor its labels."""
        model, episodes = self.make_model(), self.make_episodes()
        given = self.make_population(model, episodes)
        changed = replace(
            episodes,
            query=torch.zeros_like(episodes.query),
            query_labels=torch.full_like(episodes.query_labels, -1),
        )
        density = potential(model, episodes, given)
        z = density.prior(2, seed=2)
        other = potential(model, changed, given)
        expect(
            torch.equal(density.log_density(z), other.log_density(z)),
            "the query changes the density",
        )

    def test_padding_changes_no_density(self) -> None:
        """Two points that agree in the padding differ by as much as without padding."""
        model, episodes = self.make_model(), self.make_episodes()
        given = self.make_population(model, episodes)
        plain, wide = potential(model, episodes, given), potential(model, pad(episodes), given)
        draws = plain.constrain(plain.prior(2, seed=3))
        filler = wide.constrain(wide.prior(1, seed=4))
        padded = {site: _inside(filler[site], value) for site, value in draws.items()}
        _assert_close(
            _contrast(wide.log_density(wide.unconstrain(padded))),
            _contrast(plain.log_density(plain.unconstrain(draws))),
            1e-8,
        )

    def test_padding_changes_no_prediction(self) -> None:
        """Real classes and frames keep their probabilities; padded classes have none."""
        model, episodes = self.make_model(), self.make_episodes()
        wide = pad(episodes)
        given = self.make_population(model, episodes)
        draws = self._draws(model, episodes, given)
        filler = self._draws(model, wide, given)
        padded = {site: _inside(filler[site], value) for site, value in draws.items()}
        plain_video = model.log_joint_video(draws, episodes).softmax(-1)
        wide_video = model.log_joint_video(padded, wide).softmax(-1)
        videos, ways = plain_video.shape[2:]
        exists = episodes.video_mask
        inside = wide_video[:, :, :videos, :ways]
        _assert_close(inside[:, exists], plain_video[:, exists], 1e-8)
        expect((wide_video[..., ways:] == 0).all(), "a padded class has a probability")
        plain_frame = model.log_joint_frame(draws, episodes).softmax(-1)
        wide_frame = model.log_joint_frame(padded, wide).softmax(-1)
        frames, exists = plain_frame.shape[3], episodes.query_mask
        inside = wide_frame[:, :, :videos, :frames, :ways]
        _assert_close(inside[:, exists], plain_frame[:, exists], 1e-8)
        expect((wide_frame[..., ways:] == 0).all(), "a padded class has a probability")

    def test_predictions_are_distributions_over_existing_classes(self) -> None:
        """Shapes of the contract; -inf exactly at padded classes."""
        model, episodes = self.make_model(), self.make_episodes()
        draws = self._draws(model, episodes, self.make_population(model, episodes))
        tasks, videos, frames = episodes.query_mask.shape
        frame = model.log_joint_frame(draws, episodes)
        video = model.log_joint_video(draws, episodes)
        expect(frame.shape == (4, tasks, videos, frames, episodes.way), f"shape {frame.shape}")
        expect(video.shape == (4, tasks, videos, episodes.way), f"shape {video.shape}")
        exists = episodes.way_mask[:, None].expand(video.shape[1:])
        expect(
            torch.isfinite(video[:, exists]).all(),
            "a class that exists has no density",
        )
        expect(
            (video[:, ~exists] == -torch.inf).all(),
            "a padded class has a density",
        )
        exists = episodes.way_mask[:, None, None].expand(frame.shape[1:])
        expect(
            torch.isfinite(frame[:, exists]).all(),
            "a class that exists has no density",
        )
        expect(
            (frame[:, ~exists] == -torch.inf).all(),
            "a padded class has a density",
        )

    def test_a_video_of_one_frame_is_that_frame(self) -> None:
        """Both label likelihoods agree there."""
        model, episodes = self.make_model(), self.make_episodes()
        draws = self._draws(model, episodes, self.make_population(model, episodes))
        keep = ("query", "query_mask", "query_quality", "query_frame")
        cut = {
            name: getattr(episodes, name)[:, :, :1]
            for name in keep
            if getattr(episodes, name) is not None
        }
        stills = replace(episodes, **cut)
        exists = stills.query_mask[..., 0]
        frame = model.log_joint_frame(draws, stills)[:, :, :, 0].softmax(-1)
        video = model.log_joint_video(draws, stills).softmax(-1)
        _assert_close(frame[:, exists], video[:, exists], 1e-6)

    def test_relabelling_classes_permutes_everything(self) -> None:
        """Density unchanged, predictions permuted."""
        model, episodes = self.make_model(), self.make_episodes()
        given = self.make_population(model, episodes)
        order = [*range(1, episodes.way), 0]
        moved = episodes.permute_classes(order)
        draws = self._draws(model, episodes, given)
        other = {site: self._permute(model, site, v, order) for site, v in draws.items()}
        before, after = potential(model, episodes, given), potential(model, moved, given)
        _assert_close(
            after.log_density(after.unconstrain(other)),
            before.log_density(before.unconstrain(draws)),
            1e-8,
        )
        video = model.log_joint_video(draws, episodes).softmax(-1)[..., order]
        _assert_close(model.log_joint_video(other, moved).softmax(-1), video, 1e-8)

    def test_the_order_of_videos_and_frames_does_not_matter(self) -> None:
        """Support and query, videos and frames reversed: the same density, predictions reversed."""
        model, episodes = self.make_model(), self.make_episodes()
        given = self.make_population(model, episodes)
        turned = _reversed(episodes)
        draws = self._draws(model, episodes, given)
        other = {site: self._reverse_videos(model, site, v) for site, v in draws.items()}
        before, after = potential(model, episodes, given), potential(model, turned, given)
        _assert_close(
            after.log_density(after.unconstrain(other)),
            before.log_density(before.unconstrain(draws)),
            1e-8,
        )
        exists = episodes.video_mask
        video = model.log_joint_video(draws, episodes).softmax(-1)
        again = model.log_joint_video(other, turned).softmax(-1).flip(2)
        _assert_close(again[:, exists], video[:, exists], 1e-8)
        frame = model.log_joint_frame(draws, episodes).softmax(-1)
        again = model.log_joint_frame(other, turned).softmax(-1).flip(2, 3)
        _assert_close(again[:, episodes.query_mask], frame[:, episodes.query_mask], 1e-8)

    def test_new_support_videos_lower_the_expected_epistemic_uncertainty(self) -> None:
        """Mean over tasks, frames and videos alike, from one support video to three."""
        if not self.has_epistemic:
            return
        model, tasks = self.make_model(), self.make_tasks()
        few = self._epistemic(model, tasks.limit_shots(1))
        many = self._epistemic(model, tasks)
        expect(
            (many < few).all(), f"epistemic (frame, video): {few} from one video, {many} of three"
        )

    def test_repeating_every_frame_hardly_lowers_the_epistemic_uncertainty(self) -> None:
        """By no more than `repetition_gain`, on average over tasks."""
        if not self.has_epistemic:
            return
        model, tasks = self.make_model(), self.make_tasks()
        once, twice = self._epistemic(model, tasks), self._epistemic(model, _repeated(tasks))
        ratio = twice / once
        expect((ratio > 1.0 - self.repetition_gain - 1e-9).all(), f"repeated over once: {ratio}")

    def test_repeating_every_frame_adds_no_information(self) -> None:
        """Where `frames_are_redundant`: the posterior density stays as it is."""
        if not self.frames_are_redundant:
            return
        model, episodes = self.make_model(), self.make_episodes()
        given = self.make_population(model, episodes)
        first = potential(model, episodes, given)
        second = potential(model, _repeated(episodes), given)
        z = first.prior(3, seed=5)
        _assert_close(_contrast(second.log_density(z)), _contrast(first.log_density(z)), 1e-8)

    def _density(self) -> Potential:
        model, episodes = self.make_model(), self.make_episodes()
        return potential(model, episodes, self.make_population(model, episodes))

    def _draws(
        self, model: Model, episodes: EpisodeBatch, given: Posterior | None
    ) -> dict[str, Tensor]:
        """Four draws of every site: task sites from the prior, the population as given."""
        density = potential(model, episodes, given)
        draws = density.constrain(density.prior(4, seed=1))
        population = given.population if given is not None else {}
        shared = {s: v.expand(4, *v.shape[1:]).to(episodes.support) for s, v in population.items()}
        return {**draws, **shared}

    def _epistemic(self, model: Model, episodes: EpisodeBatch) -> Tensor:
        """Mean epistemic uncertainty of query frames, and of query videos, in nats."""
        given = self.make_plain_population(model, episodes)
        posterior = self.infer(model, episodes, given)
        predictive = predict(model, posterior, episodes, given=given)
        frame, video = decompose_draws(predictive.frame)[2], decompose_draws(predictive.video)[2]
        return torch.stack([frame[episodes.query_mask].mean(), video[episodes.video_mask].mean()])

    def _reverse_videos(self, model: Model, site: str, value: Tensor) -> Tensor:
        axes = [a for a, name in enumerate(model.dims[site], start=1) if name in self.video_axes]
        return value.flip(axes) if axes else value

    def _permute(self, model: Model, site: str, value: Tensor, order: list[int]) -> Tensor:
        for axis, name in enumerate(model.dims[site], start=1):
            if name in self.class_axes:
                value = value.index_select(axis, torch.tensor(order))
        return value


def _of_task(model: Model, site: str, value: Tensor, task: int) -> Tensor:
    """Draws of one task, its axis kept; of a population site, as they are."""
    return value[:, [task]] if "task" in model.dims[site] else value


def _repeated(episodes: EpisodeBatch) -> EpisodeBatch:
    """Every support frame twice, by so little apart that it is not told for a copy."""
    names = ("support", "support_mask", "support_quality", "support_frame")
    twice = {
        name: getattr(episodes, name).repeat_interleave(2, 3)
        for name in names
        if getattr(episodes, name) is not None
    }
    second = torch.arange(twice["support"].shape[3]) % 2
    twice["support"] = twice["support"] * (1.0 + 1e-12 * second.to(twice["support"])[:, None])
    return replace(episodes, **twice)


def _reversed(episodes: EpisodeBatch) -> EpisodeBatch:
    """Support shots and frames, query videos and frames, each in reverse order."""
    axes = {
        "support_condition": (2,),
        "query_condition": (1,),
        "query_labels": (1,),
        **dict.fromkeys(("support", "support_mask", "support_quality", "support_frame"), (2, 3)),
        **dict.fromkeys(("query", "query_mask", "query_quality", "query_frame"), (1, 2)),
    }
    turned = {
        name: getattr(episodes, name).flip(where)
        for name, where in axes.items()
        if getattr(episodes, name) is not None
    }
    return replace(episodes, videos=tuple(names[::-1] for names in episodes.videos), **turned)


def _inside(outer: Tensor, inner: Tensor) -> Tensor:
    """Values of `inner` in the leading corner of `outer`, one draw of which is repeated."""
    result = outer[:1].expand(len(inner), *outer.shape[1:]).clone()
    result[tuple(slice(0, n) for n in inner.shape)] = inner
    return result


def _contrast(value: Tensor) -> Tensor:
    """(task, particle) -> differences from the first particle."""
    return value - value[:, :1]


def _assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
