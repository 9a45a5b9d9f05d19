"""Explanations: the right reason and one piece of advice from known numbers, and their words."""

import ast
import gettext
import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from string import Formatter

import numpy as np
import pyro
import pytest
import torch
import xarray as xr
from pyro import poutine

from bayesfs.decisions.rules import Rules, UnitRules
from bayesfs.errors import DataError
from bayesfs.explanation import sentences
from bayesfs.explanation.advice import REMEDY
from bayesfs.explanation.evidence import Evidence, gather, of_video, without_gain
from bayesfs.explanation.explain import EVIDENCE, evident_cost, explain, explain_video
from bayesfs.explanation.explanation import Advice, Explanation
from bayesfs.explanation.framing import Look
from bayesfs.features.quality import COVARIATES
from bayesfs.models.gaussian.families import PowerLaw
from bayesfs.models.gaussian.hierarchy import GaussianHierarchy
from bayesfs.prediction import predict, thinned
from bayesfs.synthetic.tasks import synthetic_episodes
from bayesfs.synthetic.truth import Population
from bayesfs.types import EpisodeBatch, LabelDraws, Posterior, Predictive
from bayesfs.uncertainty.gain_from_own_videos import gain_from_own_videos
from bayesfs.uncertainty.information_gain import expected_gain
from bayesfs.uncertainty.parts import LEVEL_PARTS

THINGS = ("keys", "wallet", "mug")
EPISTEMIC = {"population": 0.02, "task": 0.05, "class": 0.3, "video": 0.05, "frame": 0.1}
NOTHING = ((0.001, 0.002),) * 3
ALEATORIC = {"population": 0.02, "task": 0.03, "class": 0.05, "video": 0.1, "frame": 0.3}


def episode() -> EpisodeBatch:
    """One task, one query video of four frames."""
    shape = (1, 3, 2, 1)
    return EpisodeBatch(
        torch.zeros(*shape, 1),
        torch.ones(shape, dtype=torch.bool),
        torch.zeros(shape[:3], dtype=torch.long),
        torch.zeros(1, 2, 4, 1),
        torch.tensor([[[True] * 4, [False] * 4]]),
        torch.ones(1, 2, dtype=torch.long),
        torch.tensor([[0, -1]]),
        tasks=("ann",),
        classes=(THINGS,),
        videos=(("clip",),),
    )


def evidence(
    prob: tuple[float, ...] = (0.6, 0.35, 0.05),
    levels: Mapping[str, float] = EPISTEMIC,
    *,
    drop: Mapping[str, float] | None = None,
    quality: Mapping[str, float] | None = None,
    absent: float = 0.1,
    frames_absent: tuple[float, ...] = (0.1, 0.1, 0.1, 0.1),
    gain: tuple[tuple[float, float], ...] = ((0.02, 0.05), (0.03, 0.04), (0.5, 0.5)),
    general: tuple[tuple[float, float], ...] | None = None,
) -> Evidence:
    """Numbers by hand for the video of `episode`."""
    tasks = episode()
    measured = torch.zeros(1, 2, 4, len(COVARIATES))
    drops = np.zeros((1, 2, 4, len(EVIDENCE)))
    for name, value in (quality or {}).items():
        measured[..., COVARIATES.index(name)] = value
    for name, value in (drop or {}).items():
        drops[..., list(EVIDENCE).index(name)] = value
    log = torch.tensor(prob).log().expand(1, 2, 3)
    label = LabelDraws(log, log[None], torch.zeros(1, 1, 2))
    frame = LabelDraws(
        *(v.unsqueeze(-2 if i < 2 else -1) for i, v in enumerate(vars(label).values()))
    )
    frames = torch.tensor(frames_absent).expand(1, 2, 4).numpy()
    causes = xr.Dataset(
        {
            "frame_cause": (("task", "video", "frame", "cause"), drops),
            "frame_absent": (("task", "video", "frame"), frames),
            "video_absent": (("task", "video"), np.full((1, 2), absent)),
        },
        coords={"covariate": list(COVARIATES), "cause": list(EVIDENCE)},
    )
    by_level = xr.Dataset(
        {
            f"video_{part}": (("task", "video"), np.full((1, 2), levels[part]))
            for part in LEVEL_PARTS
        }
    )
    return Evidence(
        replace(tasks, query_quality=measured),
        Predictive(frame, label),
        xr.Dataset(),
        by_level,
        causes,
        torch.tensor(gain if general is None else general)[None],
        torch.tensor(gain)[None, None].expand(1, 2, 3, 2),
    )


def explained(rules: Rules | None = None, **options: object) -> Explanation:
    return explain_video(evidence(**options), 0, 0, rules=rules)  # type: ignore[arg-type]


def test_doubt_from_teaching_asks_for_the_video_that_is_worth_most() -> None:
    found = explained()
    assert found.kind == "epistemic"
    assert found.level == "class"
    assert found.advice.action == "record it"
    assert found.advice.nats == pytest.approx(0.4 * 0.05 + 0.65 * 0.04)  # no mug is shown
    assert found.sentence("en") == (
        "May be wrong: keys or wallet. "
        "One more video of what it shows, among other things, would help."
    )
    assert found.parts["total"] == pytest.approx(0.52)
    assert found.parts["epistemic"] == pytest.approx(0.37)
    assert found.confusable == "wallet"


def test_one_more_video_of_what_it_shows_is_worth_what_its_own_probability_gains() -> None:
    """Two equally likely laws after a video of each object, by definition and by the share."""
    prob, step = np.array([0.5, 0.28, 0.22]), 0.05
    gain, worth = [], 0.0
    for k, p in enumerate(prob):
        others = np.delete(prob, k) / (1.0 - p)
        laws = [np.insert(others * (1.0 - new), k, new) for new in (p - step, p + step)]
        gain.append(np.mean([(law * np.log(law / prob)).sum() for law in laws]))
        worth += np.mean([law[k] * np.log(law[k] / p) for law in laws])
    found = explained(prob=tuple(prob), gain=tuple((g, 0.0) for g in gain))
    assert (found.advice.action, found.advice.reason) == ("record it", "clean")
    assert found.advice.nats == pytest.approx(worth, rel=0.05)


def test_when_no_video_is_worth_it_that_is_said() -> None:
    found = explained(gain=NOTHING)
    assert found.advice.action == "enough"
    assert found.sentence("en") == "May be wrong: keys or wallet. More videos would hardly help."


@pytest.mark.parametrize(("most", "action"), [(0.04, "enough"), (0.06, "record it")])
def test_it_is_enough_where_a_round_of_every_object_hardly_helps(most: float, action: str) -> None:
    """No single video is worth it, but all objects once more may be."""
    numbers = replace(evidence(gain=NOTHING), round_most=torch.tensor([most]))
    found = explain_video(numbers, 0, 0)
    assert found.round_most == pytest.approx(most)
    assert found.advice.action == action
    sure = replace(evidence(gain=NOTHING, prob=(0.97, 0.02, 0.01)), round_most=torch.tensor([most]))
    assert (explain_video(sure, 0, 0).advice.action == "enough") == (action == "enough")


@pytest.mark.parametrize(
    ("quality", "cause", "said"),
    [
        ({"focus": -2.0}, "blurred", "The video is blurred; hold steadier."),
        ({"brightness": -2.0}, "dark", "It is dark; use more light."),
        ({"brightness": 2.0}, "bright", "It is too bright; use less light."),
        ({"contrast": -2.0}, "flat", "There is little contrast; use more light."),
        ({"brightness": 2.0, "contrast": -2.0}, "bright", "It is too bright; use less light."),
    ],
)
def test_doubt_from_the_video_names_the_cause_that_explains_what_is_measured(
    quality: dict[str, float], cause: str, said: str
) -> None:
    found = explained(levels=ALEATORIC, drop=dict.fromkeys(EVIDENCE, 0.2), quality=quality)
    assert found.kind == "aleatoric"
    assert found.level == "frame"
    assert dict(found.causes) == {cause: pytest.approx(0.2)}
    assert found.advice.nats == pytest.approx(0.2)
    assert found.sentence("en") == f"May be wrong: keys or wallet. {said}"


@pytest.mark.parametrize(
    "quality",
    [{"focus": -0.9}, {"dark_clipped": 3.0}, {"bright_clipped": 3.0}, {"focus": 3.0}],
)
def test_a_cause_that_the_frames_do_not_support_is_not_named(quality: dict[str, float]) -> None:
    """A rather smooth thing, a black one, one on a white table, one before a full shelf."""
    found = explained(
        levels=ALEATORIC, drop=dict.fromkeys(EVIDENCE, 0.3), quality=quality, gain=NOTHING
    )
    assert found.advice.action == "other side"
    assert found.causes == {}


def test_of_two_evident_causes_the_costlier_one_is_to_be_mended_first() -> None:
    """And what costs nothing, or less than nothing, is none."""
    measures, seen = ["focus", "brightness", "contrast"], np.array([-3.2, -2.0, -2.0])
    cost = {"dark": 0.1, "bright": 9.0, "flat": -0.1, "blurred": 0.2}
    assert list(evident_cost(measures, seen, cost)) == ["blurred", "dark"]
    assert evident_cost(measures, 0.3 * seen, cost) == {}
    soft = np.array([-2.0, -2.0, -2.0])
    assert list(evident_cost(measures, soft, cost)) == ["dark"], "little light, little detail"
    assert evident_cost(measures, seen, {}) == {}


def test_the_remedy_that_takes_more_off_this_video_is_the_advice() -> None:
    """Whichever kind is larger: teaching may help a video with much doubt of its own."""
    blur = {"quality": {"focus": -2.0}, "levels": ALEATORIC}
    assert explained(drop={"blurred": 0.06}, **blur).advice.action == "steadier"
    assert explained(drop={"blurred": 0.04}, **blur).advice.action == "record it"
    assert explained(drop={"blurred": 0.004}, **blur).advice.action == "record it"
    assert explained(drop={"blurred": 0.004}, gain=NOTHING, **blur).advice.action == "other side"


def test_without_a_measured_cause_another_side_may_tell_them_apart() -> None:
    found = explained(levels=ALEATORIC, gain=NOTHING)
    assert found.causes == {}
    assert found.sentence("en").endswith("Keys and wallet look alike here; show another side.")


def test_an_object_out_of_view_is_asked_for_before_anything_else() -> None:
    found = explained(
        levels=ALEATORIC,
        drop={"blurred": 0.2},
        quality={"focus": -2},
        frames_absent=(0.9, 0.9, 0.9, 0.1),
    )
    assert found.advice.action == "show"
    gone = explained(absent=0.9)
    assert gone.answer == ()
    assert gone.sentence("en") == (
        "This may be none of your objects. "
        "Why it looks unlike what was taught is not known; if it is yours, teach it so."
    )


def test_a_video_of_which_no_frame_shows_what_was_taught_is_not_said_to_be_out_of_view() -> None:
    found = explained(levels=ALEATORIC, frames_absent=(0.9,) * 4)
    advice = found.advice
    assert (advice.action, advice.reason, advice.thing) == ("teach", "", "")
    assert math.isnan(advice.nats)


def test_a_sure_answer_needs_no_advice() -> None:
    found = explained(prob=(0.97, 0.02, 0.01))
    assert found.sentence("en") == "Probably keys."
    assert found.advice.action == "nothing"
    enough = explained(prob=(0.97, 0.02, 0.01), general=NOTHING)
    assert enough.advice.action == "enough"
    assert enough.sentence("en") == "Probably keys."


def looked(numbers: Evidence, **windows: tuple[tuple[float, float, float], float]) -> Explanation:
    """The same with looks at windows: probabilities and p-value."""
    looks = {name: Look(dict(zip(THINGS, p, strict=True)), t) for name, (p, t) in windows.items()}
    return explain_video(replace(numbers, looks={"clip": looks}), 0, 0)


KEYS, WALLET, BLANK = ((0.97, 0.02, 0.01), 0.6), ((0.02, 0.97, 0.01), 0.4), ((0.4, 0.3, 0.3), 0.01)


@pytest.mark.parametrize("prob", [(0.6, 0.35, 0.05), (0.97, 0.02, 0.01)])
def test_two_things_in_view_are_both_named_whether_one_is_sure_or_not(
    prob: tuple[float, float, float],
) -> None:
    found = looked(evidence(prob=prob), left=KEYS, right=WALLET)
    assert found.advice.action == "one at a time"
    assert found.sentence("en").endswith("Keys and wallet are both in view; show one at a time.")


def test_a_window_says_where_to_turn_if_that_takes_more_off_than_a_recording() -> None:
    found = looked(evidence(), left=BLANK, right=KEYS)
    assert (found.advice.action, found.advice.reason, found.advice.thing) == (
        "turn",
        "right",
        "keys",
    )
    assert found.framing is not None
    assert found.advice.nats == pytest.approx(found.framing.nats)
    assert found.sentence("en") == (
        "May be wrong: keys or wallet. Keys is on the right; turn the camera there."
    )
    worth = looked(evidence(gain=((0.9, 0.9),) * 3), left=BLANK, right=KEYS)
    assert worth.advice.action == "record it"


def test_nothing_is_said_of_a_place_where_nothing_is_unsure_or_the_window_shows_another() -> None:
    assert looked(evidence(prob=(0.97, 0.02, 0.01)), right=KEYS, left=BLANK).advice.action in (
        "nothing",
        "enough",
    )
    mug = ((0.01, 0.02, 0.97), 0.6)
    assert looked(evidence(), right=mug, left=BLANK).advice.action == "record it"


def test_a_measured_defect_is_named_where_the_model_does_not_know_its_cost() -> None:
    """It is mended before a recording or a turn; a sure answer needs nothing."""
    numbers = replace(evidence(), causes=None, defects={"clip": "dark"})
    found = looked(numbers, left=BLANK, right=KEYS)
    assert found.sentence("en") == "May be wrong: keys or wallet. It is dark; use more light."
    assert np.isnan(found.advice.nats)
    sure = replace(evidence(prob=(0.97, 0.02, 0.01)), causes=None, defects={"clip": "dark"})
    assert "dark" not in looked(sure).sentence("en")
    unlike = replace(evidence(absent=0.9), defects={"clip": "blurred"})
    assert looked(unlike).sentence("en") == (
        "This may be none of your objects. The video is blurred; hold steadier."
    )
    other = replace(numbers, defects={"another": "dark"})
    assert looked(other).advice.action == "record it"


def test_what_is_unlike_anything_taught_may_lie_where_a_window_shows_it() -> None:
    assert looked(evidence(absent=0.9), top=WALLET, bottom=BLANK).sentence("en") == (
        "This may be none of your objects. Wallet is near the top; turn the camera there."
    )


def test_learnt_rules_decide_what_is_named_and_when_nothing_is() -> None:
    video = UnitRules(least_in_set=0.04, least_alone=0.95, most_absent=0.05)
    rules = Rules(video, video, 0.9, 0.86, 0.1, 0.05, 6, 5)
    assert explained(rules).answer == ()
    rules = replace(rules, video=replace(video, most_absent=0.2))
    assert explained(rules).answer == THINGS
    assert explained(rules, prob=(0.97, 0.02, 0.01)).answer == ("keys",)
    bold = replace(rules, video=replace(rules.video, least_alone=0.5))
    assert explained(bold).answer == THINGS, "the set holds more than one"
    unsure = replace(rules, video=replace(rules.video, least_alone=0.99))
    assert explained(unsure, prob=(0.97, 0.02, 0.01)).answer == ("keys", "wallet")


def test_what_a_model_cannot_say_is_left_out() -> None:
    whole = evidence()
    log = whole.predictive.video
    kinds = xr.Dataset(
        {
            f"video_{name}": (("task", "video"), np.full((1, 2), value))
            for name, value in (("total", 0.8), ("aleatoric", 0.2), ("epistemic", 0.6))
        }
    )
    bare = Evidence(whole.episodes, Predictive(whole.predictive.frame, log), kinds)
    found = explain_video(bare, 0, 0)
    assert found.level == ""
    assert found.gain == found.causes == {}
    assert np.isnan(found.absent)
    assert found.sentence("en") == (
        "May be wrong: keys or wallet. One more video of what it shows would help."
    )
    with pytest.raises(DataError, match="no query video 1"):
        explain_video(bare, 0, 1)


@pytest.fixture(scope="module")
def study() -> tuple[GaussianHierarchy, Posterior, EpisodeBatch, Predictive]:
    """A hierarchy with one measured quality, and two simulated users."""
    law = Population.isotropic(3, quality_slope=(-0.5,))
    tasks, _ = synthetic_episodes(law, users=2, way=3, shots=2, frames=2, query_videos=1, seed=1)
    tasks = tasks.to(torch.float64)
    model = GaussianHierarchy(PowerLaw(spectrum=(0.9, 0.5, 0.3)), covariates=("focus",))
    with torch.random.fork_rng(), poutine.block():
        pyro.set_rng_seed(0)
        sites = model.sample_population(torch.zeros(3, dtype=torch.float64))
    sites = {**sites, "quality_slope": torch.tensor([[-0.5]] * 2, dtype=torch.float64)}
    given = Posterior("exact", {s: v[None] for s, v in sites.items()}, dict(model.population_dims))
    posterior = model.condition(tasks, thinned(given, 1), draws=32, seed=0)
    return model, given, tasks, predict(model, posterior, tasks, given=given)


def test_every_query_video_of_the_hierarchy_is_explained(
    study: tuple[GaussianHierarchy, Posterior, EpisodeBatch, Predictive],
) -> None:
    model, given, tasks, predictive = study
    found = explain(model, given, tasks, predictive, seed=0)
    assert [len(own) for own in found] == tasks.video_mask.sum(-1).tolist()
    for own in found:
        for one in own:
            assert sum(one.prob.values()) == pytest.approx(1.0)
            assert one.parts["total"] == pytest.approx(sum(one.parts[part] for part in LEVEL_PARTS))
            assert one.level in LEVEL_PARTS
            assert set(one.gain) == {(t, k) for t in one.prob for k in ("clean", "clutter")}
            assert 0 <= one.absent <= 1
            assert one.sentence("en")


def test_what_is_called_probable_is_likelier_than_not() -> None:
    """Train users for whom a set of one would do, at whatever probability."""
    easy = UnitRules(least_in_set=0.4, least_alone=0.0, most_absent=1.0)
    rules = Rules(easy, easy, 0.9, 0.86, 0.1, 0.05, 6, 5)
    assert explained(rules, prob=(0.55, 0.3, 0.15)).answer == ("keys",)
    assert explained(rules, prob=(0.46, 0.3, 0.24)).answer == ("keys", "wallet")


def test_one_video_alone_is_explained_as_among_all(
    study: tuple[GaussianHierarchy, Posterior, EpisodeBatch, Predictive],
) -> None:
    model, given, tasks, predictive = study
    whole = explain(model, given, tasks, predictive, seed=0)[1][1]
    one = of_video(tasks, 1, 1)
    posterior = model.condition(one, thinned(given, 1), draws=32, seed=0)
    answer = predict(model, posterior, one, given=given)
    alone = explain_video(without_gain(model, given, one, answer, seed=0), 0, 0)
    assert alone.prob == pytest.approx(dict(whole.prob))
    assert alone.parts["total"] == pytest.approx(whole.parts["total"])
    assert alone.absent == pytest.approx(whole.absent)
    assert alone.gain == alone.own_gain == {}


def test_what_teaching_is_worth_is_simulated_for_all_that_is_asked_and_held_against_own_videos(
    study: tuple[GaussianHierarchy, Posterior, EpisodeBatch, Predictive],
) -> None:
    model, given, tasks, predictive = study
    known = gather(model, given, tasks, predictive, seed=0)
    assert known.gain is not None
    assert known.own_gain is not None
    simulated = known.own_gain.nanmean(1)
    for k, condition in enumerate(("clean", "clutter")):
        same = expected_gain(model, given, tasks, condition=condition, seed=0)
        torch.testing.assert_close(simulated[..., k], same)
    same = gain_from_own_videos(model, given, tasks, simulated)
    torch.testing.assert_close(known.gain, same)


# Words


def catalogue(path: Path) -> dict[str, str]:
    """msgid -> msgstr of a .po or .pot file without plurals."""
    text = path.read_text(encoding="utf-8")
    pairs = re.findall(r'^msgid ((?:".*"\n)+)msgstr ((?:".*"\n?)+)', text, re.MULTILINE)
    joined = [
        ["".join(ast.literal_eval(line) for line in part.splitlines()) for part in pair]
        for pair in pairs
    ]
    return {key: value for key, value in joined if key}


def texts_in_source() -> set[str]:
    """Every text that `wording` looks up."""
    calls = (
        n for n in ast.walk(ast.parse(inspect.getsource(sentences))) if isinstance(n, ast.Call)
    )
    return {
        str(ast.literal_eval(call.args[0]))
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "_"
    }


TRANSLATIONS = sorted(sentences.LOCALE.glob("*/LC_MESSAGES/bayesfs.po"))


def test_the_template_holds_just_the_texts_of_the_source() -> None:
    assert set(catalogue(sentences.LOCALE / "bayesfs.pot")) == texts_in_source()


@pytest.mark.parametrize("path", TRANSLATIONS, ids=lambda p: p.parts[-3])
def test_a_translation_is_whole_compiled_and_has_the_same_places(path: Path) -> None:
    texts = catalogue(path)
    assert set(texts) == texts_in_source()
    with path.with_suffix(".mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)

    def places(text: str) -> set[str]:
        return {name for _, name, _, _ in Formatter().parse(text) if name}

    for source, said in texts.items():
        assert said
        assert compiled.gettext(source) == said, (
            "recompile: pybabel compile -d bayesfs/explanation/locale"
        )
        assert places(source) == places(said)


def test_texts_are_short_and_a_screen_reader_can_say_them() -> None:
    everything = list(texts_in_source())
    for path in TRANSLATIONS:
        everything += catalogue(path).values()
    for text in everything:
        bare = re.sub(r"\{\w+\}", "name", text)
        assert re.fullmatch(r"[\w ,.;:]+", bare), text
        assert not re.search(r"\d", bare), text
        assert len(bare) <= 90, text


def test_a_translation_is_used_and_an_unknown_language_is_english(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = explained(levels=ALEATORIC, drop={"blurred": 0.2}, quality={"focus": -2})
    german = "Vielleicht falsch: keys oder wallet. Das Video ist unscharf; ruhiger halten."
    assert found.sentence("de") == german
    assert found.sentence("tlh").startswith("May be wrong: keys or wallet.")
    monkeypatch.setenv("LANGUAGE", "de_AT:en")
    assert found.sentence() == german


def test_a_person_with_one_object_is_not_told_of_others() -> None:
    found = replace(
        explained(levels=ALEATORIC),
        answer=(),
        prob={"mug": 1.0},
        advice=Advice("teach"),
    )
    assert found.sentence("en").startswith("This may not be mug. Why it looks unlike")
    assert found.sentence("de").startswith("Das ist vielleicht nicht mug.")
    two = replace(found, prob={"mug": 0.5, "keys": 0.5})
    assert two.sentence("en").startswith("This may be none of your objects.")


def test_every_action_and_cause_has_words() -> None:
    names = {"name": "keys", "first": "keys", "second": "mug"}
    for cause, action in REMEDY.items():
        assert sentences.advice_text(action, reason=cause, names=names, language="en")
        assert cause in EVIDENCE
    for cause in (*EVIDENCE, "absent"):
        assert sentences.part_text(cause, "en") != cause
    assert sentences.advice_text("nothing", names=names, language="en") == ""
    assert (
        sentences.answer_text(["a", "b", "c", "d"], language="en") == "Not recognised; perhaps a."
    )
