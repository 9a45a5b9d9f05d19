"""What can be told of recipes and their data before anything is run: `check_in_data`.

Fields whose types say that the data must hold their words (`bayesfs._utils.ranges.OfData`), such
as splits and flags, are read from the recipes' texts and settings, and looked up in the store.
Whatever is not certain from the text is left to whoever draws the tasks.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from bayesfs._utils.ranges import OfData, bare, of_data
from bayesfs.data.held_words import check_flags, check_split
from bayesfs.data.store import words_of_store
from bayesfs.recipes.overrides import targets, typed
from bayesfs.recipes.unrun import Made


def check_in_data(
    values: Mapping[str, Made | None], settings: Sequence[Sequence[str]], store: Path
) -> None:
    """Refuse words that the data do not hold; nothing is run.

    Args:
        values: what the recipes' names hold, from `bayesfs.recipes.unrun.check_unrun`.
        settings: as `--set` has them, each with its alternatives.
        store: feature store.

    Raises:
        DataError: the data lack a split or a flag, or are no store.
    """

    @cache
    def words(held: OfData) -> set[str]:
        return words_of_store(store, coordinate=held.coordinate, prefix=held.prefix)

    certain = ((name, made) for name, made in values.items() if made is not None)
    for name, made in certain:
        for field, argument in made.arguments.items():
            if (held := of_data(argument.type)) is None:
                continue
            for value in _values(name, field, made, settings):
                if isinstance(value, str):
                    check_split(value, words(held))
                else:
                    check_flags(value, words(held))


def _values(
    name: str, field: str, made: Made, settings: Sequence[Sequence[str]]
) -> Iterator[str | tuple[str, ...]]:
    """What a field is set to: by settings, else by the recipe, else by its default."""
    wanted = bare(made.arguments[field].type)
    found = [
        typed(text, wanted, setting)
        for alternatives in settings
        for setting in alternatives
        for _, owner, path, text in targets([setting])
        if (owner, (*path,)) == (name, (field,))
    ]
    if found or made.given is None:
        yield from found
        return
    text = made.given.get(field, made.arguments[field].default)
    try:
        yield ast.literal_eval(text) if text is not None else ""
    except ValueError:  # made while the recipe runs
        return
