"""The example for MLflow in docs/for-recipe-writers.md, told to a stand-in."""

import contextlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "for-recipe-writers.md"


class Tracker(ModuleType):
    """As much of MLflow as the example calls."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.told: dict[str, Any] = {}

    @contextlib.contextmanager
    def start_run(self, run_name: str) -> Iterator[None]:
        self.told["name"] = run_name
        yield

    def log_params(self, params: dict[str, str]) -> None:
        self.told["params"] = params

    def log_metrics(self, metrics: dict[str, float]) -> None:
        self.told["metrics"] = metrics

    def log_artifact(self, path: Path) -> None:
        self.told["artifact"] = Path(path).name


def test_a_run_reaches_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "runs" / "first"
    (run / "recipes").mkdir(parents=True)
    (run / "recipes" / "full.json").write_text(json.dumps({"model": {"loading": 0.5}, "seed": 0}))
    (run / "metrics.json").write_text(json.dumps({"video_nll": 0.5, "frame_ece": None}))
    tracker = Tracker()
    monkeypatch.setitem(sys.modules, "mlflow", tracker)
    monkeypatch.chdir(tmp_path)
    code = re.search(r"<!-- not run: mlflow -->\n```py\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    assert code
    exec(code[1], {})
    assert tracker.told["name"] == "first"
    assert set(tracker.told["params"]) == {"model", "seed"}
    assert tracker.told["metrics"] == {"video_nll": 0.5}
    assert tracker.told["artifact"] == "report.html"
