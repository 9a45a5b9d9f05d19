"""`benchmarks/orbit.py`: users one at a time are all users at once, and its size is ORBIT's."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from bayesfs.data.store import save_store
from bayesfs.evaluation.orbit import OrbitProtocol
from bayesfs.evaluation.orbit_scores import run_orbit
from bayesfs.features.reduction import UnitNorm
from bayesfs.models.baselines.classifiers import Prototypes
from bayesfs.models.similarity.pool import SimilarityPool
from bayesfs.prediction import predict
from bayesfs.training.shared_population import ENGINE

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PROTOCOL = OrbitProtocol(tasks_per_user=2, query_frames=20)


@pytest.fixture(scope="module")
def parts() -> Iterator[Any]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import orbit
        from orbit_parts import methods, people, simulated

        yield SimpleNamespace(main=orbit, methods=methods, people=people, simulated=simulated)
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_the_simulated_people_have_as_many_videos_as_those_of_orbit(parts: Any) -> None:
    objects = [videos for user in parts.simulated.orbit_shape().test.values() for videos in user]
    assert len(parts.simulated.TEST_USERS) == 17
    assert len(objects) == 158
    assert tuple(map(sum, zip(*objects, strict=True))) == (898, 300)


def test_a_store_read_by_user_gives_the_tasks_of_the_whole(parts: Any, tmp_path: Path) -> None:
    """Drawn people, kept as a store; cosine prototypes, so that answers are exact."""
    drawn = parts.simulated.simulated(parts.simulated.tiny_shape())
    whole = parts.people.joined_frames([drawn.train, *map(drawn.of_user, drawn.users)])
    save_store(tmp_path / "store.zarr", whole)
    people = parts.people.stored(tmp_path / "store.zarr", "test")
    assert people.users == drawn.users
    assert len(people.train) == len(drawn.train)

    method = parts.methods.Method(lambda frames: frames, Prototypes(metric="cosine").predictive)
    runs, _ = parts.main.run_people(people, {"cosine": method}, PROTOCOL, 2)
    expected = run_orbit(method.answer, whole, PROTOCOL)
    pd.testing.assert_frame_equal(runs["cosine"].frames, expected.frames)
    pd.testing.assert_frame_equal(runs["cosine"].videos, expected.videos)
    assert runs["cosine"].results == expected.results


def test_an_answer_in_pieces_is_that_of_the_whole(
    parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = parts.simulated.simulated(parts.simulated.tiny_shape())
    frames = UnitNorm().fit(drawn.train)(drawn.of_user(drawn.users[1]))
    protocol = OrbitProtocol(tasks_per_user=2, min_query_frames=10)
    (tasks,) = protocol.episodes(frames, users=drawn.users[1:2], tasks_per_batch=2)
    model = SimilarityPool()
    population = model.default_population(tasks.dim)
    wide = tasks.to(torch.float64)
    posterior = ENGINE.infer(model, wide, seed=0, given=population)
    whole = predict(model, posterior, wide, given=population)
    lengths = tasks.query_mask.sum(-1).amax(0)
    monkeypatch.setattr(parts.methods, "PIECE", int(lengths.max()))
    cut = list(parts.methods.pieces(tasks.query_mask))
    assert len(cut) > 1
    assert sorted(v for videos, _ in cut for v in videos) == [*range(len(lengths))]
    found = parts.methods._answer(model, ENGINE, population, tasks)
    for unit, mask in (("frame", tasks.query_mask), ("video", tasks.video_mask)):
        mine, wanted = (getattr(p, unit).log_prob[mask] for p in (found, whole))
        torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-10)


def test_one_command_scores_ours_and_the_peers(
    parts: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    parts.main.main(["--smoke", "--tasks", "1", "--out", str(tmp_path)])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    for name in ("bayesfs", "cosine_prototypes", "logistic_regression"):
        assert 0.5 < figures[f"{name}.frame_acc"] <= 1.0
        assert figures[f"{name}.frame_nll"] > 0.0
    found = json.loads((tmp_path / "results.json").read_text())
    assert sorted(found) == [f"P{i}" for i in range(6)]
    assert {*found["P0"][0]} == {
        "task_object_list",
        "task_macs_to_personalise",
        "task_videos",
    }
