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


def exact_study(draws: int) -> bf.Study:
    return bf.Study(
        bf.GaussianHierarchy(),
        bf.Exact(draws=draws, population_draws=draws),
        bf.HeldOutUsers(shots=(1,), train_shots=(2,)),
        bf.SVI(steps=60, draws=600, khat_draws=0),
    )


def test_draws_are_spent_until_the_share_is_known_to_a_point() -> None:
    made, _ = synthetic_embeddings(users=4, test_users=2, way=3, shots=3, dim=8, seed=0)
    study = exact_study(8)
    learnt = study.learn(made, seed=0)
    tasks = study.tasks(made, learnt, seed=0)
    before = study.infer(tasks, learnt, seed=0)
    after = study.settled(tasks, learnt, seed=0)
    assert before.monte_carlo(learnt).share_error > 0.01
    assert after.posterior.num_draws > 8
    error = after.monte_carlo(learnt).share_error
    assert error <= 0.01 or after.posterior.num_draws == learnt.population.num_draws
    known = exact_study(after.posterior.num_draws).settled(tasks, learnt, seed=0)
    assert known.posterior.num_draws == after.posterior.num_draws


def test_no_more_draws_than_the_population_has() -> None:
    made, _ = synthetic_embeddings(users=4, test_users=2, way=3, shots=3, dim=8, seed=0)
    learnt = exact_study(8).learn(made, seed=0)
    engine = bf.Exact(draws=24, population_draws=8)
    assert engine.with_more_draws(3.0, learnt.population) == bf.Exact(72, 24)
    assert engine.with_more_draws(1e6, learnt.population) == bf.Exact(1800, 600)
    assert bf.Exact(600, 600).with_more_draws(2.0, learnt.population) is None
    own = OwnApproximation(draws=24, population_draws=8)
    assert own.with_more_draws(3.0, learnt.population) == OwnApproximation(72, 24)
    assert bf.SVI().with_more_draws(2.0, learnt.population) is None


@pytest.mark.parametrize("learns", [True, False], ids=["learn", "check"])
def test_qualities_of_other_names_or_in_another_order_are_refused(learns: bool) -> None:
    """In another order each slope would have the name of another quality."""
    frames, _ = synthetic_embeddings(users=2, test_users=1, way=3, shots=5, dim=8, seed=0)
    quality = np.zeros((len(frames), 2))
    measured = frames.dataset.assign(quality=(("frame", "covariate"), quality))

    def asked(*named: str) -> None:
        given = bf.Embeddings(measured.assign_coords(covariate=[*named]) if named else measured)
        model = bf.GaussianHierarchy(covariates=("sharpness", "contrast"))
        engine = bf.SVI(steps=2, draws=4, khat_draws=0)
        made = bf.Study(model, bf.Exact(), bf.HeldOutUsers(), engine, bf.PredictiveScore)
        if learns:
            made.learn(given, seed=0)
        else:
            made.check(given, seed=0)

    for other in (("contrast", "sharpness"), ("sharpness", "blur")):
        with pytest.raises(DataError, match=f"sharpness, contrast, .* got {', '.join(other)};"):
            asked(*other)
    asked("sharpness", "contrast")
    asked()  # not named: the number is what there is to go by
    measured = frames.dataset
    with pytest.raises(DataError, match=r"sharpness, contrast, .* got none;"):
        asked()
