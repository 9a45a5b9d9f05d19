"""Learning from several worlds at once, and others' scatter learnt along."""

import numpy as np
import pytest

import bayesfs as bf
from bayesfs.errors import DataError
from bayesfs.features.reduction import UnitNorm
from bayesfs.inference.own_approximation import OwnApproximation
from bayesfs.models.similarity.heads import WithinScatter
from bayesfs.models.similarity.pool import SimilarityPool
from bayesfs.study import scatter_of
from bayesfs.synthetic.tasks import synthetic_embeddings


def study() -> bf.Study:
    return bf.Study(
        SimilarityPool(),
        OwnApproximation(draws=16, population_draws=2),
        bf.HeldOutUsers(shots=(1, 2), train_shots=(2,)),
        bf.SVI(steps=4, draws=8, khat_draws=0),
        bf.PredictiveScore,
        UnitNorm(),
    )


def world(seed: int) -> bf.Embeddings:
    made, _ = synthetic_embeddings(users=2, test_users=1, way=3, shots=3, dim=12, seed=seed)
    return made


def test_several_worlds_are_learnt_together_with_the_scatter_of_all_their_people() -> None:
    first, second = world(0), world(1)
    one = study().learn(first, seed=0)
    both = study().learn([first, second], seed=0)
    assert one.scatter is not None
    assert both.scatter is not None
    assert both.scatter.objects == 2 * one.scatter.objects
    tasks = study().tasks(second, both, seed=0)
    answer = study().infer(tasks, both, seed=0)
    told = answer.model
    assert isinstance(told, SimilarityPool)
    assert isinstance(told.scatter, WithinScatter)
    np.testing.assert_array_equal(told.scatter.axes, both.scatter.axes)
    assert set(answer.posterior.draws) == set(told.dims)


def test_a_user_s_own_videos_have_no_part_in_the_scatter_they_are_learnt_with() -> None:
    frames = UnitNorm().fit(world(0))(world(0)).where(split="train")
    users = sorted(set(frames.coord("user").tolist()))
    without = scatter_of(frames, without=users[0])
    alone = scatter_of(frames.where(user=users[1]))
    np.testing.assert_array_equal(without.axes, alone.axes)
    assert without.objects < scatter_of(frames).objects
    nobody = scatter_of(frames.where(user=users[1]), without=users[1])
    assert nobody.axes.shape == (12, 0)


def test_the_objective_learns_in_the_metric_of_the_others() -> None:
    """The program that the engine gets has a scatter for each user, none of them everybody's."""
    seen = []

    def objective(model: SimilarityPool) -> bf.PredictiveScore:
        seen.append(model.scatter)
        return bf.PredictiveScore(model)

    objective.needs_query = True  # type: ignore[attr-defined]
    mine = study()
    mine = bf.Study(
        mine.model, mine.engine, mine.evaluation, mine.population_engine, objective, UnitNorm()
    )
    learnt = mine.learn(world(0), seed=0)
    (scatters,) = seen
    assert isinstance(scatters, dict)
    assert len(scatters) == 2
    assert learnt.scatter is not None
    assert all(s.objects != learnt.scatter.objects for s in scatters.values())


def test_no_world_is_refused() -> None:
    with pytest.raises(DataError, match="one world or more"):
        study().learn([], seed=0)
