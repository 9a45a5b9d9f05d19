"""How often what is said comes true: start with `word_frequencies`.

An answer is one of three sentences, each of which can come true or not:

    "Probably a"                       a is shown
    "May be wrong: a, b or c"          one of them is shown
    "Not recognised; perhaps a"        a is shown

What a sentence means is how often it came true for people who were not asked: the mean over them of
the share, with one true and one false answer more (Laplace's rule), since few answers tell little.
On other people it should come true as often; `word_error` is how far that is off,

    sum_w share_w |came true_w - meant_w|,

the expected calibration error with sentences for bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bayesfs._utils.arrays import Bools
from bayesfs.decisions.queries import Judged, user_weights
from bayesfs.decisions.rules import UnitRules

Word = Literal["probably", "may be wrong", "not recognised"]

WORDS: tuple[Word, ...] = get_args(Word)

MOST_NAMES = 3
"""More alternatives than these say nothing."""


@dataclass(frozen=True)
class Frequency:
    """How often a sentence was said, and came true.

    Attributes:
        said: number of answers.
        true: share of them that came true, each person counting alike, by Laplace's rule.
    """

    said: int
    true: float


def answered(prob: NDArray[np.float64], rules: UnitRules) -> NDArray[np.bool_]:
    """(query, way) the classes that an answer names: see `bayesfs.explanation.explain`."""
    top = prob.argmax(-1)[:, None] == np.arange(prob.shape[-1])
    chosen = rules.in_set(prob)
    alone = rules.alone(prob) & (prob.max(-1) > 0.5)
    second = np.where(top, -1.0, prob).argmax(-1)[:, None] == np.arange(prob.shape[-1])
    two = (chosen.sum(-1) < 2) & ~alone
    one = (chosen.sum(-1) < 2) & alone
    return np.asarray(np.where(one[:, None], top, chosen | top | (two[:, None] & second)))


def said_of(queries: Judged, rules: UnitRules) -> tuple[NDArray[np.str_], Bools]:
    """(query,) what is said of each query, and whether it comes true."""
    named = answered(queries.prob, rules)
    count, at = named.sum(-1), np.arange(len(queries.label))
    word = np.array(WORDS)[np.select([count == 1, count <= MOST_NAMES], [0, 1], 2)]
    likeliest = queries.prob.argmax(-1) == queries.label
    return word, np.where(count > MOST_NAMES, likeliest, named[at, queries.label])


def word_frequencies(queries: Judged, rules: UnitRules) -> Mapping[Word, Frequency]:
    """How often each sentence comes true.

    Args:
        queries: labelled queries of some people.
        rules: thresholds, learnt on other people than those or on these.
    """
    word, true = said_of(queries, rules)
    weight = user_weights(queries.user)
    found: dict[Word, Frequency] = {}
    for each in WORDS:
        own = word == each
        share = (weight[own] @ true[own] + 1.0) / (weight[own].sum() + 2.0)
        found[each] = Frequency(int(own.sum()), float(share))
    return found


def word_error(queries: Judged, rules: UnitRules, meant: Mapping[Word, Frequency]) -> float:
    """Expected difference between how often sentences come true and what they mean.

    Args:
        queries: labelled queries of people from whom nothing was learnt.
        rules: thresholds.
        meant: from `word_frequencies`, of other people.
    """
    word, true = said_of(queries, rules)
    weight = user_weights(queries.user) / len(word)
    gaps = [abs(weight[word == w] @ (true[word == w] - meant[w].true)) for w in WORDS]
    return float(sum(gaps))
