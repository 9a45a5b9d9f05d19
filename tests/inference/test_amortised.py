import pytest
import torch

from bayesfs.errors import InferenceError
from bayesfs.inference.svi.amortised import AmortisedSVI, SiteMap
from bayesfs.inference.svi.guides import FullRank
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing import EngineContract, GaussianToy


class TestAmortisedSVI(EngineContract):
    mean_tolerance = 0.3
    sd_ratio = (0.65, 1.15)
    learns_population = False

    def make_engine(self):
        return AmortisedSVI(refine=200, draws=2000)


def head_tasks(users, seed):
    episodes, _ = synthetic_episodes(
        users=users, way=3, shots=3, frames=2, query_videos=1, dim=6, seed=seed
    )
    return HierarchicalHead(weight_scale=2.0), episodes


def test_a_new_task_is_nearly_at_its_optimum_without_a_step():
    """Evidence bound of the bare prediction, between an unfitted guide and full optimisation."""
    model, train = head_tasks(30, seed=0)
    _, test = head_tasks(10, seed=1)
    given = model.default_population(6)
    learnt = AmortisedSVI(refine=0).learn(model, train, seed=0, given=given)
    fits = {
        "best": SVI(steps=1500, particles=4),
        "predicted": learnt,
        "unfitted": SVI(steps=1, draws=200),
    }
    bound = {
        name: float(e.infer(model, test, seed=0, given=given).sample_stats["evidence_bound"].mean())
        for name, e in fits.items()
    }
    assert bound["best"] - bound["predicted"] < 0.15 * (bound["best"] - bound["unfitted"])
    refined = AmortisedSVI(maps=learnt.maps, refine=100).infer(model, test, seed=0, given=given)
    assert float(refined.sample_stats["evidence_bound"].mean()) > bound["predicted"] - 0.1


def test_map_is_exact_where_the_posterior_is_linear_in_the_score():
    """One video per class, one frame: class and video latents are affine in x, so is the score."""
    model = GaussianToy()
    episodes, _ = synthetic_episodes(users=40, way=2, shots=1, frames=1, dim=2, seed=0)
    given = model.fixed_population(2)
    engine = AmortisedSVI(refine=0, learner=SVI(steps=3000, particles=4)).learn(
        model, episodes, seed=0, given=given
    )
    noise = model.frame_scale**2
    total = model.class_scale**2 + model.video_scale**2 + noise
    slope = model.class_scale / total / (model.class_scale / noise)
    assert engine.maps["class_raw"].slope == pytest.approx(slope, rel=0.03)
    assert engine.maps["class_raw"].intercept == pytest.approx(0, abs=0.03)


def test_wrong_uses_are_explained():
    model, episodes = head_tasks(2, seed=0)
    with pytest.raises(InferenceError, match="needs given="):
        AmortisedSVI().infer(model, episodes, seed=0)
    with pytest.raises(InferenceError, match="learnt for another model"):
        AmortisedSVI(maps={"other": SiteMap(1.0, 0.0, 0.0)}).infer(
            model, episodes, seed=0, given=model.default_population(6)
        )
    with pytest.raises(InferenceError, match="MeanField"):
        AmortisedSVI(learner=SVI(guide=FullRank()))
    with pytest.raises(InferenceError, match="refine: expected 0 or more, got -1"):
        AmortisedSVI(refine=-1)


def test_padding_keeps_its_prior():
    model = GaussianToy()
    episodes, _ = synthetic_episodes(users=20, way=4, shots=2, frames=2, dim=2, ragged=True, seed=0)
    posterior = AmortisedSVI(refine=0, draws=2000).infer(
        model, episodes, seed=0, given=model.fixed_population(2)
    )
    padded = posterior.draws["class_raw"][:, ~episodes.way_mask]
    assert padded.numel() > 0
    torch.testing.assert_close(padded.mean(), torch.tensor(0.0), atol=0.05, rtol=0)
    torch.testing.assert_close(padded.std(), torch.tensor(1.0), atol=0.05, rtol=0)
