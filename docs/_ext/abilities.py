"""Which model has which ability, and what each engine asks for: the page `docs/abilities.md`.

`python docs/_ext/abilities.py` writes it; `tests/docs/test_abilities.py` compares.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import bayesfs.inference
import bayesfs.models
from bayesfs.models.learned_map import MapScore
from bayesfs.models.objectives import MarginalLikelihood, PopulationPrior, PredictiveScore
from bayesfs.protocols import ABILITIES, Engine, Model, members, missing_members

PAGE = Path(__file__).parents[1] / "abilities.md"
PROGRAMS = (MapScore, MarginalLikelihood, PopulationPrior, PredictiveScore)
"""What a population is learnt with: programs over its sites, no models of a task."""

HEAD = """# Abilities

Every model has what `bayesfs.protocols.Model` asks for; some can do more. Each ability is a
Protocol in `bayesfs.protocols`, and a model has it when it has its members. This page is made by
`python docs/_ext/abilities.py`, and a test compares.

"""


def page() -> str:
    """The whole page."""
    models = [c for c in classes(bayesfs.models, Model) if c not in PROGRAMS]
    engines = list(classes(bayesfs.inference, Engine))
    parts = [
        HEAD + "## What each ability is\n",
        "| Ability | A model that | Members |\n|---|---|---|",
        *(row(f"`{a.__name__}`", meaning(a), ", ".join(own(a))) for a in ABILITIES),
        "\n## Which model has which ability\n",
        row("Model", *(f"`{a.__name__}`" for a in ABILITIES)),
        "|---|" + ":-:|" * len(ABILITIES),
        *(row(f"`{m.__name__}`", *(mark(has(m, a)) for a in ABILITIES)) for m in models),
        "\n## What each engine asks for\n",
        "| Engine | The model must be | Infers |\n|---|---|---|",
        *(row(f"`{e.__name__}`", f"`{e.requires.__name__}`", fits(e, models)) for e in engines),
    ]
    return "\n".join(parts) + "\n"


def classes(package: ModuleType, base: type) -> Iterator[type]:
    """Public classes of a package that inherit from a contract, by name."""
    found = {}
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        for name, cls in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            own = cls.__module__ == module.name and base in cls.__mro__
            if own and not inspect.isabstract(cls) and not name.startswith("_"):
                found[name] = cls
    return iter(found[name] for name in sorted(found))


def has(model: type, ability: type) -> bool:
    """Whether the class has every member of an ability."""
    return not missing_members(model, ability)


def fits(engine: type[Engine], models: list[type]) -> str:
    """The models that an engine takes."""
    taken = [f"`{m.__name__}`" for m in models if has(m, engine.requires)]
    return "every model" if len(taken) == len(models) else ", ".join(taken)


def meaning(ability: type) -> str:
    """First line of its docstring, after "A model ..."."""
    line = (inspect.getdoc(ability) or "").splitlines()[0].rstrip(".")
    return line.removeprefix("A model ").removeprefix("that ")


def own(ability: type) -> list[str]:
    """The members that it adds to its parents'."""
    above = {name for parent in ability.__mro__[1:] for name in vars(parent)}
    return [f"`{name}`" for name in members(ability) if name not in above]


def mark(yes: bool) -> str:
    """A cell of the table."""
    return "✓" if yes else ""


def row(*cells: str) -> str:
    """A row of a table."""
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
