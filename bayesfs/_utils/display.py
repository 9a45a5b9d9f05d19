"""What a notebook shows of a value: `card`, a small HTML table with everything escaped.

It holds no mathematics and imports nothing of bayesfs, so that `bayesfs.types` can use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_STYLE = "border-collapse:collapse;margin:.4em 0"
_CELL = "text-align:left;padding:.15em .9em .15em 0;vertical-align:top"


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
