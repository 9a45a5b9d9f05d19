"""Uncertainty as the chance of naming it wrong: `decompose_zero_one`.

For whoever counts mistakes instead of nats. With p = sum_s w_s p_s over draws s,

    total     = 1 - max_y p(y)               chance that the answer is wrong
    aleatoric = sum_s w_s (1 - max_y p_s(y)) what is left if each draw were known and answered best
    epistemic = total - aleatoric            mistakes that knowing the classes would save.

Source: Hofman, Sale and Hüllermeier 2024, with the zero-one loss; refs.bib: hofman2024. The library
probly has it as its zero-one decomposition.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bayesfs.types import LabelDraws


def decompose_zero_one(labels: LabelDraws) -> tuple[Tensor, Tensor, Tensor]:
    """Total, aleatoric and epistemic chance of a mistake, each (...), from 0 to 1 - 1 / way.

    Nothing is corrected for the number of draws: with few of them the epistemic part is too small,
    as it is for `bayesfs.uncertainty.decompose.decompose_draws` without its factor.
    """
    total = 1.0 - labels.prob.amax(-1)
    best = labels.log_prob_given.exp().amax(-1)
    aleatoric = torch.minimum((labels.log_weight.exp() * (1.0 - best)).sum(0), total)
    return total, aleatoric, total - aleatoric
