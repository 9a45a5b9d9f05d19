"""Rows 1 to 6: do aleatoric and epistemic uncertainty behave as such?"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import spearmanr

from bayesfs.benchmark.conditions import with_queries_of_others
from bayesfs.benchmark.disentangle import Relabelled, correlation, disentanglement_error
from bayesfs.prediction import thinned
from bayesfs.study import Learnt, Study
from bayesfs.types import UNLABELLED
from bayesfs.uncertainty.decompose import decompose
from uncertainty_parts.bench import SHOTS, Bench, Found, accuracy_of, area, mean_of

KINDS_OF = ("aleatoric", "epistemic")
NOISE = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def rows_1_2_5(bench: Bench, study: Study, learnt: Learnt) -> tuple[Found, Any]:
    """Epistemic falls with support videos, aleatoric does not; how far they are the same."""
    tasks = study.tasks(bench.data, learnt, seed=0)
    answers = [study.infer(tasks.limit_shots(s), learnt, seed=0) for s in SHOTS]
    aleatoric = [mean_of(a, "frame_aleatoric") for a in answers]
    epistemic = [mean_of(a, "frame_epistemic") for a in answers]
    accuracy = [accuracy_of(a) for a in answers]
    print("support videos  aleatoric  epistemic  accuracy (frames)")
    for shots, *values in zip(SHOTS, aleatoric, epistemic, accuracy, strict=True):
        print(f"{shots:14d} " + " ".join(f"{v:10.3f}" for v in values))
    last = answers[-1].uncertainty
    mask = tasks.query_mask.numpy()
    pair = [last[f"frame_{kind}"].values[mask] for kind in KINDS_OF]
    at2 = aleatoric[SHOTS.index(2)]
    falling = bool(np.all(np.diff(epistemic) < 0))
    return {
        "t1_spearman": float(spearmanr(SHOTS, epistemic).statistic) if falling else float("nan"),
        "t2_drift": abs(aleatoric[-1] - at2) / at2,
        "t5_spearman": float(spearmanr(*pair).statistic),
    }, (aleatoric, epistemic, accuracy)


def rows_3_4(bench: Bench, size: Any) -> Found:
    """Label noise, in learning and in testing; and the disentanglement error."""
    found: list[tuple[float, float, float]] = []
    print("label noise  aleatoric  epistemic  accuracy (frames)")
    for share in NOISE:
        study = bench.study(Relabelled(bench.held_out(), share))
        learnt = bench.straight(study.learn(bench.data, seed=0), share)
        answer = study.infer(study.tasks(bench.data, learnt, seed=0), learnt, seed=0)
        values = tuple(mean_of(answer, f"frame_{k}") for k in KINDS_OF)
        found.append((*values, accuracy_of(answer)))  # type: ignore[arg-type]
        print(f"{share:11.1f} " + " ".join(f"{v:10.3f}" for v in found[-1]))
    aleatoric, epistemic, accuracy = (list(column) for column in zip(*found, strict=True))
    return {
        "t3_aleatoric_r": correlation(aleatoric, accuracy),
        "t3_epistemic_r": correlation(epistemic, accuracy),
        "t4_disentanglement_error": disentanglement_error(size, (aleatoric, epistemic, accuracy)),
    }


def row_6(bench: Bench, study: Study, learnt: Learnt) -> Found:
    """Objects that nobody taught: is epistemic uncertainty ahead of what else would tell?

    It is that of an open world, where the model has one.
    """
    episodes = with_queries_of_others(study.tasks(bench.data, learnt, seed=0))
    model = bench.hierarchy(learnt)
    answer = study.infer(episodes, learnt, seed=0)
    columns = {
        "epistemic, taught classes": answer.uncertainty["frame_epistemic"].values,
        "aleatoric, taught classes": answer.uncertainty["frame_aleatoric"].values,
        "1 - max p": 1.0 - answer.predictive.frame.prob.amax(-1).numpy(),
    }
    if model is not None:
        opened = model.open_predictive(
            episodes,
            thinned(learnt.population, 8),
            untaught=episodes.way,
            draws=bench.draws // 8,
            seed=0,
        )
        wide = decompose(opened, episodes)
        columns |= {f"{k}, open world": wide[f"frame_{k}"].values for k in KINDS_OF}
    mask = episodes.query_mask.numpy()
    taught = (episodes.query_labels != UNLABELLED).numpy()[..., None]
    areas = {n: area(v[mask & ~taught], v[mask & taught]) for n, v in columns.items()}
    print("objects of other users, AUROC over frames:")
    for name, found in areas.items():
        print(f"  {name:26}{found:6.3f}")
    rest = [a for name, a in areas.items() if not name.startswith("epistemic")]
    own_epistemic = areas.get("epistemic, open world", areas["epistemic, taught classes"])
    return {"t6_epistemic_minus_best_other_auroc": own_epistemic - max(rest)}
