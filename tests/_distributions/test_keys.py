"""Random keys: SplitMix64's own numbers, the laws drawn, and entries that stay by themselves."""

import pytest
import torch
from scipy import stats

from bayesfs._distributions.keys import Keys


def test_the_numbers_are_those_of_splitmix64():
    """Of seed 0, as printed by Vigna's splitmix64.c."""
    known = (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F)
    seed = Keys(torch.tensor(0))
    assert [int(seed.fold_in(n).value) % 2**64 for n in range(3)] == list(known)


def test_uniform_and_normal_numbers_have_their_laws():
    keys = Keys.of(3).extend(50_000)
    assert stats.kstest(keys.uniform(), "uniform").pvalue > 1e-3
    assert stats.kstest(keys.fold_in(0).normal(), "norm").pvalue > 1e-3
    pairs = torch.stack([keys.fold_in(n).normal() for n in range(4)])
    assert (torch.corrcoef(pairs) - torch.eye(4)).abs().max() < 5 / 50_000**0.5


@pytest.mark.parametrize("shape", [0.05, 0.125, 0.5, 1.0, 2.5, 40.0])
def test_gamma_variables_have_their_law(shape):
    drawn = Keys.of(4).extend(50_000).gamma(torch.full((50_000,), shape))
    assert stats.kstest(drawn, stats.gamma(shape).cdf).pvalue > 1e-3


def test_an_entry_depends_on_its_own_key_alone():
    keys = Keys.of(torch.tensor([5, 6])).extend(40, 3)
    shape = torch.linspace(0, 2, 240).reshape(2, 40, 3)
    whole = keys.gamma(shape)
    assert (whole[0, 0, 0] == 0) & (whole.flatten()[1:] > 0).all()
    assert torch.equal(keys[1, 7:9].gamma(shape[1, 7:9]), whole[1, 7:9])
    assert torch.equal(Keys.of(6).extend(50, 2).value[:40], keys.value[1, :, :2])
