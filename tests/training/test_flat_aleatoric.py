"""Aleatoric uncertainty that more videos leave alone, from a population that has it wrong."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from bayesfs.errors import InferenceError
from bayesfs.evaluation.held_out_users import HeldOutUsers
from bayesfs.features.reduction import PrincipalAxes, UnitNorm
from bayesfs.inference.exact import Exact
from bayesfs.inference.svi.svi import SVI
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.models.niw.classes import NIWClasses
from bayesfs.models.objectives import PredictiveScore
from bayesfs.study import Learnt, Study
from bayesfs.synthetic.tasks import synthetic_embeddings
from bayesfs.synthetic.truth import Population
from bayesfs.training.flat_aleatoric import flat_aleatoric, scaled
from bayesfs.types import Embeddings

SHOTS = (1, 4)


@pytest.fixture(scope="module")
def people() -> Embeddings:
    world = Population.isotropic(6, class_scale=0.5, video_scale=(0.4, 0.4), frame_scale=(0.5, 0.5))
    made, _ = synthetic_embeddings(world, users=8, way=4, shots=5, frames=3, seed=0)
    return made


@dataclass(frozen=True, repr=False)
class Crooked(Study):
    """Learns populations whose classes lie e^off times as far apart as they should."""

    off: float = 0.0

    def learn(self, *data, **options) -> Learnt:
        found = super().learn(*data, **options)
        return replace(found, population=scaled(found.population, self.off, 0.0))


@pytest.fixture(scope="module")
def study() -> Crooked:
    return Crooked(
        GaussianHierarchy(),
        Exact(draws=32, population_draws=4),
        HeldOutUsers(shots=SHOTS, train_shots=SHOTS),
        SVI(steps=60, draws=20, khat_draws=0),
        PredictiveScore,
        PrincipalAxes(6),
    )


def kinds(study: Study, learnt: Learnt, people: Embeddings) -> np.ndarray:
    """(shots, kind) mean total and aleatoric, as answers have them, of draws of another seed."""
    tasks = study.train_tasks(people, learnt, seed=0)
    engine = Exact(draws=256, population_draws=4)
    answers = [
        replace(study, engine=engine).infer(tasks.limit_shots(n), learnt, seed=9).uncertainty
        for n in SHOTS
    ]
    return np.array(
        [
            [
                np.mean([np.nanmean(u[f"{unit}_{kind}"]) for unit in ("frame", "video")])
                for kind in ("total", "aleatoric")
            ]
            for u in answers
        ]
    )


@pytest.mark.parametrize("off", [-0.5, 0.5])
def test_a_crooked_split_is_straightened_and_answers_stay_as_sure(
    study: Crooked, people: Embeddings, off: float
) -> None:
    study = replace(study, off=off)
    crooked = study.learn(people, seed=0)
    straight = flat_aleatoric(study, crooked, people, folds=2, seed=0)
    before, after = (kinds(study, one, people) for one in (crooked, straight))
    drift = [abs(np.diff(found[:, 1])[0]) / found[:, 1].mean() for found in (before, after)]
    assert drift[0] > 0.08
    assert drift[1] < 0.05
    assert after[:, 0].mean() == pytest.approx(before[:, 0].mean(), rel=0.05)
    ratio = straight.population.draws["scale"] / crooked.population.draws["scale"]
    np.testing.assert_allclose(ratio[:, 0], 1.0)
    np.testing.assert_allclose(ratio[:, 2:], ratio[:, [2]].expand(-1, 4))


def test_it_asks_for_scales_and_for_two_numbers_of_videos(
    study: Crooked, people: Embeddings
) -> None:
    learnt = study.learn(people, seed=0)
    with pytest.raises(InferenceError, match="9 train users at least"):
        flat_aleatoric(study, learnt, people, folds=9, seed=0)
    once = replace(study, evaluation=HeldOutUsers(shots=(2,)))
    with pytest.raises(InferenceError, match="two numbers of support videos"):
        flat_aleatoric(once, learnt, people, seed=0)
    other = replace(study, model=NIWClasses(), reduction=UnitNorm())
    with pytest.raises(InferenceError, match="a scale of each of task, class"):
        flat_aleatoric(
            other,
            replace(
                learnt,
                population=learnt.population.changed(
                    draws={"mean_scale": learnt.population.draws["loading"]},
                    dims={"mean_scale": ()},
                ),
            ),
            people,
            seed=0,
        )
