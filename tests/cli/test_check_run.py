"""`bayesfs check`: a right engine passes with status 0, a wrong one fails with 1."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesfs.cli.check_run import reading, show
from bayesfs.cli.main import FAILED, main
from bayesfs.diagnostics.sbc import Calibration
from bayesfs.recipes.load import recipe_folder
from tests.cli.test_explain_run import SHIPPED, learnt_run


@pytest.fixture(scope="module")
def finished(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learnt_run(
        small_store, tmp_path_factory.mktemp("runs") / "run", settings=("engine.draws=64",)
    )
