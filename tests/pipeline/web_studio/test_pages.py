"""The pages of `vdsm studio` in a browser."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.chromium import Chromium
from tests.pipeline.web_studio.conftest import RunningStudio

pytestmark = [pytest.mark.slow, pytest.mark.ray]

READY = "document.querySelector('.result .clip[data-ready]') && !document.querySelector('[aria-busy=true]')"
PIXELS = "[...document.querySelectorAll('{}')].map(canvas => canvas.toDataURL())"
RESULT = ".result canvas"


@pytest.fixture(autouse=True)
def no_complaint(studio: RunningStudio, browser: Chromium) -> Iterator[None]:
    """Check after each test that the console is empty, and that no request left for elsewhere."""
    browser.console_errors.clear()
    browser.requests.clear()
    yield
    assert browser.console_errors == []
    assert [url for url in browser.requests if not url.startswith((studio.url, "data:", "blob:"))] == []


def visit(browser: Chromium, studio: RunningStudio, page: str, ready: str = READY) -> None:
    browser.open("about:blank")
    browser.open(f"{studio.url}#{page}")
    browser.wait_for(ready)


def pixels(browser: Chromium, selector: str = RESULT) -> list[str]:
    """Return the pixels of all canvases that a selector finds, stopped at their first frame."""
    found = browser.run(PIXELS.format(selector))
    assert found
    return list(found)


def still(browser: Chromium) -> None:
    """Stop the animations at a known frame, whenever they are loaded."""
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])


@pytest.fixture(scope="module")
def videos(shared_data: Path) -> Path:
    return shared_data / "videos"


def test_two_clips_are_there_at_once_and_the_result_plays(studio: RunningStudio, browser: Chromium) -> None:
    visit(browser, studio, "")
    first = pixels(browser)
    browser.wait_for(
        f"JSON.stringify({PIXELS.format(RESULT)}) !== {json.dumps(json.dumps(first, separators=(',', ':')))}"
    )
    assert browser.run("document.querySelectorAll('.slot canvas').length") == 4, "clips and reconstructions"
    browser.run("document.getElementById('play').click()")
    paused = pixels(browser)
    browser.run("document.querySelector('#player [data-step=\"1\"]').click()")
    assert pixels(browser) != paused


def test_uploads_are_transferred_with_a_warning_and_the_link_restores_the_result(
    studio: RunningStudio, browser: Chromium, videos: Path
) -> None:
    features = {"prefers_reduced_motion": "reduce"}
    browser.open("about:blank")
    browser.open(studio.url, **features)
    browser.wait_for(READY)
    before = pixels(browser)
    for slot, name in (
        (1, "opencv/vtest.avi"),
        (2, "torchvision/hmdb51_Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi"),
    ):
        browser.choose_file(f".slot:nth-of-type({slot}) input[type=file]", videos / name)
        browser.wait_for(
            f"document.querySelector('.slot:nth-of-type({slot}) .name').textContent === '{Path(name).name}'"
        )
    browser.wait_for(READY)
    assert browser.run("document.querySelectorAll('.slot canvas').length") == 4
    warnings: list[Any] = browser.run("[...document.querySelectorAll('.slot .flag')].map(flag => flag.textContent)")
    assert len(warnings) == 2
    assert all("is unlike what this model was trained on" in text for text in warnings)
    result, link = pixels(browser), browser.run("location.href")
    assert result != before
    browser.open("about:blank")
    browser.open(link, **features)
    browser.wait_for(READY)
    assert pixels(browser) == result


def test_a_stored_clip_is_chosen_by_its_labels_and_all_by_keyboard(studio: RunningStudio, browser: Chromium) -> None:
    visit(browser, studio, "")
    browser.run("document.querySelector('.slot:nth-of-type(2) .button').focus()")
    press(browser, "Enter")
    browser.wait_for("!!document.querySelector('dialog[open] .card')")
    browser.run("(box => { box.value = 'kick'; box.dispatchEvent(new Event('change')); })"
                "([...document.querySelectorAll('dialog label')].find(one => one.textContent.startsWith('action'))"
                ".querySelector('select'))")  # fmt: skip
    browser.wait_for(
        "[...document.querySelectorAll('dialog .card')].every(card => card.ariaLabel.includes('action kick'))"
    )
    browser.run("document.querySelector('dialog .card').focus()")
    press(browser, "Enter")
    browser.wait_for("!document.querySelector('dialog')")
    browser.wait_for("document.querySelector('.slot:nth-of-type(2) .name').textContent.endsWith('-kick')")
    browser.wait_for(READY)
    assert "kick" in browser.run("location.hash")


def press(browser: Chromium, key: str) -> None:
    codes = {"Enter": 13, "Tab": 9, "ArrowRight": 39, "Escape": 27}
    text = {"text": "\r"} if key == "Enter" else {}
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key], **text)
