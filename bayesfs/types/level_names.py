"""What the data call the levels of the hierarchy: `LevelNames`.

A hierarchy is the same whether users show objects in videos or schools have classes that are
visited: population -> group -> label in the group -> cluster -> row. The code has one set of words
(the defaults); a value of this class carries those of the data, from `Embeddings.from_dataframe` to
tables, axes, sentences and reports.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass

from bayesfs.errors import DataError

AXES = {"task": "group", "way": "label", "video": "cluster", "shot": "cluster", "frame": "row"}
"""Axis -> the level that it runs over; "shot" is of taught clusters, "video" of asked ones."""

AXES_OF_TREES = frozenset(
    {"chain", "draw", "feature", "level", "sample", "condition", "class_name"}
)
"""Axes of the results that keep their names in the words of the data."""


@dataclass(frozen=True)
class LevelNames:
    """Words of one level each, in the singular.

    Attributes:
        label: what is to be recognised.
        group: whose labels these are: one task each.
        cluster: rows of it depend on one another; the unit that counts as evidence.
        row: one observation.
        recorded: whether clusters are recordings in one of `CONDITIONS`, such as clean or clutter.

    Example:
        >>> LevelNames("class", "school", "visit", "row").in_words("One more video of a.")
        'One more visit of a.'
    """

    label: str = "object"
    group: str = "user"
    cluster: str = "video"
    row: str = "frame"
    recorded: bool = True

    def __post_init__(self) -> None:
        words = (self.label, self.group, self.cluster, self.row)
        taken = sorted({*words} & AXES_OF_TREES)
        if taken:
            raise DataError(
                f"expected names of levels that no axis of the results has, got {taken}; rename "
                f"the column, such as to {taken[0] + '_name'!r}"
            )
        if not all(words) or len(set(words)) < len(words):
            raise DataError(f"expected four different names of levels, got {words}")

    @classmethod
    def of_json(cls, text: str) -> LevelNames:
        """From what `to_json` wrote; the defaults where that is empty or of another kind."""
        try:
            return cls(**json.loads(text)) if text else cls()
        except (TypeError, ValueError):
            return cls()

    def to_json(self) -> str:
        """As text, for attributes of a store or tree."""
        return json.dumps(asdict(self))

    @property
    def axes(self) -> dict[str, str]:
        """Axis -> its name in the words of the data; two axes over clusters stay apart."""
        if self == VIDEOS:
            return {}
        own = {axis: getattr(self, level) for axis, level in AXES.items()}
        return {**own, "shot": f"taught_{self.cluster}", "video": f"asked_{self.cluster}"}

    def of_level(self, level: str) -> str:
        """Name of a level of a model, such as "video_clean" or "label in group", in these words.

        Example:
            >>> LevelNames("class", "school", "visit", "row").of_level("label in group")
            'class in school'
        """
        if self == VIDEOS:
            return level
        words = {own: getattr(self, own) for own in ("label", "group", "cluster", "row")}
        words |= {"task": self.group, "class": self.label, "video": self.cluster, "frame": self.row}
        pattern = rf"(?<![a-z])(?:{'|'.join(words)})(?![a-z])"
        return re.sub(pattern, lambda found: words[found[0]], level)

    def in_words(self, text: str) -> str:
        """English text of this library with the data's words in place of its own."""
        if self == VIDEOS:
            return text
        singular = {
            "object": self.label, "user": self.group, "person": self.group, "video": self.cluster,
            "recording": self.cluster, "frame": self.row, "picture": self.row,
        }  # fmt: skip
        words = singular | {f"{word}s": plural(own) for word, own in singular.items()}
        words |= {"people": plural(self.group), "things": plural(self.label)}

        def own(match: re.Match[str]) -> str:
            found = words[match[0].lower()]
            return found[:1].upper() + found[1:] if match[0][:1].isupper() else found

        return re.sub(rf"\b(?:{'|'.join(words)})\b", own, text, flags=re.IGNORECASE)


VIDEOS = LevelNames()
"""Objects of users in videos: this library's own words."""


def plural(word: str) -> str:
    """English plural of a regular noun.

    Example:
        >>> [plural(word) for word in ("class", "visit", "city", "day")]
        ['classes', 'visits', 'cities', 'days']
    """
    if re.search(r"(?:s|x|z|ch|sh)$", word):
        return f"{word}es"
    if re.search(r"[^aeiou]y$", word):
        return f"{word[:-1]}ies"
    return f"{word}s"
