"""The report in a real browser: axe-core finds nothing, in both schemes and at both widths.

Needs Chromium (on the path, or at BAYESFS_CHROMIUM) and axe-core (its `axe.min.js` at BAYESFS_AXE,
or `npm install axe-core` in the checkout). Skipped with a message where one of them is missing.
"""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bayesfs.report.view import ReportData
from bayesfs.report.write import render_html

NAMES = ("chromium", "chromium-browser", "google-chrome")
FOUND = next((path for name in NAMES if (path := shutil.which(name))), None)
CHROMIUM = os.environ.get("BAYESFS_CHROMIUM") or FOUND
BESIDE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
AXE = Path(os.environ.get("BAYESFS_AXE", BESIDE))
COMMAND = (str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom")

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium; apt-get install chromium"),
    pytest.mark.skipif(
        not AXE.is_file(), reason=f"no axe-core at {AXE}; npm install axe-core, or set BAYESFS_AXE"
    ),
    pytest.mark.slow,
]

RUN_AXE = """
document.querySelectorAll("details").forEach((d) => { d.open = true; });
const root = document.documentElement;
const tell = (found) => parent.postMessage(JSON.stringify(found), "*");
const seen = { width: innerWidth, overflow: root.scrollWidth - root.clientWidth };
const video = document.querySelector("details.v > summary");
video.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
seen.preview = document.querySelector(".preview").textContent;
document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
seen.dismissed = document.querySelector(".preview").textContent;
const button = document.querySelector("details.hear button");
for (const key of ["ArrowRight", "ArrowRight", "ArrowLeft"]) {
  button.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
}
seen.heard = button.parentElement.querySelector("output").textContent;
seen.first = [...button.parentElement.querySelector("tbody tr").cells].map((c) => c.textContent);
seen.buttons = document.querySelectorAll("details.hear button").length;
seen.height = button.getBoundingClientRect().height;
seen.motion = getComputedStyle(root).scrollBehavior;
seen.forced = matchMedia("(forced-colors: active)").matches;
const drawn = (css) => getComputedStyle(document.querySelector(css));
seen.colours = [".axis", ".line", ".interval", ".expected"].map((css) => drawn(css).stroke);
seen.colours.push(drawn(".dot").fill, drawn(".count").fill, drawn(".epi").fill);
seen.page = getComputedStyle(document.body).backgroundColor;
const rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
axe.run({ runOnly: rules })
  .then((r) => tell({
    ...seen,
    checked: r.passes.length,
    violations: r.violations.map((v) => [v.id, v.help, v.nodes.slice(0, 3).map((n) => n.html)]),
  }))
  .catch((e) => tell({ error: String(e) }));
"""

FRAME = """<!DOCTYPE html><title>frame</title><pre id="told"></pre><script>
addEventListener("message", (e) => { document.getElementById("told").textContent = e.data; });
</script><iframe src="page.html" style="width:{width}px;height:900px;border:0"></iframe>"""


def in_browser(page: str, folder: Path, *, dark: bool, width: int, flags: tuple = ()) -> dict:
    """What `RUN_AXE` tells of a page in a frame of that width; the page may run inline scripts."""
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    if dark:
        page = page.replace("(prefers-color-scheme: dark)", "all")
    scripts = f"<script>{AXE.read_text(encoding='utf-8')}</script><script>{RUN_AXE}</script>"
    (folder / "page.html").write_text(page.replace("</body>", scripts + "</body>"), "utf-8")
    (folder / "frame.html").write_text(FRAME.replace("{width}", str(width)), "utf-8")
    done = subprocess.run(
        [
            *COMMAND,
            f"--user-data-dir={folder / 'profile'}",
            "--window-size=1400,1000",
            *flags,
            "--virtual-time-budget=60000",
            (folder / "frame.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    told = re.search(r'<pre id="told">(.+?)</pre>', done.stdout, re.S)
    assert told, done.stderr[-500:]
    return json.loads(html.unescape(told.group(1)))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280], ids=["zoom 400 %", "phone", "desk"])
def test_axe_finds_nothing(report_data: ReportData, tmp_path, dark: bool, width: int) -> None:
    found = in_browser(render_html(report_data), tmp_path, dark=dark, width=width)
    assert found["violations"] == []
    assert found["checked"] > 30
    assert found["width"] == width
    assert found["overflow"] <= 0, "the page scrolls sideways"
    assert "nats" in found["preview"]
    assert found["dismissed"] == ""
    assert found["buttons"] > 5
    assert found["height"] >= 24, "a target is 24 px at least"
    assert found["first"]
    assert all(cell in found["heard"] for cell in found["first"])
    assert found["motion"] == "smooth"


def test_forced_colours_and_reduced_motion(report_data: ReportData, tmp_path) -> None:
    """Figures keep lines of the system's own colours, and nothing moves."""
    flags = ("--force-high-contrast", "--force-prefers-reduced-motion")
    page = render_html(report_data)
    found = in_browser(page, tmp_path, dark=False, width=1280, flags=flags)
    assert found["forced"]
    assert found["motion"] == "auto"
    assert found["violations"] == []
    assert found["page"] not in found["colours"]


def test_paper_holds_more_when_tasks_are_opened(report_data: ReportData, tmp_path) -> None:
    """What is folded on the screen, tasks and numbers of figures, is on paper; not without end."""
    (tmp_path / "page.html").write_text(render_html(report_data), "utf-8")
    paper = tmp_path / "page.pdf"
    subprocess.run(
        [
            *COMMAND[:-1],
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--print-to-pdf={paper}",
            (tmp_path / "page.html").as_uri(),
        ],
        capture_output=True,
        timeout=100,
        check=True,
    )
    pages = re.findall(rb"/Type\s*/Page\b", paper.read_bytes())
    assert 5 < len(pages) < 40


def test_axe_would_find_something(report_data: ReportData, tmp_path) -> None:
    broken = render_html(report_data).replace("--soft: #545b64", "--soft: #b8bcc0")
    found = in_browser(broken, tmp_path, dark=False, width=1280)
    assert [v[0] for v in found["violations"]] == ["color-contrast"]


def test_the_page_runs_under_its_own_policy(report_data: ReportData, tmp_path) -> None:
    """Style and script are those whose hashes the page states; a foreign script does not run."""
    page = render_html(report_data)
    foreign = '<script>document.body.id = "foreign";</script></body>'
    (tmp_path / "whole.html").write_text(page.replace("</body>", foreign), "utf-8")
    done = subprocess.run(
        [*COMMAND, f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "whole.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert '<html lang="en" class="js">' in done.stdout
    assert 'id="foreign"' not in done.stdout
