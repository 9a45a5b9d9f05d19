"""docs/kernels.md says what GPyTorch's kernels do here."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import gpytorch
import pytest

from bayesfs.errors import InferenceError
from bayesfs.models.gp.gpytorch import REFUSED, GPyTorchKernel

HOME = Path(__file__).parents[2] / "docs" / "_ext" / "kernels.py"


PAGE = SimpleNamespace(**runpy.run_path(str(HOME)))


@pytest.mark.parametrize("name", PAGE.KERNELS)
def test_values_are_gpytorch_s_with_priors_and_without(name: str) -> None:
    for priors in (True, False):
        kernel = PAGE.kernel_of(name, priors=priors)
        assert PAGE.largest_difference(kernel) < 1e-8
        assert bool(kernel.sites) == (priors and name != "SpectralMixture")


@pytest.mark.parametrize("name", ["RBF, ARD", "Matern 1/2", "Scale(RBF) + Linear"])
@pytest.mark.parametrize("engine", ["SVI", "Laplace", "SVGD"])
def test_it_is_fitted(name: str, engine: str) -> None:
    assert PAGE.fits(PAGE.kernel_of(name, priors=True), PAGE.ENGINES[engine])


def test_nuts_fits_a_sum_of_kernels() -> None:
    assert PAGE.fits(PAGE.kernel_of("Scale(RBF) + Linear", priors=True), PAGE.ENGINES["NUTS"])


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGE.KERNELS)
def test_the_page_has_the_row_that_the_code_makes(name: str) -> None:
    line = f"| {' | '.join(PAGE.row(name))} |"
    assert line in PAGE.PAGE.read_text(encoding="utf-8").splitlines()


def test_the_page_has_a_row_of_every_kernel() -> None:
    said = PAGE.PAGE.read_text(encoding="utf-8")
    assert [line.split(" | ")[0] for line in said.splitlines() if " | ✓" in line] == [
        f"| {name}" for name in PAGE.KERNELS
    ]


@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.__name__)
def test_what_is_no_kernel_of_features_is_refused_by_its_name(kind: type) -> None:
    class Empty(kind):  # type: ignore[misc]
        def __init__(self) -> None:
            gpytorch.kernels.Kernel.__init__(self)

    with pytest.raises(InferenceError, match=r"Empty is not for a task's class functions"):
        GPyTorchKernel(gpytorch.kernels.ScaleKernel(Empty()))
