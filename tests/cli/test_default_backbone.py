"""What commands embed with if nothing is asked for is one and the same."""

import inspect

from bayesfs.cli.subcommands import features
from bayesfs.features.backbones.spec import DEFAULT
from bayesfs.training.shared_population import BACKBONES


def test_stores_are_made_for_the_population_in_the_box() -> None:
    asked = inspect.signature(features).parameters["backbone"].default
    assert asked == DEFAULT == BACKBONES[0]
