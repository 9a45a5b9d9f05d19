"""`import bayesfs`: a handful of names, each fetched on first use, and nothing changed."""

import subprocess
import sys

import pytest

import bayesfs


@pytest.mark.parametrize("name", bayesfs.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(bayesfs, name).__name__ == name


def test_unknown_names_are_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = bayesfs.nonsense


def test_the_verb_stays_a_function_whatever_is_imported_first() -> None:
    code = "from bayesfs.prediction import complete_draws; import bayesfs; print(bayesfs.predict)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("<function predict")


def test_importing_changes_no_global_state() -> None:
    code = (
        "import torch, numpy, warnings; "
        "state = lambda: (torch.get_default_dtype(), torch.get_rng_state().sum().item(), "
        "torch.is_grad_enabled(), numpy.geterr(), len(warnings.filters)); "
        "before = state(); import bayesfs; [getattr(bayesfs, n) for n in bayesfs.__all__]; "
        "import jax, pyro; "
        "assert state()[:4] == before[:4], (before, state())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


HEAVY = ("jax", "numpyro", "matplotlib", "zarr", "h5py", "arviz_stats", "torch._dynamo")


def test_the_classifier_needs_neither_jax_nor_pictures_nor_stores_nor_the_report() -> None:
    code = (
        "import sys; from bayesfs import BayesianFewShotClassifier; "
        f"print([m for m in {(*HEAVY, 'bayesfs.report')!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "code",
    ["import bayesfs", "from bayesfs.cli.main import main; main(['--help'])"],
    ids=["import", "help"],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code: str) -> None:
    """And under a second of processor time, at most."""
    asked = (
        "import atexit, resource, sys\n"
        "atexit.register(lambda: print('LOADED', [m for m in "
        f"('torch', 'numpy', 'scipy', 'pandas', 'xarray', *{HEAVY!r}) if m in sys.modules], "
        f"sum(resource.getrusage(resource.RUSAGE_SELF)[:2]), file=sys.stderr))\n{code}"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
    told = done.stderr.splitlines()[-1].removeprefix("LOADED ")
    assert told.startswith("[] ")
    assert float(told.removeprefix("[] ")) < 1


def test_what_reports_imports_no_engine() -> None:
    unneeded = ("torch", "pyro", "gpytorch", "jax._src", "zarr", "scipy.stats", "bayesfs.study")
    code = (
        "import sys; import bayesfs.runs.reading; "
        f"print([m for m in {unneeded!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_names_a_video_needs_neither_runs_nor_the_report() -> None:
    unneeded = ("matplotlib", "arviz_stats", "scipy.stats", "bayesfs.report", "bayesfs.runs.run")
    code = (
        "import sys; import bayesfs.cli.name_videos; "
        f"print([m for m in {unneeded!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
