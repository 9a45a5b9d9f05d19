from dataclasses import dataclass

import pytest
import torch

from bayesfs.simulate import Program
from bayesfs.testing import EngineContract, GaussianToy, ModelContract
from bayesfs.types import Posterior


class TestGaussianToy(ModelContract):
    repetition_gain = 0.2

    def make_model(self):
        return GaussianToy()


@dataclass(frozen=True)
class DenseEngine:
    """Draws from the toy's own closed-form marginals: enough for a contract on marginals."""

    draws: int = 4000

    def infer(self, model, episodes, *, seed, given=None):
        generator = torch.Generator().manual_seed(seed)
        exact = model.exact(episodes, joint=given is None)
        draws = {
            site: (mean + sd * torch.randn(self.draws, *mean.shape, generator=generator)).to(
                episodes.support
            )
            for site, (mean, sd) in exact.items()
        }
        return Posterior("exact", draws, {s: model.dims[s] for s in draws}, seed=seed)


class TestDenseEngine(EngineContract):
    mean_tolerance = 0.1
    sd_ratio = (0.95, 1.05)

    def make_engine(self):
        return DenseEngine()


@dataclass(frozen=True)
class PeekingEngine(DenseEngine):
    """Wrong on purpose: lets the query into the posterior."""

    def infer(self, model, episodes, *, seed, given=None):
        return super().infer(model, episodes, seed=seed + int(episodes.query.sum()), given=given)


def test_the_contract_catches_an_engine_that_reads_the_query():
    class Contract(EngineContract):
        def make_engine(self):
            return PeekingEngine()

    with pytest.raises(AssertionError):
        Contract().test_the_query_never_changes_the_posterior()


def test_the_contract_catches_a_wrong_scale():
    @dataclass(frozen=True)
    class Wide(DenseEngine):
        def infer(self, model, episodes, *, seed, given=None):
            p = super().infer(model, episodes, seed=seed, given=given)
            return Posterior(p.kind, {s: 1.5 * v for s, v in p.draws.items()}, p.dims)

    class Contract(EngineContract):
        def make_engine(self):
            return Wide()

    with pytest.raises(AssertionError, match=r"sd|mean"):
        Contract().test_posterior_is_that_of_a_linear_gaussian_model()


def test_the_contract_catches_a_model_whose_frames_count_as_padding():
    class Leaky(GaussianToy):
        """Wrong on purpose: ignores the mask."""

        def __call__(self, episodes):
            from dataclasses import replace

            every = torch.ones_like(episodes.support_mask)
            super().__call__(replace(episodes, support_mask=every, classes=()))

    class Contract(ModelContract):
        def make_model(self):
            return Leaky()

    with pytest.raises(AssertionError):
        Contract().test_padding_changes_no_density()


def test_the_contract_catches_a_model_for_which_order_matters():
    class Ordered(GaussianToy):
        """Wrong on purpose: the first frame of a query video counts most."""

        def log_joint_video(self, draws, episodes):
            return self.log_joint_frame(draws, episodes)[:, :, :, 0]

    class Contract(ModelContract):
        def make_model(self):
            return Ordered()

    with pytest.raises(AssertionError):
        Contract().test_the_order_of_videos_and_frames_does_not_matter()


def test_the_contract_catches_frames_that_count_as_shots():
    class Flat(GaussianToy):
        """Wrong on purpose: no video effect to speak of, so that every frame is a shot."""

    class Contract(ModelContract):
        def make_model(self):
            return Flat(video_scale=1e-3)

    with pytest.raises(AssertionError, match="repeated over once"):
        Contract().test_repeating_every_frame_hardly_lowers_the_epistemic_uncertainty()


def test_the_contract_s_tasks_ways_shots_and_frames_differ_in_number():
    sizes = ModelContract().make_episodes().support.shape[:4]
    assert len(set(sizes)) == 4


def test_the_contract_catches_densities_that_are_summed_over_other_tasks(monkeypatch):
    """As an axis that stands for another one would."""

    class Contract(ModelContract):
        def make_model(self):
            return GaussianToy()

    plain = Program._by_task

    def mixed(self, name, node):
        value = plain(self, name, node)
        return value.sum().expand(value.shape)

    monkeypatch.setattr(Program, "_by_task", mixed)
    with pytest.raises(AssertionError):
        Contract().test_densities_of_sites_are_those_of_the_tasks_one_by_one()
