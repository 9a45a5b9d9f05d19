"""Pooling of maps and tokens against the formula, by hand."""

import numpy as np
import pytest
import torch

from bayesfs.errors import DataError, ShapeError
from bayesfs.features.backbones.pooling import Pooling

MAPS = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
TOKENS = torch.cat([torch.full((2, 2, 4), 9.0), MAPS.flatten(2).mT], 1)
"""The same positions behind two tokens of the whole frame."""


@pytest.mark.parametrize("text", ["cls", "mean", "gem3", "gem2.5:centre0.125", "mean:centre0.2"])
def test_its_text_makes_it_again(text: str) -> None:
    assert Pooling.of_text(text).text == text
    assert Pooling.of_text(Pooling.of_text(text).text) == Pooling.of_text(text)


@pytest.mark.parametrize("text", ["", "max", "cls:centre0.1", "cls3", "mean2", "gem0.5", "gem3:"])
def test_what_is_no_pooling_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="pooling"):
        Pooling.of_text(text)


@pytest.mark.parametrize("power", [1.0, 3.0])
@pytest.mark.parametrize("centre", [None, 0.2])
def test_maps_and_tokens_are_pooled_by_the_formula(power: float, centre: float | None) -> None:
    pooling = Pooling("gem" if power > 1 else "mean", power, centre)
    a = MAPS.double().numpy().reshape(2, 4, 9)
    at = np.array([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]) / 3
    w = np.ones(9) if centre is None else np.exp(-(at**2).sum(1) / (2 * centre**2))
    m = (w / w.sum() * np.sign(a) * np.abs(a) ** power).sum(-1)
    want = np.sign(m) * np.abs(m) ** (1 / power)
    np.testing.assert_allclose(pooling(MAPS), want, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(pooling(TOKENS, 2), want, rtol=1e-4, atol=1e-6)


def test_cls_is_the_first_token_and_maps_have_none() -> None:
    assert (Pooling("cls")(TOKENS, 2) == 9).all()
    for output, prefix in ((MAPS, 0), (TOKENS[:, 2:], 0)):
        with pytest.raises(DataError, match="pool=mean"):
            Pooling("cls")(output, prefix)


def test_tokens_that_make_no_square_have_a_mean_but_no_centre() -> None:
    some = TOKENS[:, :9]
    np.testing.assert_allclose(Pooling("mean")(some, 2), some[:, 2:].mean(1), rtol=1e-6)
    with pytest.raises(DataError, match="no square"):
        Pooling("mean", 1.0, 0.2)(some, 2)
    assert Pooling("cls")(TOKENS[:, 1:])[0, 0] == 9  # 10 tokens: nine and one
    with pytest.raises(ShapeError, match="another of its outputs"):
        Pooling("mean")(torch.zeros(3))
