"""What a prompt and a notebook show of a value: `Card`, and `Shown` for values that have one.

It holds no mathematics and imports nothing of bayesfs, so that `bayesfs.types` can use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_STYLE = "border-collapse:collapse;margin:.4em 0"
_CELL = "text-align:left;padding:.15em .9em .15em 0;vertical-align:top"

LINES = 12
"""Lines of a value at a prompt, at most."""

WIDTH = 100
"""Characters of a line, at most."""


@dataclass(frozen=True)
class Card:
    """A value in a few lines.

    Attributes:
        title: what it is.
        facts: (name, value) of each line.
        columns: headings of the table.
        rows: its cells, one sequence a row.
    """

    title: str
    facts: Sequence[tuple[str, object]]
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()

    def __str__(self) -> str:
        """At most `LINES` lines of text.

        Example:
            >>> print(Card("Posterior", [("draws", 4)], ("site", "mean"), [("scale", 1.0)]))
            Posterior
              draws: 4
              site   mean
              scale  1.0
        """
        facts = [f"{name}: {value}" for name, value in self.facts]
        table = [self.columns, *self.rows] if self.rows else []
        cells = [[str(value) for value in row] for row in table]
        width = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(f"{v:<{n}}" for v, n in zip(row, width, strict=True)).rstrip()
            for row in cells
        ]
        left = max(2, LINES - 1 - len(facts))
        if len(lines) > left:
            lines = [*lines[: left - 1], f"... and {len(lines) - left + 1} more"]
        told = [f"  {line}" for line in (*facts, *lines)][: LINES - 1]
        return "\n".join([self.title, *(_short(line) for line in told)])

    @property
    def html(self) -> str:
        """The same for a notebook."""
        return card(self.title, self.facts, columns=self.columns, rows=self.rows)


class Shown:
    """A value that shows itself by a `Card`, at a prompt and in a notebook."""

    def _card(self) -> Card:
        raise NotImplementedError

    def __repr__(self) -> str:
        return str(self._card())

    def _repr_html_(self) -> str:
        return self._card().html


def _short(line: str) -> str:
    line = " ".join(line.splitlines())
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..."


def card(
    title: str,
    facts: Sequence[tuple[str, object]],
    *,
    columns: Sequence[str] = (),
    rows: Sequence[Sequence[object]] = (),
) -> str:
    """HTML of one value: a title, facts a line each, and a table where there is one.

    Text comes from data (names of people and things) and is escaped.

    Args:
        title: what it is.
        facts: (name, value) of each line.
        columns: headings of the table.
        rows: its cells, one sequence a row.

    Returns:
        HTML that needs no script and no style sheet, and reads in order aloud.

    Example:
        >>> card("Posterior", [("kind", "<exact>")])[:52]
        '<div><strong>Posterior</strong><div>kind: &lt;exact&'
    """
    lines = "".join(f"<div>{escape(name)}: {escape(str(value))}</div>" for name, value in facts)
    table = _table(columns, rows) if rows else ""
    return f"<div><strong>{escape(title)}</strong>{lines}{table}</div>"


def short_number(value: float) -> str:
    """Three significant digits.

    Example:
        >>> short_number(0.123456), short_number(1234.5)
        ('0.123', '1.23e+03')
    """
    return f"{value:.3g}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f'<th scope="col" style="{_CELL}">{escape(c)}</th>' for c in columns)
    body = "".join(
        f"<tr>{''.join(_cell(i, value) for i, value in enumerate(r))}</tr>" for r in rows
    )
    return f'<table style="{_STYLE}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cell(column: int, value: object) -> str:
    tag = 'th scope="row"' if column == 0 else "td"
    end = "th" if column == 0 else "td"
    return f'<{tag} style="{_CELL}">{escape(str(value))}</{end}>'
