"""The report: whole, escaped, and with the numbers that it was given."""

import html
import math
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import arviz_plots
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from markdown_it import MarkdownIt

from bayesfs.data.store import Thumbnail
from bayesfs.diagnostics.convergence import Diagnostics
from bayesfs.diagnostics.verdicts import Check
from bayesfs.errors import DataError
from bayesfs.evaluation.score_sheet import WORDS, score_sheet
from bayesfs.explanation.record import NextRecording
from bayesfs.plots.arviz_panels import panel_svg, panels_of
from bayesfs.plots.svg import nice_ticks
from bayesfs.plots.text import fixed, markdown, number, points, share, visible
from bayesfs.report.draws import Scalar, rank_panels, strongest_pairs
from bayesfs.report.figures import band_paths, pair_figure
from bayesfs.report.names import SCORE_NAMES
from bayesfs.report.pictures import make_album
from bayesfs.report.sections import TEMPLATES, said_once, steps_of
from bayesfs.report.summary import sentences
from bayesfs.report.tables import confusions, group_rows, telling, video_table
from bayesfs.report.view import ReportData, ReportView
from bayesfs.report.write import render_html, render_markdown, write_report
from bayesfs.results.calibration import calibration_tree

VOID = {"meta", "br", "path", "rect", "circle", "use", "image"}


class Outline(HTMLParser):
    """Checks that tags nest, and collects what the tests ask about."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes {self.open[-3:]}"

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def named(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.tags if name == tag]


def outline_of(page: str) -> Outline:
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    return outline


@pytest.fixture(scope="module")
def page(report_data: ReportData) -> str:
    return render_html(report_data)


@pytest.fixture(scope="module")
def outline(page: str) -> Outline:
    return outline_of(page)


def truth_table(data: ReportData) -> pd.DataFrame:
    """One row per labelled video, straight from the tree."""
    tree = data.trees[5]
    prob = tree["uncertainty"]["video_prob"].values
    label = tree["observed_data"]["label"].values
    names = tree["constant_data"]["class_name"].values
    rows = [
        {
            "task": str(tree["constant_data"]["task"].values[t]),
            "truth": names[t, int(label[t, v])],
            "said": names[t, prob[t, v].argmax()],
            "nll": -math.log(prob[t, v, int(label[t, v])]),
            "total": float(tree["uncertainty"]["video_total"].values[t, v]),
        }
        for t, v in np.argwhere(~np.isnan(label))
    ]
    return pd.DataFrame(rows).assign(right=lambda d: d["truth"] == d["said"])


def test_the_page_is_whole(page: str, outline: Outline) -> None:
    assert len(outline.named("script")) == 1
    assert len(outline.named("style")) == 1
    sources = [a["href"] for a in outline.named("image")]
    assert sources
    assert len(sources) == len(set(sources)), "a picture is in the page twice"
    assert all(s.startswith("data:image/jpeg;base64,") for s in sources)
    links = [a["href"] for tag, a in outline.tags if "href" in a and tag != "image"]
    assert all(link.startswith("#") for link in links)
    assert "http:" not in page
    assert "https:" not in page
    policy = outline.named("meta")[1]["content"]
    assert policy.startswith("default-src 'none'")


def test_headings_are_in_order_and_ids_are_unique(outline: Outline) -> None:
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    ids = [a["id"] for _, a in outline.tags if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for tag, a in outline.tags if tag in ("a", "use")}
    assert targets <= set(ids)


def test_figures_and_tables_have_words(outline: Outline) -> None:
    for attrs in outline.named("svg"):
        assert attrs.get("aria-label") or attrs.get("aria-hidden") == "true"
    assert len(outline.named("caption")) == len(outline.named("table"))
    assert all("scope" in a for a in outline.named("th"))


def test_names_from_data_are_escaped(page: str) -> None:
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "\u202e" not in page
    assert "mug⟨U+202E⟩gnp" in page
    assert "a&#34;b&#39;c &amp; |d_e*" in page
    assert "<i>mug</i>" not in page
    assert "<gaussian>" not in page
    assert "v0<b>" not in page


def test_the_numbers_given_are_there(outline: Outline, report_data: ReportData) -> None:
    text = " ".join(outline.text)
    for words in ("0.813", "[0.713, 0.913]", "0.432", "0.687", "0.988", "models/<gaussian>.py"):
        assert words in text
    assert "One more video of <i>mug</i>." in text
    assert "frame <12> is no JPEG" in text
    assert "Blurred & dark." in text
    truth = truth_table(report_data)
    assert f"{truth['right'].sum()} of {len(truth)} videos were named right" in text


def test_a_real_score_table_of_few_people_says_why_there_is_no_interval(
    report_data: ReportData,
) -> None:
    scores = report_data.scores[1]
    few = replace(report_data, trees={1: report_data.trees[1]}, scores={1: scores})
    text = " ".join(outline_of(render_html(few)).text)
    assert fixed(float(scores["estimate"].sel(item="frame", score="brier")), 3) in text
    assert fixed(float(scores["worst"].sel(item="video", score="nll")), 3) in text
    assert "3 users or other units are too few" in text
    assert "nan" not in text
    assert "No intervals" in render_markdown(few)


def test_the_verdict_is_there(outline: Outline, report_data: ReportData) -> None:
    text = " ".join(outline.text)
    fits = ReportView(report_data).fits
    assert [fit.name for fit in fits] == ["tasks, 1 support video", "tasks, 5 support videos"]
    assert all(fit.verdict in text for fit in fits)


def test_the_model_has_a_line_with_its_thresholds(
    outline: Outline, report_data: ReportData
) -> None:
    model = ReportView(report_data).model
    names = {check.name: check for check in model.verdict.checks}
    assert names["class sets (PIT)"].value == model.pit.p
    assert names["prior predictive check"].passed is not None
    assert names["posterior predictive check"].reason == "no <features>"
    assert names["prior sensitivity"].passed is None
    text = " ".join(outline.text)
    assert "nats per video" in text.lower()
    assert f"{model.loo[-1].elpd:.3f}".replace("-", "−") in text
    assert "Labels drawn" in text
    assert "Model" in text


def test_convergence_is_told_site_by_site(outline: Outline, report_data: ReportData) -> None:
    fit = ReportView(report_data).fits[-1]
    text = " ".join(outline.text)
    assert f"By site: {fit.name}" in text
    assert f"{fit.sites.loc['class_mean', 'rhat']:.3f}" in text


def test_elpd_per_video_is_the_mean_log_probability(report_data: ReportData) -> None:
    row = next(
        r for r in ReportView(report_data).model.loo if r.shots == 5 and r.what == "query videos"
    )
    assert row.elpd == pytest.approx(-truth_table(report_data)["nll"].mean(), abs=1e-6)
    assert row.videos == len(truth_table(report_data))


def test_levels_are_told_as_they_were_given(outline: Outline, report_data: ReportData) -> None:
    means = ReportView(report_data).level_means
    assert [name for name, *_ in means] == ["object", "video", "frame"]
    assert sum(mean.share for mean in means) == pytest.approx(1.0)
    assert means[0][1] == pytest.approx(0.3)
    assert "By level: object 0.30" in " ".join(outline.text)


def test_rows_are_those_of_the_tree(report_data: ReportData) -> None:
    videos = video_table(report_data.trees[5])
    truth = truth_table(report_data)
    by_task = {row.name: row for row in group_rows(videos, lambda v: (v.task, v.task))}
    for task, rows in truth.groupby("task"):
        assert by_task[task].accuracy == pytest.approx(rows["right"].mean())
        assert by_task[task].nll == pytest.approx(rows["nll"].mean(), rel=1e-5)
        assert by_task[task].total == pytest.approx(rows["total"].mean(), rel=1e-5)
    wrong = truth[~truth["right"]].groupby(["task", "truth", "said"]).size()
    found = {(c.task, c.truth, c.said): c.count for c in confusions(videos, 100)}
    assert found == wrong.to_dict()


def test_worst_come_first_and_the_worst_tenth_is_marked(report_data: ReportData) -> None:
    videos = video_table(report_data.trees[5])
    rows = group_rows(videos, lambda v: (v.task, v.truth))
    assert [r.accuracy for r in rows] == sorted(r.accuracy for r in rows)
    assert [r.worst for r in rows] == [True] * math.ceil(len(rows) / 10) + [False] * (
        len(rows) - math.ceil(len(rows) / 10)
    )
    assert not group_rows(videos, lambda v: ("", "all"))[0].worst


def test_telling_videos_are_wrong_or_unsure(report_data: ReportData) -> None:
    videos = video_table(report_data.trees[5])
    chosen = telling(videos, 6)
    assert len({(v.task, v.video) for v in chosen}) == 6
    wrong = [v for v in videos if v.labelled and not v.right]
    assert chosen[0] == max(wrong, key=lambda v: v.prob_said)
    assert max(videos, key=lambda v: v.total) in chosen


def test_coverage_ends_at_the_accuracy(report_data: ReportData) -> None:
    view = ReportView(report_data)
    for name in view.coverage:
        assert view.accuracy_at(name)[-1] == pytest.approx(view.overall.accuracy)
    pooled = view.reliability["videos"]
    assert pooled["count"].sum() == len(view.labelled)
    right = (pooled["accuracy"] * pooled["count"]).sum()
    assert right == pytest.approx(view.overall.accuracy * len(view.labelled))


def test_every_score_is_in_the_appendix(page: str, report_data: ReportData) -> None:
    sheet = score_sheet(report_data.trees[5])
    tables = [
        [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall("<tr>(.*?)</tr>", t)]
        for t in re.findall(r"<table.*?</table>", page[page.index('id="sheet"') :], re.S)
    ]
    whole = sheet[(sheet["item"] == "frame") & (sheet["group"] == "all")].iloc[0]
    worst = sheet[(sheet["item"] == "video") & (sheet["group"] == "worst users")].iloc[0]
    named = [row[0].removesuffix("</span>").split('<span class="where">') for row in tables[0][1:]]
    assert [name for name, _ in named] == [SCORE_NAMES.get(name, name) for name in WORDS]
    assert [html.unescape(what) for _, what in named] == [*WORDS.values()], "what it is, below it"
    ends = {name: row[1:] for (name, _), row in zip(named, tables[0][1:], strict=True)}
    assert float(ends["NLL"][0]) == pytest.approx(whole["nll"], abs=6e-4)
    assert float(ends["NLL"][5]) == pytest.approx(worst["nll"], abs=6e-4)
    sizes = [len(table) - 1 for table in tables[1:6]]
    counts = sheet.groupby(["item", "group"])["rows"].size()
    order = [(i, g) for i in ("frame", "video") for g in ("user", "object", "video")][:-1]
    assert sizes == [counts[at] for at in order]


def test_chance_and_the_simplest_classifier_stand_beside_every_score(
    page: str, report_data: ReportData
) -> None:
    """The numbers of the column, by hand from the tree."""
    view = ReportView(report_data)
    prob = report_data.trees[5]["baseline"]["video_prob"].values
    label = report_data.trees[5]["observed_data"]["label"].values
    at = np.argwhere(~np.isnan(label))
    nll = -np.mean([math.log(prob[t, v, int(label[t, v])]) for t, v in at])
    line = next(x for x in view.score_lines if (x.unit, x.score) == ("video", "nll"))
    assert line.baseline == pytest.approx(nll)
    assert line.chance == pytest.approx(math.log(4))
    gain, error = view.model.gain
    assert gain == pytest.approx(nll - truth_table(report_data)["nll"].mean())
    assert gain == pytest.approx(
        sum(row.videos * won for row, _, won in view.people_lines) / len(at)
    )
    assert error > 0
    for told in (page, render_markdown(report_data)):
        assert fixed(nll, 3) in told
        assert "Nearest class mean" in told
        assert "Chance" in told


def test_errors_of_the_draws_are_told(page: str, report_data: ReportData) -> None:
    view = ReportView(report_data)
    error = 100 * view.monte_carlo["share_error"]
    parts = np.mean([v.epistemic for v in view.videos]), np.mean([v.total for v in view.videos])
    assert view.monte_carlo["share"] == pytest.approx(parts[0] / parts[1], rel=0.02)
    assert error > 0
    for told in (page, render_markdown(report_data)):
        assert f"{error:.1f} points" in told
        assert "± 0.012" in re.sub("<[^>]+>", "", told)
        assert "50.0 ± 1.7" in re.sub("<[^>]+>", "", told)


def test_six_sentences_come_first(page: str, report_data: ReportData) -> None:
    found = sentences(ReportView(report_data))
    assert [len(texts) for texts in found.values()] == [3, 3]
    first = page[: page.index('<dl class="glance">')]
    text = re.sub("<[^>]+>", " ", first)
    assert "For the person" in text
    assert "For the statistician" in text
    assert "What would help most, for U0001" in text


def test_identical_advice_is_said_once(report_data: ReportData) -> None:
    same = [NextRecording(f"p{i}", "More videos would hardly help.", 0.001 * i) for i in range(3)]
    other = NextRecording("p3", "One more video of keys would help.", 0.2)
    found = said_once([*same, other])
    assert [row.tasks for row in found] == [["p0", "p1", "p2"], ["p3"]]
    assert [row.gain for row in found] == [0.002, 0.2]
    page = render_html(replace(report_data, advice=[*same, other]))
    assert page[page.index('id="next"') :].count("More videos would hardly help.") == 1


def test_advice_is_not_against_the_card_above_it(
    report_data: ReportData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where much could be learnt, but by no one video, the sentence says just that."""
    little = [NextRecording(f"p{i}", "More videos would hardly help.", 0.001) for i in range(3)]
    view = ReportView(replace(report_data, advice=little))
    assert "hardly help" in sentences(view)["For the person"][2]
    for page in (render_html(view.data), render_markdown(view.data)):
        told = page[page.rindex("What to record next?") :]
        assert "No single video would settle as much as 0.01 nats per query" in told
        assert "expected to settle" not in told, "what is said of all is not said of each"
    monkeypatch.setattr("bayesfs.report.summary.WORTH_MORE", 0.01)
    assert "No single further video" in sentences(view)["For the person"][2]


def mislabelled(data: ReportData) -> ReportData:
    """The same with the wrong name on every video, which no run should be used after."""
    tree = data.trees[5].copy(deep=True)
    label = tree["observed_data"]["label"]
    way = tree["uncertainty"]["video_prob"].values.shape[-1]
    label[:] = (label.values + 1) % way
    return replace(data, trees={5: tree}, scores={})


def test_nothing_is_advised_by_answers_that_cannot_be_relied_on(report_data: ReportData) -> None:
    data = mislabelled(report_data)
    assert len([text for text in sentences(ReportView(data))["For the person"] if text]) == 2
    for page in (render_html(data), render_markdown(data)):
        assert "What would help most" not in page
        told = page[page.rindex("What to record next?") :]
        assert "these answers cannot be relied on" in told
        assert not any(one.text in told for one in data.advice)


def test_a_failed_fit_is_mended_before_the_model(report_data: ReportData) -> None:
    view = ReportView(mislabelled(report_data))
    said = sentences(view)["For the person"][1]
    assert said.startswith("Do not rely on the answers. Next")
    steps = [check.next_step for fit in view.fits if fit.is_grave for check in fit.failed]
    assert (steps[0] in said) if steps else ("the fit itself" not in said)


def test_pictures_say_what_they_show_not_what_the_file_is_called(page: str) -> None:
    said = [html.unescape(text) for text in re.findall(r'aria-label="(Frame [^"]+)"', page)]
    assert said
    assert not any("--v" in text for text in said)
    assert any("clé ключ, clutter, of U" in text for text in said)


def test_the_largest_gap_says_how_many_it_rests_on(page: str, report_data: ReportData) -> None:
    table = ReportView(report_data).reliability["videos"]
    gap = (table["accuracy"] - table["confidence"]).abs()
    count = int(table["count"][gap.idxmax()])
    assert f"{count} of {int(table['count'].sum())} videos" in page


def test_who_gained_is_told(report_data: ReportData) -> None:
    before = group_rows(video_table(report_data.trees[1]), lambda v: (v.task, v.task))
    share_right = {row.name: row.accuracy for row in before}
    lines = ReportView(report_data).people_lines
    assert {row.name: then for row, then, _ in lines} == share_right
    assert "| Gained |" in render_markdown(report_data)


def test_pooling_is_drawn_and_told(page: str, report_data: ReportData) -> None:
    pooling = ReportView(report_data).model.pooling
    assert [*pooling] == report_data.trees[5]["constant_data"]["task"].values.tolist()
    for shots in (1, 5):
        weights = np.concatenate([by_shots[shots] for by_shots in pooling.values()])
        assert weights.mean() == pytest.approx(shots / (shots + 1))
    part = page[page.index("How far are objects pulled together") :]
    drawn = part[: part.index("</svg>")]
    assert drawn.count('class="ring"') == drawn.count('class="dot"') == 12
    first = next(iter(pooling.values()))[5]
    row = f"| 5 | {fixed(first.mean())} | {fixed(first.min())} | {fixed(first.max())} |"
    assert row in render_markdown(report_data)


def test_pairs_are_the_most_correlated_ones() -> None:
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(3, 1, 500))
    chosen = [Scalar("a", a), Scalar("b", b), Scalar("c", a - 0.3 * c), Scalar("still", 0 * a)]
    (one, other, r), *rest = strongest_pairs(chosen)
    assert (one.name, other.name) == ("a", "c")
    assert r == pytest.approx(np.corrcoef(a[0], (a - 0.3 * c)[0])[0, 1])
    assert len(rest) == 2
    figure = str(pair_figure(one.draws, other.draws, "a", "c"))
    assert f"correlation {number(r)}" in figure


def luminance(colour: tuple[float, ...]) -> float:
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Ratio of WCAG 2.2."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_what_figures_are_drawn_with_has_a_contrast_of_three(scheme: int) -> None:
    """Each line, edge, dot and bar against the page, see-through ones as they are seen."""
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    root = re.findall(r":root \{(.*?)\}", style, re.S)[scheme]
    colours = {
        name: tuple(int(code[i : i + 2], 16) / 255 for i in (0, 2, 4))
        for name, code in re.findall(r"--([\w-]+): #([0-9a-f]{6})", root)
    }
    drawn = ("axis", "line", "ideal", "expected", "interval", "dot", "count", "draws", "series0")
    drawn += ("series1", "series2", "chain0", "chain1", "chain2", "chain3", "rightdot")
    for name in (*drawn, "wrongcross", "epi", "wrongbar"):
        rule = re.search(rf"^(?:.*\}} )?\.{name} \{{(.*?)\}}", style, re.M)[1]
        used = dict(re.findall(r"(stroke|fill): var\(--([\w-]+)\)", rule))
        key = used["fill"] if name in ("dot", "epi", "count") else used["stroke"]
        seen = float((re.search(r"opacity: ([.\d]+)", rule) or ["", "1"])[1])
        pairs = zip(colours[key], colours["page"], strict=True)
        mixed = tuple(seen * c + (1 - seen) * p for c, p in pairs)
        assert contrast(mixed, colours["page"]) >= 3, (name, contrast(mixed, colours["page"]))


def test_single_videos_are_left_out_of_a_sheet_of_very_many(
    report_data: ReportData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bayesfs.report.view.LARGE", 5)
    (frames, videos) = ReportView(report_data).sheet.values()
    assert set(frames["group"]) == set(videos["group"]) == {"all", "user", "object", "worst users"}


def test_markdown_shows_the_same_and_means_nothing(report_data: ReportData) -> None:
    text = render_markdown(report_data)
    assert "0.813 (0.713 to 0.913)" in text
    rendered = MarkdownIt("commonmark").enable("table").render(text)
    assert "<script" not in rendered
    assert "<i>" not in rendered
    assert "<em>" not in rendered
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in rendered
    assert "\u202e" not in text
    for table in re.findall(r"<table>.*?</table>", rendered, re.S):
        cells = {len(re.findall("<t[hd]", row)) for row in re.findall("<tr>.*?</tr>", table, re.S)}
        assert len(cells) == 1
    assert "<p>|" not in rendered, "a table in pieces"
    assert rendered.count("<h1>") == 1
    assert rendered.count("<h2>") == 7


def test_without_labels_scores_or_pictures(report_data: ReportData) -> None:
    tree = report_data.trees[5].copy(deep=True)
    tree["observed_data"]["label"][:] = np.nan
    bare = ReportData(title="bare", trees={5: tree})
    page = render_html(bare)
    outline = outline_of(page)
    assert "No query video is labelled" in page
    assert "holds no picture" in page
    assert not outline.named("image")
    assert "nan" not in " ".join(outline.text)
    assert "No query video is labelled" in render_markdown(bare)


@pytest.mark.parametrize("kind", ["variational", "particles", "exact"])
def test_every_kind_of_draws(report_data: ReportData, kind: str) -> None:
    tree = report_data.trees[5].copy(deep=True)
    tree.attrs["kind"] = kind
    outline_of(render_html(replace(report_data, trees={5: tree}, scores={})))


def test_written_files_and_formats(report_data: ReportData, tmp_path) -> None:
    bare = replace(report_data, pictures={})
    assert write_report(bare, tmp_path / "r.html").read_text("utf-8").startswith("<!DOCTYPE html>")
    assert (
        write_report(bare, tmp_path / "r.md", format="md").read_text("utf-8").startswith("# A run")
    )
    with pytest.raises(DataError, match="pdf"):
        write_report(bare, tmp_path / "r.pdf", format="pdf")
    with pytest.raises(DataError, match="at least one run"):
        ReportData(title="none", trees={})


def test_pictures_keep_to_the_budget(report_data: ReportData) -> None:
    pictures = dict(report_data.pictures)
    names = list(pictures)
    every = make_album(pictures, names[:1], names)
    assert every.left_out == 0
    assert all(len(strip) == 2 for strip in every.strips.values())
    tight = make_album(pictures, names[:1], names, budget=9000)
    used = sum(len(p.source) for strip in tight.strips.values() for p in strip)
    assert used <= 9000
    assert len(tight.strips[names[0]]) == 2
    assert tight.left_out == len(names) - len(tight.strips)
    broken = {"v": (Thumbnail("v", 1, b"no picture"),)}
    assert make_album(broken, [], ["v"]).left_out == 1


def test_hidden_characters_become_visible() -> None:
    assert visible("a\u202eb\u200bc\nd") == "a⟨U+202E⟩b⟨U+200B⟩c⟨U+000A⟩d"
    assert visible("\udc80") == "⟨U+DC80⟩"
    assert visible("नमस्ते می\u200cخواهم 👩\u200d💻") == "नमस्ते می\u200cخواهم 👩\u200d💻"
    assert len(visible("x" * 500)) == 119
    assert markdown("[a](b) <i> `c` *d*\n# e") == (r"\[a\](b) &lt;i&gt; \`c\` \*d\*⟨U+000A⟩\# e")


@pytest.mark.parametrize(
    "text",
    ["- a", "1. a", "2) a", "# a", "=== ", "![a](b)", "<b>", "a@b.org", "http://x.org", "| a |"],
)
def test_no_name_becomes_markdown(text: str) -> None:
    rendered = MarkdownIt("gfm-like", {"linkify": False}).render(f"- {markdown(text)}")
    assert rendered.count("<") == 4, rendered


def test_markdown_sentences_are_whole(report_data: ReportData) -> None:
    text = render_markdown(report_data)
    for said in (s for texts in sentences(ReportView(report_data)).values() for s in texts):
        assert len(said) < 120 or markdown(said, len(said)) in text
    assert "population_draws" in markdown("population_draws = 128 _or_ more")
    assert r"\_or\_" in markdown("population_draws = 128 _or_ more")


def test_numbers_as_people_read_them() -> None:
    shown = [number(v) for v in (0.0, 0.63251, -1234.5, 12.345, math.nan, math.inf)]
    assert shown == ["0", "0.633", "−1234", "12.3", "–", "∞"]
    assert [points(v) for v in (0.104, -0.2, 0.004, math.nan)] == ["+10", "−20", "0", "–"]
    assert markdown("0.62 of 1.5") == "0.62 of 1.5"
    assert [fixed(v) for v in (0.005, -1.0, math.nan)] == ["0.01", "−1.00", "–"]
    assert [share(v) for v in (0.305, math.nan)] == ["30 %", "–"]
    assert nice_ticks(0, 0.7, 4) == [0.0, 0.5]
    assert nice_ticks(-20, 30, 6) == [-20, -10, 0, 10, 20, 30]


def test_a_photograph_has_no_course_over_its_frames(report_data: ReportData) -> None:
    def first(part: xr.Dataset) -> xr.Dataset:
        return part.isel(frame=slice(0, 1)) if "frame" in part.dims else part

    cut = {shots: xr.map_over_datasets(first, tree) for shots, tree in report_data.trees.items()}
    page = render_html(replace(report_data, trees=cut))
    assert "Look at these first" in page
    assert "Frame by frame" not in page
    outline_of(page)


def test_bands_have_the_height_of_the_uncertainty() -> None:
    aleatoric, epistemic = np.array([0.0, 0.5, 0.25]), np.array([0.5, 0.25, 0.25])
    low, high, wrong, width = band_paths(aleatoric, epistemic, np.array([True, False, False]), 1.0)
    assert low == "M0 40V40h1v-20h1v10h1V40h-1h-1Z"
    assert high == "M0 40V20h1v-10h1v10h1V30h-1v-10h-1v20Z"
    assert (wrong, width) == ("M1 42h2", 3)


def test_ranks_of_a_chain_elsewhere_leave_the_band() -> None:
    rng = np.random.default_rng(0)
    good, bad = rng.normal(size=(4, 400)), rng.normal(size=(4, 400))
    bad[0] += 5
    panels = rank_panels((Scalar("good", good), Scalar("bad", bad)))
    assert list(panels) == ["good", "bad"]
    assert len(panels["bad"].lines) == 4
    assert panels["good"].outside < 0.05
    assert panels["bad"].outside > 0.5
    assert abs(panels["bad"].departure[1]) > 0.5
    assert "outside the band at 0 %" in str(panel_svg(panels["good"], "Ranks.", ("", ""), 380, 104))
    assert rank_panels((Scalar("one chain", good[:1]),)) == {}


@pytest.mark.parametrize("chains", [2, 4])
def test_the_band_of_ranks_is_neither_all_nor_nothing(chains: int) -> None:
    """That of arviz-stats for two chains holds everything."""
    rng = np.random.default_rng(0)
    alike = [Scalar(f"x{i}", rng.normal(size=(chains, 200))) for i in range(40)]
    left = [panel.outside > 0 for panel in rank_panels(alike).values()]
    assert np.mean(left) <= 0.1
    shifted = rng.normal(size=(chains, 200))
    shifted[0] += 1.0
    (panel,) = rank_panels([Scalar("shifted", shifted)]).values()
    assert panel.outside > 0.2


def test_calibration_is_arvizs_of_the_same_tree(page: str, report_data: ReportData) -> None:
    """The curves in the page are those that a person gets of the run's file of draws."""
    tree, found = report_data.trees[5], ReportView(report_data).model.calibration
    (loo_pit,) = panels_of(arviz_plots.plot_loo_pit(tree, backend="none"))
    (pav,) = panels_of(arviz_plots.plot_ppc_pava(calibration_tree(tree), backend="none"))
    for panel, same in ((found["loo_pit"], loo_pit), (found["pav"], pav)):
        np.testing.assert_array_equal(panel.lines, same.lines)
        np.testing.assert_array_equal(panel.band, same.band)
    x, y = found["pav"].lines[0]
    curve = ReportView(report_data).model.pav
    assert np.abs(np.interp(curve.stated, x, y) - curve.found).mean() < 0.03
    for panel in found.values():
        at, off = panel.departure
        assert f"at {number(at)}, by {number(off)}; outside the band" in page
    assert "LOO-PIT" in page


def test_steps_that_several_checks_ask_for_are_said_once(report_data: ReportData) -> None:
    checks = (
        Check("k-hat", 2.0, "≤ 0.7", False, "", "more steps"),
        Check("guessing", -1.0, "> 0", False, "", "other features", grave=True),
        Check("moments", 3.0, "≤ 1", False, "", "more steps"),
        Check("ELBO trend", 0.0, "≤ 1", True, "", "more steps"),
    )
    fit = Diagnostics("population", "variational", checks, pd.DataFrame())
    assert steps_of(fit) == {"other features": ["guessing"], "more steps": ["k-hat", "moments"]}


def test_of_few_draws_or_videos_there_are_the_pictures_that_there_can_be(
    report_data: ReportData,
) -> None:
    tree = report_data.trees[5].copy(deep=True)
    few = tree.map_over_datasets(lambda ds: ds.isel(draw=slice(0, 8)) if "draw" in ds.dims else ds)
    few = few.map_over_datasets(lambda ds: ds.isel(chain=[0]) if "chain" in ds.dims else ds)
    page = render_html(replace(report_data, trees={5: few}, scores={}))
    assert "Sets of the likeliest objects" in page
    assert "LOO-PIT" not in page
    label = tree["observed_data"]["label"]
    first = np.argwhere(~np.isnan(label.values))[0]
    one = np.full(label.shape, np.nan)
    one[tuple(first)] = label.values[tuple(first)]
    label[:] = one
    outline_of(render_html(replace(report_data, trees={5: tree}, scores={})))


@pytest.mark.parametrize("render", [render_html, render_markdown])
def test_how_often_sentences_come_true_is_shown_beside_what_they_mean(
    report_data: ReportData, render: Callable[[ReportData], str]
) -> None:
    """A sentence that was never said has no share of truth; a run without counts no table."""
    text = html.unescape(re.sub(r"<[^>]+>|\|", " ", render(report_data))).replace(
        "\N{NO-BREAK SPACE}", " "
    )
    assert re.search(r"Probably\s+9\s+91\s*%\s+95\s*%", text)
    assert re.search(r"Not recognised\s+0\s+–\s+25\s*%", text)
    assert "Came true" not in render(replace(report_data, words=()))
