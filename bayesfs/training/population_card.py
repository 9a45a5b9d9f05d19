"""What a shared population says of itself: `card_text`, Markdown as model hubs show it."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from bayesfs._utils.progress import terminal_safe
from bayesfs.training.shared_population import SharedPopulation

CARD_MARK = "library_name: bayesfs"
"""By this line a card is known as one that was generated here."""

HEAD = f"""---
{CARD_MARK}
tags: [few-shot, bayesian, uncertainty, image-classification]
---
"""

ABOUT = """How sharply similarity tells things apart, which similarity to trust, and what videos
of one thing vary in, learnt from other people with bayesfs.
"""

USE = """## Use

```sh
bayesfs population pull PLACE population.safetensors
bayesfs population show population.safetensors
```

```python
from pathlib import Path

import bayesfs as bf
from bayesfs.training.shared_population import SharedPopulation

shared = SharedPopulation.load(Path("population.safetensors"))
classifier = bf.BayesianFewShotClassifier(population=shared)
```

The features must be those of the backbone above. The file holds numbers and one
JSON text; nothing in it is run. No picture, name or feature of anybody is in it.
"""


def card_text(shared: SharedPopulation) -> str:
    """The card of a population as one page of Markdown.

    Args:
        shared: whose card; every text in it is shown as text, whoever wrote it.
    """
    card = dict(shared.card)
    people, objects = card.pop("people"), card.pop("objects")
    worlds, calibration = card.pop("worlds"), card.pop("calibration", {})
    backbone = _plain(card.pop("backbone"))
    parts = [
        HEAD,
        f"# A population of {people} people and {objects} objects\n",
        ABOUT,
        f"- Backbone: `{backbone}`",
        *(f"- Learnt from: {_plain(world)}" for world in worlds),
        "",
        *_calibration(calibration),
        *_others(card),
        USE,
    ]
    return "\n".join(parts)


def _calibration(worlds: Mapping[str, Any]) -> list[str]:
    """A table for each world: scores by videos per object."""
    lines: list[str] = []
    for world, rows in worlds.items():
        names = sorted({name for row in rows.values() for name in row})
        lines += [f"## How it did: {_plain(world)}\n"]
        lines += ["| videos per object | " + " | ".join(map(_plain, names)) + " |"]
        lines += ["|---" * (len(names) + 1) + "|"]
        for shots, row in rows.items():
            values = " | ".join(_plain(row.get(name, "")) for name in names)
            lines += [f"| {_plain(shots)} | {values} |"]
        lines += [""]
    return lines


def _others(card: Mapping[str, Any]) -> list[str]:
    """What else is known, under its own name."""
    lines: list[str] = []
    for name, value in card.items():
        lines += [f"## {_plain(name).replace('_', ' ').capitalize()}\n"]
        values = value if isinstance(value, list) else [value]
        lines += [*(f"- {_plain(one)}" for one in values), ""]
    return lines


def _plain(text: object) -> str:
    """One line of text that starts no markup and ends no cell."""
    one_line = terminal_safe(" ".join(str(text).split()))
    return html.escape(one_line, quote=False).replace("|", "\\|").replace("`", "'")
