"""Every benchmark runs at its smallest and ends with its figures as one line of JSON."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

FIGURES = {
    "accuracy": ("best", "best.frame_nll_1", "best.video_acc_5", "best_peer.frame_nll_5"),
    "fewshot": ("best", "best.nll_5", "best_minus_peer.nll_1", "best_minus_peer.nll_5"),
    "framing": ("several.alone", "several.two", "several.beside_another", "several.aside"),
    "gp": ("gp_predict_vs_list", "gp_train_vs_list", "gp_max_abs_diff", "gpu_vs_cpu_4096"),
    "gpu": ("gp_gpu_vs_cpu_4096", "features_share_of_bare", "gpu_cpu_max_diff", "share_of_roof"),
    "house": (
        "root_modules",
        "library_lines",
        "import_s",
        "help_s",
        "run_cpu_vs_before",
        "demo_cpu_vs_before",
        "tests_cpu_vs_before",
        "names_twice",
    ),
    "learn_population": ("people", "objects", "nll_worst_1", "ece_worst_1"),
    "posteriordb": (
        "nuts_max_error_sd",
        "svi_default_max_error_sd",
        "verdict_hits",
        "verdict_false_alarms",
        "checked_time_vs_nuts",
        "kilpisjarvi_mod-kilpisjarvi.nuts.max_error_sd",
        "kilpisjarvi_mod-kilpisjarvi.numpyro_nuts.seconds",
        "eight_schools-eight_schools_noncentered.svi.fit",
    ),
    "precision": (
        "models",
        "float32_suffices",
        "linear_head.prob_max_change",
        "similarity_pool.nll_change",
    ),
    "tabular": (
        "data_frame_lines",
        "units_max_change",
        "shared_gap_0",
        "shared_gap_10",
        "wine.2.nll",
        "wine.2.best_other_nll",
        "cells_behind",
        "nll_ratio_mean",
        "fit_s_max",
        "wide_gb",
        "kernels_fitted",
        "kernels_tried",
    ),
    "transfer": (
        "desk.bayesfs.nll_1",
        "shed.pool.ece_5",
        "nll_minus_best_baseline_5",
        "ece_2",
        "coverage_min_2",
        "coverage_max_2",
        "novel_auroc_minus_baseline_2",
        "nll_ratio_mean_1",
        "novel_found_mean_2",
    ),
    "uncertainty": (
        "t1_spearman",
        "t2_drift",
        "t3_aleatoric_r",
        "t3_epistemic_r",
        "t4_disentanglement_error",
        "t5_spearman",
        "t6_epistemic_minus_best_other_auroc",
        "t7_auroc",
        "t8_cause_accuracy",
        "t9_gain_vs_random",
        "t9_spearman",
        "t10_users_covered",
        "t11_z_max",
        "advice_videos_ratio",
        "gain_slope",
        "gain_spearman",
        "enough_right",
        "cause_spearman",
        "cause_sign",
        "cause_size",
        "words_ece",
        "self_estimate_covers",
        "oracle_drift",
        "oracle_kinds_spearman",
        "composed_spearman",
        "corrected_max_diff",
        "corrected_ms",
        "corrections_coverage",
        "corrections_size_ratio",
        "corrections_coverage_no_larger",
        "oracle_here_drift",
        "oracle_here_ahead",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_smoke_prints_its_figures(name: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{name}.py"), "--smoke"],
        capture_output=True,
        text=True,
        timeout=600,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert set(FIGURES[name]) <= set(figures)
    numbers = [v for v in figures.values() if not isinstance(v, str)]
    assert all(v is None or math.isfinite(v) for v in numbers)
