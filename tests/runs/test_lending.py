"""A population that several runs have in common: taken over whole, or not at all."""

from dataclasses import replace
from pathlib import Path

import pytest

import bayesfs as bf
from bayesfs.models.objectives import PredictiveScore
from bayesfs.runs.directory import RunDirectory
from bayesfs.runs.lending import IDENTITY, LEARNT, WARNINGS, borrow, population_identity
from bayesfs.synthetic.tasks import synthetic_embeddings


def lender(folder: Path, name: str, *, identity: str = "same") -> RunDirectory:
    run = RunDirectory(folder / name)
    with run.begin({"name": name}, {}):
        for file in (LEARNT[0], LEARNT[-1]):
            run.keep(file, lambda path: path.write_text(path.name, encoding="utf-8"))
        run.note(**{IDENTITY: identity, WARNINGS: ["few people"]})
    return run


def test_a_population_is_taken_over_with_its_warnings(tmp_path: Path) -> None:
    lender(tmp_path, "other", identity="another")
    lender(tmp_path, "same")
    run = RunDirectory(tmp_path / "mine")
    with run.begin({"name": "mine"}, {}):
        with pytest.warns(UserWarning, match="few people"):
            assert borrow(run, tmp_path, "same")
        assert run.kept(LEARNT[-1]).read_text(encoding="utf-8") == LEARNT[-1]
        assert run.kept(LEARNT[1]) is None
        assert "population as in same" in (run.path / "log.txt").read_text(encoding="utf-8")


def test_nobody_lends_what_is_damaged_or_another(tmp_path: Path) -> None:
    broken = lender(tmp_path, "same")
    (broken.path / LEARNT[-1]).write_text("changed", encoding="utf-8")
    lender(tmp_path, "other", identity="another")
    run = RunDirectory(tmp_path / "mine")
    with run.begin({"name": "mine"}, {}):
        assert not borrow(run, tmp_path, "same")
        assert run.kept(LEARNT[-1]) is None


def test_the_identity_is_of_what_a_population_follows_from() -> None:
    frames, _ = synthetic_embeddings(users=3, test_users=1, way=3, shots=3, dim=6, seed=0)
    study = bf.Study(
        bf.GaussianHierarchy(),
        bf.Exact(),
        bf.HeldOutUsers(shots=(1,), train_shots=(2,)),
        bf.SVI(steps=4),
    )

    def of(one: bf.Study, *, episodes: int = 0, fit: int = 0, source: str = "text") -> str:
        return population_identity(one, one.lesson(frames, seed=episodes), fit, source)

    same = (replace(study, engine=bf.Exact(draws=8)),)
    same += (replace(study, evaluation=bf.HeldOutUsers(shots=(1, 2), train_shots=(2,))),)
    assert {of(one) for one in same} == {of(study)}
    assert of(study, episodes=1) == of(study), "without an objective all videos are learnt from"
    scored = replace(study, objective=PredictiveScore)
    others = [
        of(replace(study, population_engine=bf.SVI(steps=5))),
        of(replace(study, model=bf.GaussianHierarchy(loading=0.3))),
        of(replace(study, evaluation=bf.HeldOutUsers(shots=(1,), frames_per_video=1))),
        of(scored),
        of(scored, episodes=1),
        of(study, fit=1),
        of(study, source="other text"),
        of(replace(study, population_engine=None)),
    ]
    assert len({of(study), *others}) == len(others) + 1
