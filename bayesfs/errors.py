"""Errors a person meets: each says what was expected, what came and the likely cause."""

from __future__ import annotations

import errno
from collections.abc import Mapping

REFUSALS: Mapping[int, str] = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.EACCES: "permission denied; is the folder read-only or another user's?",
    errno.EPERM: "permission denied; is the folder read-only or another user's?",
    errno.ENOTDIR: "part of the path is a file, not a folder",
}
"""Error number of an operating system's refusal to write -> likely cause and what to do."""


NO_DOCSTRINGS = (
    "bayesfs does not run with python -OO (PYTHONOPTIMIZE=2), which removes docstrings that Pyro "
    "needs; python -O is supported"
)
"""What is said where docstrings have been removed."""


class BayesfsError(ValueError):
    """Base of every error that bayesfs raises on purpose."""


class DataError(BayesfsError):
    """A file, folder, store or array does not hold what it should; the message names it."""


class ShapeError(BayesfsError):
    """An array has the wrong number of axes, the wrong size along one, or values out of range."""


class RecipeError(BayesfsError):
    """A recipe cannot be loaded or does not define what the command needs."""


class RunError(BayesfsError):
    """A run directory is in use, holds something else, has changed, or cannot be written."""


class InferenceError(BayesfsError):
    """An engine cannot give a posterior for this model and data."""


class UntranslatableError(InferenceError):
    """A program branches on values, or uses what has no translation to compiled code."""


class NotPositiveDefiniteError(InferenceError):
    """A covariance has no Cholesky factor even with the largest jitter tried."""
