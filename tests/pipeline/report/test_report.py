"""report.html in a browser: animations play, numbers are those of metrics.json, no request leaves the file."""

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.report.gallery import Gallery
from pipeline.report.metric_format import format_interval, format_value, is_share
from pipeline.report.page import render
from pipeline.report.table import headline, leaks
from preprocessing.dataset.reader import ClipDataset
from tests.pipeline.chromium import Chromium

MAX_BYTES = 15_000_000


@pytest.fixture(scope="module")
def report(first_report: Path) -> Path:
    return first_report


@pytest.fixture(scope="module")
def metrics(report: Path) -> dict[str, Any]:
    return dict(json.loads((report / "metrics.json").read_text()))


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Chromium]:
    with Chromium(chromium) as opened:
        yield opened


def pixels(browser: Chromium) -> NDArray[np.int16]:
    return np.asarray(Image.open(io.BytesIO(browser.screenshot())).convert("RGB")).astype(np.int16)


def scroll_to(browser: Chromium, selector: str) -> None:
    browser.run(f"document.querySelector('{selector}').scrollIntoView({{behavior: 'instant'}})")


def test_animations_play_pause_and_step(report: Path, browser: Chromium) -> None:
    browser.open(report / "report.html")
    scroll_to(browser, "#transfer")
    frame = "document.querySelector('.donors .animation').animation.shown"
    first, first_frame = pixels(browser), browser.run(frame)
    browser.wait_for(f"{frame} !== {first_frame}")
    assert np.abs(pixels(browser) - first).max() > 60
    browser.run("document.getElementById('play').click()")
    assert browser.run("document.getElementById('play').textContent") == "Play"
    paused, paused_frame = pixels(browser), browser.run(frame)
    browser.run("new Promise(done => setTimeout(done, 400))")
    assert browser.run(frame) == paused_frame
    np.testing.assert_array_equal(pixels(browser), paused)
    browser.run("document.querySelector('[data-step=\"1\"]').click()")
    assert browser.run(frame) == (paused_frame + 1) % browser.run(
        "document.querySelector('.donors .animation').animation.frames"
    )
    assert np.abs(pixels(browser) - paused).max() > 60


def test_frames_on_the_screen_are_those_of_the_clips_at_their_frame_rate(
    report: Path, browser: Chromium, small_figures: Path
) -> None:
    test = ClipDataset(str(small_figures), "test")
    donor = int(np.flatnonzero(test.labels["action"] == 0)[0])
    browser.open(report / "report.html", prefers_reduced_motion="reduce")
    assert browser.run("[...new Set([...document.querySelectorAll('.animation')].map(box => box.dataset.fps))]") == [
        "8.0"
    ]
    for time in range(4):
        url = browser.run("document.querySelector('.donors canvas').toDataURL()")
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"))
        cell = shown[(34 + 6) * 2 :: 2, ::2][:32].astype(int)  # The canvas has two pixels per pixel of the clip.
        errors = [np.abs(cell - frame).mean() for frame in test.frames(donor)[:4].astype(int)]
        assert int(np.argmin(errors)) == time
        assert errors[time] < 6
        browser.run("document.querySelector('[data-step=\"1\"]').click()")


def test_with_reduced_motion_animations_are_paused_and_can_be_started(report: Path, browser: Chromium) -> None:
    browser.open(report / "report.html", prefers_reduced_motion="reduce")
    scroll_to(browser, "#transfer")
    still = pixels(browser)
    browser.run("new Promise(done => setTimeout(done, 400))")
    np.testing.assert_array_equal(pixels(browser), still)
    browser.run("document.getElementById('play').click()")
    browser.wait_for("document.querySelector('.donors .animation').animation.shown > 0")
    assert np.abs(pixels(browser) - still).max() > 60


def test_every_number_on_the_page_is_that_of_the_metrics(
    report: Path, browser: Chromium, metrics: dict[str, Any]
) -> None:
    browser.open(report / "report.html")
    cells = browser.run(
        "[...document.querySelectorAll('[data-metric]')].map(cell => "
        "[cell.dataset.metric, cell.dataset.key || '', cell.dataset.control || '', cell.textContent.trim()])"
    )
    for name, key, control, text in cells:
        metric, share = metrics["figures"][name], is_share(name, metrics)
        if control:
            expected = format_value(metrics["controls"][control].get(name, {}).get("value"), share)
        elif key == "interval":
            expected = format_interval(metric, share)
        else:
            expected = f"{metric['n']:,}" if key == "n" else format_value(metric[key], share)
        assert text == expected, (name, key, control)
    assert {name for name, *_ in cells} == set(metrics["figures"])
    table = browser.run("[...document.querySelectorAll('#headline tbody th')].map(cell => cell.textContent)")
    assert table == [row.title for row in headline(metrics)]
    counts = np.array(metrics["confusion"]["action"])
    requested, occurring = np.flatnonzero(counts.sum(1)), np.flatnonzero(counts.sum(0) + counts.sum(1))
    shares = 100 * counts[requested][:, occurring] / counts[requested].sum(1, keepdims=True)
    drawn = browser.run(
        "[...document.querySelectorAll('table[data-factor=action] tbody tr')].map(row => "
        "[...row.querySelectorAll('td')].map(cell => Number(cell.textContent || 0)))"
    )
    np.testing.assert_allclose(drawn, shares, atol=0.51)


def test_no_request_leaves_the_file_and_the_console_stays_empty(report: Path, browser: Chromium) -> None:
    browser.requests.clear()
    browser.open(report / "report.html", prefers_color_scheme="dark")
    page = browser.run("document.documentElement.scrollHeight")
    for top in range(0, page, 800):
        browser.run(f"window.scrollTo(0, {top})")
    browser.run("document.querySelectorAll('details').forEach(part => part.open = true)")
    browser.run("document.querySelectorAll('input[name=factor], .map-legend button').forEach(part => part.click())")
    browser.run("new Promise(done => setTimeout(done, 200))")
    assert browser.console_errors == []
    file = (report / "report.html").resolve().as_uri()
    assert [url for url in browser.requests if url != file and not url.startswith("data:image/webp;base64,")] == []
    assert "first &lt;run&gt;" in (report / "report.html").read_text()
    assert (report / "report.html").stat().st_size < MAX_BYTES


@pytest.mark.parametrize(("width", "scheme"), [(375, "dark"), (375, "light"), (1200, "light")])
def test_page_fits_the_screen_and_has_enough_contrast(report: Path, browser: Chromium, width: int, scheme: str) -> None:
    browser.open(report / "report.html", width=width, prefers_color_scheme=scheme)
    assert browser.run("document.documentElement.scrollWidth") == width
    contrast = """(() => {
      const light = colour => { const [r, g, b] = colour.match(/[0-9.]+/g).map(v => { v /= 255;
        return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4 }); return .2126 * r + .7152 * g + .0722 * b };
      const paper = light(getComputedStyle(document.body).backgroundColor);
      return Math.min(...['body', '.soft', '.caption', 'a', '.wrong b', 'td.other', 'summary'].map(selector => {
        const ink = light(getComputedStyle(document.querySelector(selector)).color);
        return (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05) })) })()"""
    assert browser.run(contrast) >= 4.5
    assert browser.run("[...document.querySelectorAll('.animation canvas')].every(c => c.ariaLabel.length > 10)")


def test_a_page_that_is_printed_or_captured_without_scrolling_shows_every_animation(
    report: Path, browser: Chromium
) -> None:
    browser.open(report / "report.html", height=300)
    shown = browser.run(
        "[...document.querySelectorAll('.animation canvas')].map(canvas => "
        "canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(value => value > 0))"
    )
    assert len(shown) > 5
    assert all(shown)
    browser.call("Emulation.setEmulatedMedia", media="print")
    bars = "[...document.querySelectorAll('.bar i, .tinted')].map(bar => getComputedStyle(bar).printColorAdjust)"
    assert set(browser.run(bars)) == {"exact"}  # or a browser leaves out their colour
    browser.call("Emulation.setEmulatedMedia", media="")


def test_only_a_leak_beyond_that_of_a_perfect_swap_has_the_colour_of_a_warning() -> None:
    def metric(value: float, low: float | None) -> dict[str, Any]:
        return {"value": value, "low": low, "high": None if low is None else 1.0, "chance": 0.2, "n": 100}

    assert not leaks(metric(0.24, 0.2), 0.24)  # as large as a perfect swap's, though above chance
    assert not leaks(metric(0.26, 0.22), 0.24)  # not larger beyond the interval
    assert not leaks(metric(0.1, 0.05), 0.24)
    assert leaks(metric(0.4, 0.3), 0.24)
    assert leaks(metric(0.25, None), 0.24)
    assert leaks(metric(0.4, 0.3), None)  # without a control, chance is what is allowed
    assert not leaks(metric(0.25, 0.15), None)


def test_the_bars_of_leaks_are_coloured_by_that_rule(report: Path, browser: Chromium, metrics: dict[str, Any]) -> None:
    browser.open(report / "report.html")
    coloured = browser.run(
        "[...document.querySelectorAll('#headline tbody tr')].filter(row => row.querySelector('.bar.leak'))"
        ".map(row => row.querySelector('td.value').dataset.metric)"
    )
    assert coloured == [row.name for row in headline(metrics) if row.leaks]


def test_map_is_coloured_by_the_chosen_factor_and_values_can_be_highlighted(
    report: Path, browser: Chromium, small_figures: Path
) -> None:
    test = ClipDataset(str(small_figures), "test")
    browser.open(report / "report.html")
    names = browser.run("[...document.querySelectorAll('input[name=factor] + span')].map(name => name.textContent)")
    assert names[0] == "action"
    assert names[-1] == "identity"
    browser.run(f"document.querySelectorAll('input[name=factor]')[{names.index('hat')}].click()")
    legends = browser.run(
        "[...document.querySelectorAll('.map-legend')].filter(l => !l.hidden).map(l => l.textContent.trim())"
    )
    worn = [test.vocabulary["hat"][value] for value in np.unique(test.labels["hat"])]
    assert len(legends) == 1
    assert all(hat in legends[0] for hat in worn)
    appearance = (
        "[...document.querySelector('.map').querySelectorAll('use')]"
        ".map(mark => [mark.getAttribute('href'), mark.className.baseVal])"
    )
    index_of = {int(value): number for number, value in enumerate(np.unique(test.labels["hat"]))}
    expected = [index_of[int(value)] for value in test.labels["hat"]]
    assert browser.run(appearance) == [[f"#mark-{value}", f"value-{value}"] for value in expected]
    browser.run("[...document.querySelectorAll('.map-legend')].find(l => !l.hidden).querySelector('button').click()")
    assert [css_class.endswith(" dim") for _, css_class in browser.run(appearance)] == [
        value != 0 for value in expected
    ]


def test_report_without_labels_gives_the_reasons_for_absent_sections(
    metrics: dict[str, Any], tmp_path: Path, browser: Chromium
) -> None:
    kept = ("cycle", "likeness", "moving", "smoothness", "reconstruction", "still", "experts")
    bare = {
        **metrics,
        "figures": {name: figure for name, figure in metrics["figures"].items() if name.split(".")[0] in kept},
        "factors": {"action": None, "static": []},
        "vocabulary": {},
        "controls": {},
        "confusion": {},
        "warnings": [],
    }
    reasons = {name: f"There is no {name} here." for name in
               ("transfer", "prior", "interpolation", "rollouts", "reconstructions", "maps", "wrong")}  # fmt: skip
    (tmp_path / "bare.html").write_text(render(bare, Gallery(absent=dict(reasons)), "bare", []))
    browser.console_errors.clear()
    browser.open(tmp_path / "bare.html")
    absent = browser.run("[...document.querySelectorAll('.absent')].map(text => text.textContent)")
    assert set(reasons.values()) < set(absent)
    assert [text for text in absent if "no action label" in text]
    rows = browser.run(
        "[...document.querySelectorAll('#label-free tbody tr')].map(row => row.lastElementChild.textContent)"
    )
    assert len(rows) == 10
    sharp = browser.run(
        "[...document.querySelectorAll('#sharpness tbody tr')].map(row => row.lastElementChild.textContent)"
    )
    assert len(sharp) == 9
    assert min(map(len, [*rows, *sharp])) > 30  # each has its meaning
    shown = browser.run("[...document.querySelectorAll('.tile b')].map(tile => tile.dataset.metric)")
    assert shown == ["likeness.identity", "likeness.action", "moving.self_swap.gain", "smoothness.change"]
    assert browser.console_errors == []
    assert browser.run("document.getElementById('player').hidden")


@pytest.mark.slow
def test_hostile_vocabulary_is_escaped(metrics: dict[str, Any]) -> None:
    vocabulary = {
        **metrics["vocabulary"],
        "action": ["<script>alert(1)</script>", *metrics["vocabulary"]["action"][1:]],
    }
    absent = dict.fromkeys(
        ("transfer", "prior", "interpolation", "rollouts", "reconstructions", "maps", "wrong"), "<i>"
    )
    page = render({**metrics, "vocabulary": vocabulary}, Gallery(absent=absent), "<b>", [])
    assert page.count("<script") == 1
    assert "&lt;script&gt;alert(1)" in page
    assert "<i>" not in page.replace('<i>"', "")
    assert "<title>&lt;b&gt;" in page


@pytest.mark.slow
def test_page_contains_no_external_url(report: Path) -> None:
    page = (report / "report.html").read_text()
    text = re.sub(r"data:[a-z/]+;base64,[A-Za-z0-9+/=]*", "data:", page)
    assert not re.findall(r"https?://|@import|url\(|<link(?! rel=\"icon\")|<iframe", text)
    assert "default-src 'none'; img-src data:" in text


@pytest.mark.slow
def test_files_next_to_the_report_can_be_shared_and_compared(report: Path) -> None:
    with Image.open(report / "transfer.webp") as transfer:
        assert transfer.n_frames == 4
        assert transfer.info["loop"] == 0
    assert len((report / "training.jsonl").read_text().splitlines()) == 29
