"""How rules of decision do for each user, `check_left_out`, and what is said: `check_words`."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from bayesfs.decisions.queries import Judged
from bayesfs.decisions.rules import UnitRules, unit_rules
from bayesfs.decisions.words import word_frequencies
from bayesfs.errors import DataError
from bayesfs.metrics.selective import plain_sets


def check_rules(queries: Judged, rules: UnitRules, level: float) -> pd.DataFrame:
    """How the rules do for each user, beside sets by plain thresholding of the probability.

    Args:
        queries: labelled queries.
        rules: thresholds, learnt on other users.
        level: probability that a plain set holds: the likeliest classes up to that sum.

    Returns:
        One row a user: `queries`, `coverage` and `set_size` of the sets, `plain_coverage` and
        `plain_size` of plain ones, `answered` share named alone and its `error`, `rejected` share
        taken for nothing taught.
    """
    rows = []
    for user in np.unique(queries.user):
        own = queries.of(queries.user == user)
        at = np.arange(len(own.label))
        sets, plain, alone = (
            rules.in_set(own.prob),
            plain_sets(own.prob, level),
            rules.alone(own.prob),
        )
        wrong = own.prob.argmax(-1) != own.label
        rows.append(
            {
                "user": str(user),
                "queries": len(at),
                "coverage": sets[at, own.label].mean(),
                "set_size": sets.sum(-1).mean(),
                "plain_coverage": plain[at, own.label].mean(),
                "plain_size": plain.sum(-1).mean(),
                "answered": alone.mean(),
                "error": wrong[alone].mean() if alone.any() else math.nan,
                "rejected": rules.absent(own.absent).mean(),
            }
        )
    return pd.DataFrame(rows)


def check_left_out(
    queries: Judged,
    *,
    level: float = 0.9,
    share: float = 0.9,
    risk: float = 0.1,
    rejected: float = 0.05,
) -> pd.DataFrame:
    """`check_rules` of every user in turn, by rules learnt on the others.

    Raises:
        DataError: there is one user only.
    """
    users = np.unique(queries.user)
    if len(users) < 2:
        raise DataError(f"expected two users or more to leave one out, got {users.tolist()}")
    wanted = {"level": level, "share": share, "risk": risk, "rejected": rejected}
    parts = []
    for user in users:
        here = queries.user == user
        rules = unit_rules(queries.of(~here), **wanted)
        parts.append(check_rules(queries.of(here), rules, level))
    return pd.concat(parts, ignore_index=True)


def check_words(queries: Judged, others: Judged, rules: UnitRules) -> pd.DataFrame:
    """How often each sentence comes true, beside what it means: how often it did for other people.

    Args:
        queries: labelled queries of people from whom nothing was learnt.
        others: of those that the rules were learnt on.
        rules: thresholds.

    Returns:
        One row a sentence: how often it was `said`, the share that `came_true` and the share that
        it `meant`, by Laplace's rule, each person counting alike.
    """
    found, meant = word_frequencies(queries, rules), word_frequencies(others, rules)
    rows = [
        {"sentence": word, "said": one.said, "came_true": one.true, "meant": meant[word].true}
        for word, one in found.items()
    ]
    return pd.DataFrame(rows)
