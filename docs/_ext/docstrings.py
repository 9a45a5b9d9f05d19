"""Docstrings as Sphinx wants them: citations become links, formulas are typeset.

Docstrings here are plain text that reads well in an editor. A source is cited as "Guo et al. 2017"
or "Liu and Wang (2016)", which is `guo2017` and `liu2016` of refs.bib. A formula stands in an
indented block, in ASCII: `p(y | x, D) = sum_s w_s p(y | x, theta_s)`.
"""

import re
import unicodedata
from collections.abc import Iterator

NAME = r"[A-ZÀ-Þ][\w\-’']+"
SURNAME = rf"(?:Bickford\s+)?{NAME}"
CITATION = re.compile(
    rf"\b({SURNAME})(?:,\s+{NAME})*(?:,?\s+and\s+{NAME})?(?:\s+et\s+al\.)?,?\s+\(?((?:19|20)\d\d)\b\)?"
)
MONTHS = "January February March April May June July August September October November December"

GREEK = """
alpha beta gamma delta epsilon zeta eta theta kappa lambda mu nu xi pi rho sigma tau phi chi
psi omega
Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega
""".split()  # noqa: SIM905
OPERATORS = {"sum": r"\sum", "prod": r"\prod", "log": r"\log", "exp": r"\exp", "max": r"\max"}
OPERATORS |= {"min": r"\min", "argmax": r"\arg\max", "det": r"\det", "grad": r"\nabla"}
SIGNS = {"~": r"\sim", "<=": r"\le", ">=": r"\ge", "!=": r"\ne", "||": r"\parallel", "|": r"\mid"}
SIGNS |= {"->": r"\to", "...": r"\ldots", "*": r"\cdot", "%": r"\%"}
TOKEN = re.compile(
    r"(?P<phrase>proportional to)|(?P<gap> {2,})|(?P<number>\d+(?:\.\d+)?(?:e-?\d+)?)"
    r"|(?P<word>[A-Za-z]+)(?:_(?:\{(?P<braced>[^}]*)\}|(?P<sub>\w+)))?"
    r"|(?P<sign>\|\||->|<=|>=|!=|\.\.\.|[-+=~|*/^(),;:<>\[\]{}'.%])|(?P<space> )"
)


def citations(text: str) -> Iterator[tuple[re.Match[str], str]]:
    """Every author and year in a text, with the start of its key in refs.bib.

    Example:
        >>> [key for _, key in citations("Bröcker and Smith 2007 (bands); Kish (1965)")]
        ['brocker2007', 'kish1965']
    """
    for match in CITATION.finditer(text):
        if match[1] not in MONTHS.split() and not match[1].isupper():  # JPEG 2000 is no author
            plain = unicodedata.normalize("NFKD", match[1]).encode("ascii", "ignore").decode()
            plain = re.sub(r"[^A-Za-z]", "", re.sub(r"['’]s$", "", plain))
            yield match, plain.lower() + match[2]


def linked(text: str, keys: list[str]) -> str:
    """The text with citations as links to the bibliography, where refs.bib has them."""
    parts, end = [], 0
    for match, key in citations(text):
        known = next((k for k in keys if k.startswith(key)), None)
        if known is not None:
            shown = " ".join(match[0].split()) + (")" if unclosed(match[0]) else "")
            parts += [text[end : match.start()], f":ref:`{shown} <ref-{known}>`"]
            end = match.end()
    return "".join([*parts, text[end:]])


def unclosed(text: str) -> bool:
    """Whether a bracket is opened and never closed."""
    return text.count("(") > text.count(")")


def to_tex(line: str) -> str | None:
    r"""TeX of one line of a formula, or None if it is no formula.

    Example:
        >>> to_tex("p(y | x, D) = sum_s w_s p(y | x, theta_s)")
        'p(y\\mid x, D)= \\sum_{s}w_{s}p(y\\mid x, \\theta_{s})'
        >>> to_tex("this is a sentence about models") is None
        True
    """
    tex, end, prose = [], 0, 0
    for match in TOKEN.finditer(line.strip()):
        if match.start() != end:
            return None
        end = match.end()
        if match["gap"]:
            rest = line.strip()[end:]
            if re.fullmatch(r"[A-Za-z][A-Za-z ,'\-]+[A-Za-z]", rest) and " " in rest:
                return "".join(tex) + rf"\qquad \text{{{rest}}}"
        word = match["word"]
        prose = prose + 1 if word and is_prose(word) and not match["sub"] else (
            prose if match["space"] else 0
        )  # fmt: skip
        if prose > 1:
            return None
        tex.append(token_tex(match))
    return "".join(tex) if end == len(line.strip()) and tex else None


def is_prose(word: str) -> bool:
    """Whether a word is English rather than a symbol."""
    return len(word) > 3 and word not in OPERATORS and word not in GREEK


def token_tex(match: re.Match[str]) -> str:
    """TeX of one token."""
    if match["phrase"]:
        return r"\propto "
    if match["gap"]:
        return r"\qquad "
    if match["space"]:
        return ""
    if match["number"]:
        return match[0]
    if match["sign"]:
        sign = SIGNS.get(match[0], match[0].replace("{", r"\{").replace("}", r"\}"))
        return sign + (" " if sign[0] == "\\" or sign in ",;=+-" else "")
    sub = match["braced"] or match["sub"]
    return symbol(match["word"]) + (
        f"_{{{subscript(sub)}}}" if sub else " " * (len(match["word"]) > 1)
    )


def symbol(word: str) -> str:
    """TeX of a name: a Greek letter, an operator, a letter, or an upright word."""
    if word in GREEK:
        return f"\\{word}"
    if word in OPERATORS:
        return OPERATORS[word]
    return word if len(word) == 1 else rf"\mathrm{{{word}}}"


def subscript(text: str) -> str:
    """TeX of an index: letters run together are indices, longer words stand upright."""
    if text in GREEK:
        return f"\\{text}"
    if re.fullmatch(r"[a-z]{5,}", text):
        return rf"\mathrm{{{text}}}"
    return text.replace("_", r"\_")


def escaped(line: str) -> str:
    r"""A line of prose with what reStructuredText would take for markup escaped.

    Example:
        >>> escaped("|x|_k * 2 of draws_, site -> (draw, *dims)")
        '\\|x\\|_k \\* 2 of draws\\_, site -> (draw, \\*dims)'
    """
    if line.lstrip().startswith((">>>", "...", ".. ")):
        return line
    parts = re.split(r"(`[^`]*`)", line)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"([|*])|(?<=\w)_(?=\W|$)", lambda m: "\\" + m[0], parts[i])
    return "".join(parts)


def blocks(lines: list[str]) -> list[str]:
    """A docstring's lines with its indented blocks made formulas, or literal where they are not.

    A block follows a blank line, is indented deeper than the paragraph before it, and does not
    start with a doctest, a list or a directive.
    """
    out: list[str] = []
    i, base = 0, 0
    while i < len(lines):
        line = lines[i]
        indent = len(line) - len(line.lstrip())
        starts = line.strip() and indent >= base + 4 and (not out or not out[-1].strip())
        if not starts or re.match(r"\s*(>>>|\.\.|:|-|\*|\d+\.)", line):
            if line.strip():
                base = indent
            out.append(escaped(line))
            i += 1
            continue
        end = next(
            (j for j in range(i, len(lines)) if lines[j].strip()
             and len(lines[j]) - len(lines[j].lstrip()) < indent), len(lines)
        )  # fmt: skip
        out += block(lines[i:end], base)
        i = end
    return out


def block(lines: list[str], base: int) -> list[str]:
    """One indented block as a math directive, or as a literal block."""
    text = [line for line in lines if line.strip()]
    rows = joined(text)
    tex = [to_tex(row) for row in rows]
    pad = " " * base
    if all(t is not None for t in tex):
        body = " \\\\\n".join(str(t) for t in tex).split("\n")
        if len(tex) > 1:
            body = [r"\begin{gathered}", *body, r"\end{gathered}"]
        return [f"{pad}.. math::", "", *[f"{pad}   {row}" for row in body], ""]
    return [f"{pad}.. code-block:: text", "", *[f"   {row}" for row in lines], ""]


def joined(lines: list[str]) -> list[str]:
    """Lines of a block, those that continue a formula (indented deeper) joined to it."""
    least = min(len(line) - len(line.lstrip()) for line in lines)
    rows: list[str] = []
    for line in lines:
        if rows and len(line) - len(line.lstrip()) > least:
            rows[-1] += " " + line.strip()
        else:
            rows.append(line.strip())
    return rows
