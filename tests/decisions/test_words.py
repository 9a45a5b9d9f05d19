"""Sentences come true as often as they mean to: against counting by hand, and on drawn people."""

from __future__ import annotations

import numpy as np
import pytest

from bayesfs.decisions.queries import Judged
from bayesfs.decisions.rules import UnitRules, unit_rules
from bayesfs.decisions.words import answered, said_of, word_error, word_frequencies

RULES = UnitRules(least_in_set=0.1, least_alone=0.7, most_absent=0.9)
PROB = np.array(
    [
        [0.94, 0.03, 0.02, 0.01],  # alone
        [0.65, 0.09, 0.16, 0.10],  # a set of three
        [0.66, 0.09, 0.17, 0.08],  # of two
        [0.64, 0.09, 0.09, 0.08],  # one that is not sure enough: with the second
        [0.3, 0.28, 0.22, 0.2],  # more than say anything
    ]
)
NAMED = [[0], [0, 2, 3], [0, 2], [0, 1], [0, 1, 2, 3]]


def queries(label: list[int], users: list[str] | None = None) -> Judged:
    return Judged(
        np.array(users or ["a"] * len(label)), PROB, np.array(label), np.full(len(label), np.nan)
    )


def test_classes_that_are_named() -> None:
    assert [np.flatnonzero(row).tolist() for row in answered(PROB, RULES)] == NAMED


def test_what_comes_true_is_counted_by_sentence_and_by_person() -> None:
    word, true = said_of(queries([0, 1, 2, 1, 1]), RULES)
    assert word.tolist() == ["probably", *["may be wrong"] * 3, "not recognised"]
    assert true.tolist() == [True, False, True, True, False]
    found = word_frequencies(queries([0, 1, 2, 1, 1], ["a", "b", "b", "b", "b"]), RULES)
    assert found["may be wrong"].said == 3
    each = 5 / (2 * 4)  # b said four things, and counts as much as a who said one
    assert found["may be wrong"].true == pytest.approx((2 * each + 1) / (3 * each + 2))


def drawn(people: int, sharp: float, seed: int) -> Judged:
    """Labels drawn from the probabilities, told `sharp` times as sharply as they are."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2.0, (people * 40, 4))
    true = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    told = np.exp(sharp * logits) / np.exp(sharp * logits).sum(-1, keepdims=True)
    label = (true.cumsum(-1) < rng.random((len(true), 1))).sum(-1)
    user = np.repeat([f"{i:03d}" for i in range(people)], 40)
    return Judged(user, told, label, np.full(len(label), np.nan))


@pytest.mark.parametrize("sharp", [1.0, 3.0])
def test_words_learnt_on_some_people_hold_for_others_however_wrong_the_model(sharp: float) -> None:
    known, others = drawn(60, sharp, 0), drawn(60, sharp, 1)
    rules = unit_rules(known, level=0.9, share=0.5, risk=0.1, rejected=0.05)
    assert word_error(others, rules, word_frequencies(known, rules)) < 0.04
    elsewhere = drawn(60, 4.0 - sharp, 1)  # people of whom the model is otherwise wrong
    assert word_error(elsewhere, rules, word_frequencies(known, rules)) > 0.06
