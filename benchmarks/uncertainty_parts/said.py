"""Do words come true as often as they mean to, and does a person's own estimate hold?"""

from __future__ import annotations

import numpy as np

from bayesfs.decisions.queries import Judged, judged
from bayesfs.decisions.rules import unit_rules
from bayesfs.decisions.words import WORDS, word_error, word_frequencies
from bayesfs.diagnostics.self_estimate import self_estimate
from bayesfs.prediction import thinned_values
from bayesfs.protocols import Collapsible
from bayesfs.study import Learnt
from bayesfs.types import EpisodeBatch
from uncertainty_parts.bench import Bench, Found
from uncertainty_parts.sets import joined

WANTED = {"level": 0.9, "share": 0.9, "risk": 0.1, "rejected": 0.05}
LEVEL = 0.95
TAUGHT = 5


def row_14(bench: Bench, learnt: Learnt) -> Found:
    """Words and self-estimates of the test users; what words mean is learnt on half of them.

    Either half of the users has a turn, so that nobody is judged by what was learnt on them. Train
    users would not do: the population has seen them.
    """
    study = bench.study(bench.held_out())
    tasks = study.tasks(bench.data, learnt, seed=0)
    by_shots = [tasks.limit_shots(s) for s in (1, 3, TAUGHT)]
    parts = []
    for batch in by_shots:
        answer = study.infer(batch, learnt, seed=0)
        parts.append(judged(answer.predictive, answer.episodes, "video"))
    return words(joined(parts)) | own_estimates(bench, learnt)


def words(queries: Judged) -> Found:
    """What every sentence meant, and how far off it was, by halves of the users."""
    users = np.unique(queries.user)
    if len(users) < 4:
        return {}
    errors, shares = [], []
    for half in (0, 1):
        learns = np.isin(queries.user, users[half::2])
        rules = unit_rules(queries.of(learns), **WANTED)
        meant = word_frequencies(queries.of(learns), rules)
        other = queries.of(~learns)
        found = word_frequencies(other, rules)
        errors.append(word_error(other, rules, meant))
        shares.append((meant, found))
    print("sentence         meant  came true (said), by either half of the people:")
    for word in WORDS:
        sides = "   ".join(
            f"{m[word].true:.3f} {f[word].true:.3f} ({f[word].said})" for m, f in shares
        )
        print(f"  {word:15} {sides}")
    return {"words_ece": float(np.mean(errors))}


def own_estimates(bench: Bench, learnt: Learnt) -> Found:
    """Whether further videos like those taught come out right as often as people were told."""
    study = bench.study(bench.held_out(shots=(TAUGHT,), query_conditions=("clean",)))
    model = study.model_of(learnt)
    if not isinstance(model, Collapsible):
        return {}
    tasks = study.tasks(bench.data, learnt, seed=0)
    estimates = self_estimate(model, thinned_values(learnt.population, 4), tasks)
    answer = study.infer(tasks, learnt, seed=0)
    covered = []
    for t, estimate in enumerate(estimates):
        right, asked = right_of(answer.predictive.video.prob[t].numpy(), tasks, t)
        low, high = estimate.of_further(asked, LEVEL)
        covered.append(low <= right <= high)
        print(
            f"  {tasks.users[t]}: own videos {estimate.right} of {estimate.asked}, so "
            f"{low} to {high} of {asked} further ones; came true {right}"
        )
    return {"self_estimate_covers": float(np.mean(covered))}


def right_of(prob: np.ndarray, tasks: EpisodeBatch, task: int) -> tuple[int, int]:
    """How many of a task's query videos are recognised, and how many there are."""
    mask = tasks.video_mask[task].numpy()
    label = tasks.query_labels[task].numpy()
    return int((prob.argmax(-1) == label)[mask].sum()), int(mask.sum())
