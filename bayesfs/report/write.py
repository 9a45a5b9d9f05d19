"""The report: one self-contained HTML page, or Markdown. Use `write_report` first.

The page loads nothing: its style, script, figures (inline SVG) and pictures are inside, and a
content security policy keeps it so. Names from the data are escaped, and characters that hide or
reorder text are shown as their code points.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream
from markupsafe import Markup

from bayesfs._utils.spacing import evenly_spaced
from bayesfs.errors import DataError
from bayesfs.plots.arviz_panels import panel_svg
from bayesfs.plots.text import (
    fixed,
    harmless,
    harmless_markdown,
    margin,
    markdown,
    number,
    points,
    share,
    visible,
)
from bayesfs.protocols import ReportSection
from bayesfs.report import figure_tables, figures
from bayesfs.report.figures import BAND_FRAMES
from bayesfs.report.names import COLUMN_NAMES, SCORE_NAMES
from bayesfs.report.sections import SECTIONS, TEMPLATES
from bayesfs.report.tables import VideoRow
from bayesfs.report.view import COVERAGES, LARGE, ReportData, ReportView
from bayesfs.types.level_names import VIDEOS, LevelNames

LOWERED_BY = {
    "population": "learning from more people",
    "shared": "learning from more people with objects of that name",
    "task": "this person teaching more objects",
    "class": "more videos of this object",
    "video": "filming it once more",
    "frame": "filming it better",
}
"""Level of the hierarchy -> what would lower it, see `bayesfs.uncertainty.by_level`."""


def write_report(
    data: ReportData,
    path: str | Path,
    *,
    format: Literal["html", "md"] = "html",
    sections: Sequence[ReportSection] = SECTIONS,
) -> Path:
    """Render and write a report.

    Args:
        data: what to report.
        path: file to write.
        format: "html" or "md".
        sections: what to show, in order.

    Returns:
        The path.

    Raises:
        DataError: another format.
    """
    renderers = {"html": render_html, "md": render_markdown}
    if format not in renderers:
        raise DataError(f"expected format to be one of {tuple(renderers)}, got {format!r}")
    path = Path(path)
    path.write_text(renderers[format](data, sections), encoding="utf-8")
    return path


def render_html(data: ReportData, sections: Sequence[ReportSection] = SECTIONS) -> str:
    """The whole page."""
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    view = ReportView(data)
    place = {id(video): i for i, video in enumerate(view.videos)}
    environment = _environment(harmless, sections, view.levels)
    environment.filters |= {
        "v": visible,
        "pct": lambda value: share(value).replace(" ", "\u00a0"),
        "ref": lambda video: f"b{place[id(video)]}",
        "paths": partial(_paths, frames=BAND_FRAMES if len(view.videos) <= LARGE else 20),
        "band_words": band_words,
        "middle": lambda strip: strip[len(strip) // 2],
        "log": math.log,
    }
    return environment.get_template("report.html.j2").render(
        **_context(view, sections),
        album=view.album,
        figures=_figures(),
        parts=figures.parts_figure,
        scatter=_scatter(view),
        task_row={row.name: row for row in view.tasks},
        coverages=COVERAGES,
        rows=_rows(),
        frames_words=frames_words,
        lowered_by=LOWERED_BY,
        draws_said=lambda name: _draws_said(view, name),
        style=Markup(style),
        script=Markup(script),
        style_hash=_source_hash(style),
        script_hash=_source_hash(script),
    )


def render_markdown(data: ReportData, sections: Sequence[ReportSection] = SECTIONS) -> str:
    """The same numbers as Markdown tables, without pictures."""
    view = ReportView(data)
    environment = _environment(harmless_markdown, sections, view.levels)
    environment.filters["md"] = lambda *words: Markup(markdown(*words))
    for name in ("num", "fix", "margin", "pct", "points"):  # numbers as they are
        shown = environment.filters[name]
        environment.filters[name] = lambda *args, shown=shown: Markup(shown(*args))
    text = environment.get_template("report.md.j2").render(**_context(view, sections))
    return _squeeze(text)


def band_words(video: VideoRow) -> str:
    """Text alternative of a video's uncertainty over its frames."""
    total = video.frame_aleatoric + video.frame_epistemic
    worst = int(np.argmax(total))
    words = (
        f"{fixed(float(total.min()))} to {fixed(float(total.max()))} nats over {len(total)} "
        f"frames, most at frame {worst + 1}"
    )
    if video.labelled:
        words += f"; {int((~video.frame_right).sum())} named wrong on their own"
    return words


def frames_words(video: VideoRow) -> str:
    """What a band shows, in numbers: nats of some frames, with a cross where one is named wrong."""
    total = video.frame_aleatoric + video.frame_epistemic
    wrong = ~video.frame_right & video.labelled
    chosen = evenly_spaced(len(total), BAND_FRAMES)
    return " ".join(f"{fixed(float(total[i]))}{'✕' if wrong[i] else ''}" for i in chosen)


class _Words(Extension):
    """Text of templates in the words of the data: what stands between tags, and no name."""

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        levels = cast(LevelNames, self.environment.globals["levels"])
        inside = False
        for token in stream:
            if token.type != "data":
                yield token
                continue
            parts = re.split(r"([<>])", token.value)
            for i, part in enumerate(parts):
                if part in ("<", ">"):
                    inside = part == "<"
                elif not inside:
                    parts[i] = levels.in_words(part)
            yield Token(token.lineno, token.type, "".join(parts))


def _environment(
    finalize: Callable[[object], object], sections: Sequence[ReportSection], levels: LevelNames
) -> Environment:
    """An environment whose every output goes through `finalize`, so that no name is forgotten."""
    own = levels != VIDEOS
    environment = Environment(
        extensions=[_Words] if own else [],
        finalize=finalize,
        loader=FileSystemLoader([TEMPLATES, *(section.template.parent for section in sections)]),
        autoescape=select_autoescape(["html", "html.j2"], default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.globals |= {"levels": levels, "nan": math.nan}
    environment.filters |= {
        "words": lambda text: levels.in_words(str(text)),
        "num": number,
        "fix": fixed,
        "margin": margin,
        "int_or_fix": lambda value: fixed(value) if isinstance(value, float) else number(value),
        "pct": share,
        "points": points,
        "score_name": lambda name: levels.in_words(
            SCORE_NAMES.get(name, str(name).replace("_", " "))
        ),
        "column_name": lambda name: levels.in_words(
            COLUMN_NAMES.get(name, str(name).replace("_", " "))
        ),
    }
    return environment


def _context(view: ReportView, sections: Sequence[ReportSection]) -> dict[str, Any]:
    """What the templates read: what all have, and what each section adds."""
    shown = [section for section in sections if section.is_shown(view.tree)]
    own = {name: value for section in shown for name, value in section.context(view).items()}
    common = {"data": view.data, "view": view, "sections": shown, "version": version("bayesfs")}
    return {**own, **common}


def _figures() -> SimpleNamespace:
    return SimpleNamespace(
        reliability=figures.reliability_figure,
        coverage=figures.coverage_figure,
        scatter=figures.scatter_figure,
        interval=figures.interval_figure,
        history=figures.history_figure,
        trace=figures.trace_figure,
        marginal=figures.marginal_figure,
        shots=figures.shots_figure,
        pair=figures.pair_figure,
        panel=panel_svg,
        pooling=figures.pooling_figure,
    )


def _rows() -> SimpleNamespace:
    """The tables of the figures, under the figures' names."""
    return SimpleNamespace(
        coverage=figure_tables.coverage_rows,
        scatter=figure_tables.scatter_rows,
        history=figure_tables.history_rows,
        trace=figure_tables.trace_rows,
        marginal=figure_tables.marginal_rows,
        shots=figure_tables.shots_rows,
        pair=figure_tables.pair_rows,
    )


def _scatter(view: ReportView) -> SimpleNamespace:
    return SimpleNamespace(
        aleatoric=np.array([v.aleatoric for v in view.labelled]),
        epistemic=np.array([v.epistemic for v in view.labelled]),
        right=np.array([v.right for v in view.labelled], bool),
    )


def _paths(video: VideoRow, frames: int) -> tuple[str, str, str, int]:
    right = video.frame_right | (not video.labelled)
    return figures.band_paths(
        video.frame_aleatoric,
        video.frame_epistemic,
        right,
        math.log(max(video.ways, 2)),
        frames,
    )


def _draws_said(view: ReportView, name: str) -> str:
    """How many draws there are, and of how many values of the population."""
    draws = view.tree["population" if name == "population" else "posterior"].to_dataset()
    count = draws.sizes["chain"] * draws.sizes["draw"]
    whole = [site for site, values in draws.items() if "task" not in values.dims]
    if name == "population" or not whole:
        return f"{count} draws"
    rows = [draws[site].to_numpy().reshape(count, -1) for site in whole]
    values = len(np.unique(np.concatenate(rows, 1), axis=0))
    return f"{count} draws, for {values} value{'s' if values > 1 else ''} of the population"


def _source_hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _squeeze(text: str) -> str:
    """At most one empty line in a row, one newline at the end."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.strip() or (lines and lines[-1]):
            lines.append(line.rstrip())
    return "\n".join(lines).strip() + "\n"
