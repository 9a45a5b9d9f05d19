"""Threads: four at a time give what one gives; how many a process has, and how they wait."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_info

import bayesfs as bf
from bayesfs._utils.process_settings import SPINS
from bayesfs._utils.threads import torch_threads
from bayesfs.inference.own_approximation import OwnApproximation
from bayesfs.inference.program.simulation import Simulator
from bayesfs.inference.svi.autoguides import PyroSVI
from bayesfs.models.gaussian.robust import RobustHierarchy
from bayesfs.models.heads.linear import HierarchicalHead
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.testing import GaussianToy
from bayesfs.types import EpisodeBatch

THREADS = 4
ROUNDS = 4
"""Jobs of each thread."""

Array = NDArray[np.float64]


def classifier(number: int) -> Array:
    """Fit on data of its own, and predict: traces, captures, a Laplace approximation."""
    rng = np.random.default_rng(number)
    y = np.repeat(["a", "b", "c"], 4)
    x = rng.normal(size=(12, 5)) + 2.0 * np.repeat(np.eye(3, 5), 4, 0)
    known = bf.BayesianFewShotClassifier().fit(x, y, groups=np.repeat(range(6), 2))
    return np.asarray(known.predict_proba(rng.normal(size=(5, 5))))


def robust(number: int) -> Array:
    rng = np.random.default_rng(number)
    y = np.repeat(["a", "b"], 4)
    x = rng.normal(size=(8, 3)) + 2.0 * np.repeat(np.eye(2, 3), 4, 0)
    known = bf.BayesianFewShotClassifier(
        model=RobustHierarchy(), engine=OwnApproximation(draws=8, population_draws=2)
    )
    known.fit(x, y, groups=np.repeat(range(4), 2))
    return np.asarray(known.predict_proba(rng.normal(size=(5, 3))))


def tasks(number: int) -> EpisodeBatch:
    batch, _ = synthetic_episodes(users=2, way=3, shots=2, frames=2, dim=3, seed=number)
    return batch.to(torch.float64)


def head(number: int) -> Array:
    model = HierarchicalHead()
    engine = bf.SVI(steps=10, draws=10)
    posterior = engine.infer(model, tasks(number), seed=number, given=model.default_population(3))
    return np.asarray(posterior.draws["weight_raw"].numpy())


def pyro_svi(number: int) -> Array:
    """Pyro's own inference: parameters and torch's global generator besides."""
    model = GaussianToy()
    given = model.fixed_population(3)
    posterior = PyroSVI(steps=5, draws=5).infer(model, tasks(number), seed=number, given=given)
    return np.asarray(posterior.draws["class_raw"].numpy())


def simulated(number: int) -> Array:
    """Two runs of a program forwards."""
    program = Simulator(GaussianToy(), tasks(number))
    return np.asarray(program.draw(seed=number).observed["x"].numpy())


@pytest.mark.parametrize(
    "job", [classifier, pytest.param(robust, marks=pytest.mark.slow), head, pyro_svi, simulated]
)
def test_four_threads_give_what_one_gives(job: Callable[[int], Array]) -> None:
    numbers = [*range(THREADS * ROUNDS)]
    expected = [job(number) for number in numbers[:THREADS]]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda n: job(n % THREADS), numbers))
    for number, value in zip(numbers, found, strict=True):
        np.testing.assert_array_equal(value, expected[number % THREADS])


def test_threads_leave_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(simulated, range(THREADS * ROUNDS)))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="tests have one process")
def test_a_process_of_the_tests_has_the_threads_that_the_environment_says() -> None:
    """Said too late, two processes had all cores each, and waited for one another in busy loops."""
    said = {os.environ[f"{library}_NUM_THREADS"] for library in ("OMP", "OPENBLAS", "MKL")}
    assert {str(torch.get_num_threads())} <= said
    assert {str(each["num_threads"]) for each in threadpool_info()} <= said


def test_threads_come_back_whatever_happens_inside() -> None:
    before, inside = torch.get_num_threads(), []

    def fails() -> None:
        inside.append(torch.get_num_threads())
        raise KeyError

    with pytest.raises(KeyError), torch_threads():
        fails()
    assert inside == [1]
    assert torch.get_num_threads() == before


COMMAND = """
import atexit, gc, os, sys
atexit.register(lambda: print("frozen", gc.get_freeze_count() > 0))
from bayesfs.cli.main import main
status = main(["init", sys.argv[1]]), main(["compare", sys.argv[1]])
print(status, os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_WAIT_POLICY"))
"""


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({}, f"{SPINS} None"),
        ({"GOMP_SPINCOUNT": "7"}, "7 None"),
        ({"OMP_WAIT_POLICY": "active"}, "None active"),
    ],
)
def test_a_command_lets_threads_sleep_unless_a_person_says_otherwise(
    said: dict[str, str], wanted: str, tmp_path: Path
) -> None:
    """And its objects are not taken apart when it ends."""
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    rest = {name: text for name, text in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, str(tmp_path / "study")],
        env={**rest, **said},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-2:] == [f"(0, 2) {wanted}", "frozen True"]
