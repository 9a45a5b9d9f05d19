"""Threads of torch and of BLAS: shares, limits, and answers that do not change."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from bayesfs._utils import threads
from bayesfs._utils.threads import blas_threads, cores, share_cores
from bayesfs.features import projection
from bayesfs.features.projection import principal_axes


def of_blas() -> set[int]:
    return {found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas"}


def started(code: str) -> list[str]:
    """What a process of its own prints that nobody has told a number of threads."""
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_process_takes_its_share_of_the_cores() -> None:
    code = (
        "import os, torch, scipy.linalg; "
        "from threadpoolctl import threadpool_info, threadpool_limits; "
        "from bayesfs._utils import threads; before = dict(os.environ); "
        "threads.cores = lambda: 6; torch.set_num_threads(6); "
        "threadpool_limits(6, user_api='blas'); threads.share_cores(3); "
        "print(torch.get_num_threads(), *{i['num_threads'] for i in threadpool_info() "
        "if i['user_api'] == 'blas'}); threads.share_cores(40); print(torch.get_num_threads()); "
        "threads.share_cores(1); print(torch.get_num_threads(), os.environ == before)"
    )
    assert started(code) == ["2", "2", "1", "1", "True"], "less stays less"


def test_cores_are_those_of_this_process() -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system binds no process to cores")
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "from bayesfs._utils.threads import cores; print(cores())"
    )
    assert started(code) == ["1"]
    assert cores() >= 1


LOOKS_FIRST = {"run": 3, "sweep": 3, "predict": 2}
"""Commands that look at what they are given before they take cores -> paths that they take."""


def test_the_command_takes_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    from bayesfs.cli.subcommands import COMMANDS

    class Asked(Exception):
        pass

    def asked() -> None:
        raise Asked

    monkeypatch.setattr(threads, "share_cores", asked)
    looks = ("unrun.refuse_in_data", "unrun.check_unrun", "in_data.check_in_data")
    for look in looks:  # they read, and compute nothing
        monkeypatch.setattr(f"bayesfs.recipes.{look}", lambda *_: None)
    here = Path()
    for name, command in COMMANDS.items():
        if name in ("init", "report"):  # compute nothing, or little
            continue
        places = (here,) * LOOKS_FIRST.get(name, 0)
        rest = {"data": here, "out": here} if len(places) == 3 else {}
        with pytest.raises(Asked):
            command(*places, **rest)


def test_a_limit_is_given_back() -> None:
    with threadpool_limits(3, user_api="blas"):
        with blas_threads(1):
            assert of_blas() == {1}
        assert of_blas() == {3}
        with blas_threads(2), blas_threads(5):
            assert of_blas() == {2}, "less stays less"
        assert of_blas() == {3}


def test_a_projection_does_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its eigendecomposition has one thread of BLAS, whatever the process has."""
    seen = []
    plain = projection.eigh

    def watched(*args: object, **kwargs: object) -> object:
        seen.append(of_blas())
        return plain(*args, **kwargs)

    monkeypatch.setattr(projection, "eigh", watched)
    rows = np.random.default_rng(0).normal(size=(300, 200))
    rows -= rows.mean(0)
    found = []
    for count in (1, 2):
        with threadpool_limits(count, user_api="blas"):
            found.append(principal_axes(rows, 20, size=1.0))
    assert seen == [{1}, {1}]
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-12)


def test_sharing_never_raises_the_number() -> None:
    before = torch.get_num_threads(), of_blas()
    share_cores()
    assert torch.get_num_threads() <= before[0]
    assert max(of_blas()) <= max(before[1])
