"""What is said to a person about one video, in words without jargon, symbols or percentages.

Start with `bayesfs.explain`, whose sentences these are: an answer, its reason and one piece of
advice. People who cannot see the picture find only half of a recogniser's mistakes (Hong and
Kacorri 2024) and grow rightly careful when it says that it may be wrong (MacLeod et al. 2017), so
a sentence names the alternatives and what would help, not a number.

Every text is in one catalogue (gettext, `bayesfs/explanation/locale`) and is looked up when it is
said, in the language asked for or that of the environment (LANGUAGE, LC_ALL, LC_MESSAGES, LANG);
English where there is no translation. To translate: copy `bayesfs.pot` to
`LANGUAGE/LC_MESSAGES/bayesfs.po`, fill it in, and compile it (`pybabel compile -d
bayesfs/explanation/locale -D bayesfs`). After changing a text here: `pybabel extract -o
bayesfs/explanation/locale/bayesfs.pot bayesfs/explanation/sentences.py`, then `pybabel update`
likewise.
"""

from __future__ import annotations

import gettext
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from bayesfs.decisions.words import MOST_NAMES
from bayesfs.types.level_names import VIDEOS, LevelNames

SURE = 0.9
"""Probability that the named objects together must have."""

LOCALE = Path(__file__).parent / "locale"


def translation(language: str | None = None) -> gettext.NullTranslations:
    """The catalogue of a language, such as "de"; None takes the environment's."""
    languages = None if language is None else [language]
    return gettext.translation("bayesfs", LOCALE, languages=languages, fallback=True)


def likeliest(prob: ArrayLike, level: float = SURE) -> list[int]:
    """The likeliest classes, in order, until they have so much of the probability together."""
    p = np.asarray(prob, dtype=float)
    order = np.argsort(-p, kind="stable")
    needed = 1 + int(np.searchsorted(np.cumsum(p[order]), level * p.sum() - 1e-12))
    return [int(i) for i in order[:needed]]


def alternatives(names: Sequence[str], language: str | None = None) -> str:
    """Such as "keys, mug or wallet"."""
    _ = translation(language).gettext
    if len(names) == 1:
        return names[0]
    return _("{first} or {last}").format(first=", ".join(names[:-1]), last=names[-1])


def answer_text(
    names: Sequence[str],
    *,
    none: bool = False,
    only: str = "",
    language: str | None = None,
    levels: LevelNames = VIDEOS,
) -> str:
    """What the video may show.

    Args:
        names: the objects of the answer, likeliest first.
        none: whether none of the person's objects is the answer.
        only: the person's object, where there is no other.
        language: see `translation`.
        levels: what the data call an object and a video, in English.

    Example:
        >>> answer_text(["keys", "wallet"], language="en")
        'May be wrong: keys or wallet.'
    """
    _ = translation(language).gettext
    if none and only:
        return _("This may not be {name}.").format(name=only)
    if none:
        return levels.in_words(_("This may be none of your objects."))
    if len(names) == 1:
        return _("Probably {name}.").format(name=names[0])
    if len(names) > MOST_NAMES:
        return _("Not recognised; perhaps {name}.").format(name=names[0])
    return _("May be wrong: {names}.").format(names=alternatives(names, language))


def advice_text(
    action: str,
    *,
    reason: str = "",
    names: Mapping[str, str],
    language: str | None = None,
    levels: LevelNames = VIDEOS,
) -> str:
    """What to do about it, with the reason; nothing for an action that needs no words.

    It begins with a capital letter, also where that is the first of an object's name.

    Args:
        action: see `bayesfs.explanation.explanation.Advice`.
        reason: cause or condition that makes a difference to the words.
        names: what {name}, {first} and {second} stand for.
        language: see `translation`.
        levels: what the data call an object and a video, in English. Where clusters are no
            recordings, there is one condition only, and no cluster of another kind to advise.
    """
    _ = translation(language).gettext
    reason = reason if levels.recorded else ""
    texts = {
        "steadier": _("The video is blurred; hold steadier."),
        "more light dark": _("It is dark; use more light."),
        "more light flat": _("There is little contrast; use more light."),
        "less light": _("It is too bright; use less light."),
        "show": _("A part of the video shows nothing taught; keep the object in the picture."),
        "other side": _("{first} and {second} look alike here; show another side."),
        "other side alone": _("The reason is not known; show another side."),
        "turn left": _("{name} is on the left; turn the camera there."),
        "turn right": _("{name} is on the right; turn the camera there."),
        "turn top": _("{name} is near the top; turn the camera there."),
        "turn bottom": _("{name} is near the bottom; turn the camera there."),
        "one at a time": _("{first} and {second} are both in view; show one at a time."),
        "teach": _(
            "Why it looks unlike what was taught is not known; if it is yours, teach it so."
        ),
        "other side several": _("These look alike here; show another side."),
        "record it": _("One more video of what it shows would help."),
        "record it clean": _("One more video of what it shows, by itself, would help."),
        "record it clutter": _("One more video of what it shows, among other things, would help."),
        "record": _("One more video of {name} would help."),
        "record clean": _("One more video of {name} by itself would help."),
        "record clutter": _("One more video of {name} among other things would help."),
        "enough": _("More videos would hardly help."),
    }
    if not levels.recorded and action not in ("record", "record it", "enough"):
        return ""  # nothing to hold steadier, to show or to turn
    said = texts.get(f"{action} {reason}".strip(), texts.get(action, ""))
    said = levels.in_words(said).format(**names)
    return said[:1].upper() + said[1:]


def part_text(part: str, language: str | None = None, levels: LevelNames = VIDEOS) -> str:
    """What a kind, level or cause of uncertainty means to a person; the name itself if unknown.

    Args:
        part: its name.
        language: see `translation`.
        levels: what the data call an object and a video, in English.
    """
    _ = translation(language).gettext
    texts = {
        "aleatoric": _("the video itself"),
        "epistemic": _("what was taught"),
        "population": _("too few people were learnt from"),
        "shared": _("too few people have objects of that name"),
        "task": _("little is known about your objects in general"),
        "class": _("too few videos of single objects"),
        "video": _("how this video was taken"),
        "frame": _("the single pictures of the video"),
        "blurred": _("blur"),
        "dark": _("too little light"),
        "bright": _("too much light"),
        "flat": _("little contrast"),
        "absent": _("it looks unlike what was taught"),
    }
    return levels.in_words(texts.get(part, part))
