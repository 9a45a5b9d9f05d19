"""Scripts and the modules that stand beside them, each run once: `Scripts`.

A recipe may import a module from its own folder (`from helper import x`). Only the recipe and its
helpers find it there: nothing is added to `sys.path`, so that no file beside a recipe takes the
place of a library's module.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from bayesfs._utils.guarded_files import read_text
from bayesfs.errors import RecipeError
from bayesfs.recipes.mistakes import failure, syntax_failure

LONGEST = 2**20
"""Bytes of a script at most."""

PRIVATE = "_bayesfs_recipe_"
"""What the names of scripts in `sys.modules` begin with."""


@dataclass(frozen=True)
class Scripts:
    """The scripts of one command.

    Attributes:
        given: file name -> text of the helpers that may be imported, such as a run keeps; by
            default they are read from the folder of the script that imports them.
        helpers: file name -> text of those that were imported.
    """

    given: Mapping[str, str] | None = None
    helpers: dict[str, str] = field(default_factory=dict)
    _modules: dict[Path, ModuleType] = field(default_factory=dict)

    def run(self, path: Path, source: str) -> ModuleType:
        """Run a text as a module.

        The module lives in `sys.modules` under a private name, so that it shadows no other and
        dataclasses defined in it work; no bytecode is read or written beside it.

        Args:
            path: where the text came from, for messages and for what stands beside it.
            source: the text.

        Raises:
            RecipeError: it has a mistake, or a helper has; the message has the file and the line.
        """
        digest = hashlib.sha256(f"{path.resolve()}\0{source}".encode()).hexdigest()[:16]
        name = f"{PRIVATE}{digest}"
        module = ModuleType(name)
        module.__file__ = str(path)
        importing = {"__import__": partial(self._import, path)}
        vars(module)["__builtins__"] = {**vars(builtins), **importing}
        sys.modules[name] = self._modules[path] = module
        try:
            exec(compile(source, str(path), "exec", dont_inherit=True), vars(module))
        except (Exception, SystemExit) as e:
            sys.modules.pop(name, None)
            self._modules.pop(path, None)
            if isinstance(e, RecipeError):  # of a helper, which has said where
                raise
            if isinstance(e, SyntaxError):
                raise RecipeError(syntax_failure(path, e)) from e
            raise RecipeError(failure(path, source, e, vars(module))) from e
        return module

    def _import(
        self,
        script: Path,
        name: str,
        within: Mapping[str, Any] | None = None,
        local: Mapping[str, Any] | None = None,
        wanted: tuple[str, ...] = (),
        level: int = 0,
    ) -> ModuleType:
        """What `import` does in a script: a module beside it, or else what it does elsewhere."""
        own = name == script.stem or name in sys.stdlib_module_names
        helper = None if own or level or "." in name else self._beside(script, name)
        return helper or __import__(name, within, local, wanted, level)

    def _beside(self, script: Path, name: str) -> ModuleType | None:
        path = script.parent / f"{name}.py"
        if self.given is not None:
            text = self.given.get(path.name)
        else:
            text = read_script(path) if path.is_file() else None
            _refuse_two(script, path, name, text)
        if text is None:
            return None
        if self.helpers.setdefault(path.name, text) != text:
            raise RecipeError(
                f"{path}: another {path.name} was imported by a recipe in another folder; a run "
                "keeps both in one folder, rename one"
            )
        return self._modules.get(path) or self.run(path, text)


def _refuse_two(script: Path, path: Path, name: str, text: str | None) -> None:
    """Refuse a helper that has the name of an installed module: either could be meant."""
    found = None if text is None else importlib.util.find_spec(name)
    if found and found.origin and Path(found.origin).resolve() != path.resolve():
        raise RecipeError(
            f"{script}: imports {name!r}, which is {path.name} beside it and an installed module "
            f"too; rename {path.name}"
        )


def read_script(path: Path) -> str:
    """Text of a script.

    Raises:
        RecipeError: it is not UTF-8 text, or too long.
    """
    try:
        return read_text(path, LONGEST)
    except (OSError, ValueError) as e:
        raise RecipeError(f"{path}: cannot be read as UTF-8 text ({e})") from e


def read_recipe(path: Path) -> str:
    """Text of a recipe.

    Raises:
        RecipeError: there is no such file, or it is not UTF-8 text.
    """
    if path.suffix != ".py" or not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        found = f"; {path.parent} holds {', '.join(near)}" if near else ""
        raise RecipeError(
            f"{path}: expected a recipe, a Python file{found}; "
            "`bayesfs init DIR` copies the shipped ones"
        )
    return read_script(path)
