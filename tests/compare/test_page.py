"""The page of a comparison: alone, without eyes, in colours, in a browser."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

import densevision.compare
from densevision.cli import main
from tests.compare.conftest import write_run

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page(HTMLParser):
    """What a screen reader would ask of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.headings, self.references, self.text = [], [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        known = dict(attributes)
        self.tags.append((tag, known))
        self.ids += [known["id"]] if "id" in known else []
        self.references += known.get("aria-labelledby", "").split()
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def page(runs, tmp_path, capsys):
    write_run(runs / "c", [0.6], optim__lr=0.2)
    write_run(runs / "d", [0.4], data__batch_size='<script>alert("x")</script>')
    assert main(["compare", str(runs), "--html", str(tmp_path / "report.html"), "--title", "a < b & c"]) == 0
    return tmp_path / "report.html"


def test_the_page_stands_alone_and_can_be_read_without_eyes(page):
    text = page.read_text()
    parsed = Page(text)
    tags = [tag for tag, _ in parsed.tags]
    assert "a < b & c" in parsed.text
    assert not {"script", "link", "iframe"} & set(tags)
    assert not re.search(r"https?://|@import|url\(", text)
    images = [known for tag, known in parsed.tags if tag == "img"]
    assert len(images) == 2 + 4  # the picture and its truth once, a prediction of every group
    assert all(known["src"].startswith("data:image/jpeg;base64,") and known["alt"] for known in images)
    assert parsed.tags[0] == ("html", {"lang": "en"})
    assert parsed.headings[0] == 1
    assert all(later - earlier <= 1 for earlier, later in zip(parsed.headings, parsed.headings[1:], strict=False))
    assert len(parsed.ids) == len(set(parsed.ids))
    assert set(parsed.references) <= set(parsed.ids)
    assert tags.count("caption") == tags.count("table") >= 6
    assert all(known.get("scope") in ("row", "col") for tag, known in parsed.tags if tag == "th")
    charts = [known for tag, known in parsed.tags if tag == "svg" and known.get("class") == "chart"]
    assert len(charts) == 3
    assert all(known["role"] == "img" and known["aria-labelledby"] for known in charts)
    assert not any(known["aria-describedby"] in known["aria-labelledby"].split() for known in charts)
    scrolling = [known for _, known in parsed.tags if known.get("class") == "scroll"]
    assert all(known["tabindex"] == "0" and 0 < len(known["aria-label"]) < 60 for known in scrolling)
    targets = [known["href"].removeprefix("#") for tag, known in parsed.tags if tag == "a"]
    assert set(targets) <= set(parsed.ids)


def luminance(color):
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return np.dot(linear, (0.2126, 0.7152, 0.0722))


def contrast(one, other):
    """WCAG 2.2's contrast ratio."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_colours_have_the_contrast_that_wcag_asks(mode):
    style = (Path(densevision.compare.__file__).parent / "style.css").read_text()
    colors = dict(re.findall(r"--([\w-]+): (#\w{6})", style.split("@media (prefers-color-scheme: dark)")[mode]))
    for ink, paper in (("ink", "paper"), ("ink", "raised"), ("quiet", "raised"), ("quiet", "paper"), ("ink", "warn")):
        assert contrast(colors[ink], colors[paper]) >= 4.5, (ink, paper)
    assert contrast(colors["accent"], colors["paper"]) >= 4.5
    for number in range(8):
        assert contrast(colors[f"c{number}"], colors["raised"]) >= 3, number


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no browser (chromium) is installed")
@pytest.mark.parametrize("width", [500, 1280])
def test_a_browser_shows_the_page_without_scrolling_sideways(page, tmp_path, width):
    probe = "<script>document.body.dataset.measured=[innerWidth,document.documentElement.scrollWidth,"
    probe += "[...document.images].filter(i=>i.complete&&i.naturalWidth).length].join()</script></body>"
    copy = tmp_path / "probe.html"
    copy.write_text(page.read_text().replace("</body>", probe))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},2000", "--hide-scrollbars"]
    shown = subprocess.run([*command, "--dump-dom", copy.as_uri()], capture_output=True, text=True, timeout=120)
    inner, scrolled, images = map(int, re.search(r'data-measured="([\d,]+)"', shown.stdout)[1].split(","))
    assert inner == width
    assert scrolled <= inner
    assert images == 6
    picture = tmp_path / "page.png"
    subprocess.run([*command, f"--screenshot={picture}", page.as_uri()], capture_output=True, check=True, timeout=120)
    assert len(np.unique(cv2.imread(str(picture)).reshape(-1, 3), axis=0)) > 50
