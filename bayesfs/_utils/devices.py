"""Where tensors live: `best_device` for what nobody said, `usable_device` for what somebody did.

Generators of random numbers are the CPU's everywhere, and their numbers are carried over, so that
draws are the same on every device up to rounding.
"""

from __future__ import annotations

import torch

from bayesfs.errors import DataError

NO_DOUBLE = ("mps",)
"""Kinds of device that have no double precision."""


def best_device(dtype: torch.dtype = torch.float32) -> torch.device:
    """A CUDA GPU where there is one, else Apple's where it has this type, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available() and dtype != torch.float64:
        return torch.device("mps")
    return torch.device("cpu")


def usable_device(
    name: torch.device | str | None, dtype: torch.dtype = torch.float32
) -> torch.device:
    """The device of that name, the best there is for none.

    Args:
        name: such as "cpu", "cuda" or "cuda:1".
        dtype: what it has to compute in.

    Raises:
        DataError: this machine has no such device, or the device has no such type.
    """
    if name is None:
        return best_device(dtype)
    try:
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as e:  # torch without CUDA raises the latter
        first = str(e).splitlines()[0]
        raise DataError(f"device {name}: not usable on this machine ({first})") from e
    if dtype == torch.float64 and device.type in NO_DOUBLE:
        raise DataError(
            f"device {name}: has no double precision, which this is computed in; take cpu, or "
            "Study(dtype=torch.float32) where single precision is enough"
        )
    return device
