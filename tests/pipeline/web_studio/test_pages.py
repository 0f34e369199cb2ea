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
        (1, "torchvision/TrumanShow_wave_f_nm_np1_fr_med_26.avi"),
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
    assert all("is unlike the training data" in text for text in warnings)
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


def set_range(browser: Chromium, label: str, value: float) -> None:
    """Move a slider as a user does."""
    browser.run(
        f"(box => {{ box.value = {value}; box.dispatchEvent(new Event('input')); }})"
        f"([...document.querySelectorAll('input[type=range]')].find(one => one.ariaLabel.startsWith('{label}')))"
    )


def test_every_slider_of_the_explorer_changes_pixels_and_the_link_restores_them(
    studio: RunningStudio, browser: Chromium
) -> None:
    features = {"prefers_reduced_motion": "reduce"}
    browser.open("about:blank")
    browser.open(f"{studio.url}#explore?who=sample:1&who=sample:2&how=test:figure0227-walk&how=sample:4", **features)
    browser.wait_for(READY)
    seen = [pixels(browser)]
    for label, value in (("identity between", 0.9), ("trait", 0.8), ("action between", 0.1), ("Frames", 60)):
        browser.run("document.querySelector('.result .clip').dataset.before = 'yes'")
        set_range(browser, label, value)
        browser.wait_for(f"{READY} && !document.querySelector('.result .clip[data-before]')")
        seen.append(pixels(browser))
    assert len({one[0] for one in seen[:4]}) == 4, "each slider but the length changes the first frame"
    browser.run("[...Array(30)].forEach(() => document.querySelector('#player [data-step=\"1\"]').click())")
    assert pixels(browser) != seen[-1], "the clip continues after the length of training"
    link = browser.run("location.href")
    assert all(
        part in link for part in ("identity=0.9", "factor=", "towards=", "amount=0.8", "action=0.1", "frames=60")
    )
    browser.open("about:blank")
    browser.open(link, **features)
    browser.wait_for(READY)
    assert pixels(browser) == seen[-1]


def test_the_grid_has_a_clip_for_each_pair_and_loses_one_that_is_removed(
    studio: RunningStudio, browser: Chromium
) -> None:
    visit(browser, studio, "grid?who=sample:1&who=sample:2&how=sample:3")
    size = "(canvas => [canvas.width / 2, canvas.height / 2])(document.querySelector('.result canvas'))"
    assert browser.run(size) == [3 * 64 + 2 * 2 + 6, 2 * 64 + 2 + 6]
    browser.run("document.querySelector('[aria-label^=\"remove sample 2 from\"]').click()")
    browser.wait_for(f"({size})[0] === {2 * 64 + 2 + 6}")
    assert "who=sample:1&how=sample:3" in browser.run("location.hash")


def test_clips_pairs_and_rejects_of_the_dataset_are_shown(studio: RunningStudio, browser: Chromium) -> None:
    visit(browser, studio, "dataset?kind=train&label=hat:crown&label=action:bow", "!!document.querySelector('.card')")
    cards: list[str] = browser.run("[...document.querySelectorAll('.card')].map(card => card.textContent)")
    assert cards
    assert all("action bow" in text and "hat crown" in text for text in cards)
    browser.run("document.querySelector('[data-part=pairs]').click()")
    browser.wait_for("document.querySelectorAll('.pair .clip[data-ready]').length >= 2")
    assert "partners per clip" in browser.run("document.querySelector('main').textContent")
    browser.run("document.querySelector('[data-part=rejects]').click()")
    browser.wait_for("document.querySelector('main').textContent.includes('No input was rejected')")
    browser.run("document.querySelector('[data-part=clips]').click()")
    browser.wait_for("!!document.querySelector('button.card')")
    browser.run("document.querySelector('button.card').click()")
    browser.wait_for("location.hash.startsWith('#transfer?who=test:')")
    browser.wait_for(READY)


def test_runs_are_compared_and_a_running_training_is_followed(
    studio: RunningStudio, browser: Chromium, runs_folder: Path
) -> None:
    log, text = runs_folder / "training" / "metrics.jsonl", "document.querySelector('main').textContent"
    last = json.loads(log.read_text().splitlines()[-1])["step"]
    visit(browser, studio, "runs?name=training", "!!document.querySelector('.charts svg')")
    assert f"training: step {last}" in browser.run(text)
    with log.open("a") as file:
        file.write(json.dumps({"kind": "train", "stage": 1, "step": last + 70, "loss": 0.1}) + "\n")
    browser.wait_for(f"{text}.includes('training: step {last + 70}')")
    browser.run("document.querySelector('input[value=second]').click()")
    browser.wait_for("!!document.querySelector('.compare')")
    assert browser.run("document.querySelectorAll('.animations canvas').length") == 1
    assert browser.run("document.querySelectorAll('.charts .legend span').length") >= 2


AXE = "axe.run().then(({violations}) => violations.map(one => [one.impact, one.id, one.nodes.map(node => node.html)]))"
PAGES = {
    "transfer": READY, "grid": READY, "explore": READY, "dataset": "!!document.querySelector('.card')",
    "dataset?part=pairs": "!!document.querySelector('.pair')",
    "runs?name=second": "!!document.querySelector('.compare')",
}  # fmt: skip


LONG = ("grid", "dataset", "dataset?part=pairs")


@pytest.mark.parametrize("page", [pytest.param(one, marks=[pytest.mark.long] * (one in LONG)) for one in PAGES])
def test_a_page_has_no_serious_fault_for_screen_readers_and_fits_a_phone(
    studio: RunningStudio, browser: Chromium, page: str
) -> None:
    """Checked by axe-core, in both widths and colour schemes."""
    import axe_core_python

    script = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text()
    for width, scheme in ((1280, "light"), (390, "dark")):
        browser.open("about:blank")
        browser.open(f"{studio.url}#{page}", width=width, prefers_color_scheme=scheme)
        browser.wait_for(PAGES[page])
        assert browser.run("document.documentElement.scrollWidth") <= width
        browser.run(f"{script}; 0")
        assert [one for one in browser.run(AXE) if one[0] in ("serious", "critical")] == []


def test_a_refused_upload_is_named_and_the_clip_before_it_stays(
    studio: RunningStudio, browser: Chromium, tmp_path: Path
) -> None:
    visit(browser, studio, "transfer?who=sample:1&how=sample:2")
    file = tmp_path / "no.mp4"
    file.write_bytes(b"no video")
    browser.choose_file(".slot:nth-of-type(2) input[type=file]", file)
    browser.wait_for("!!document.querySelector('.outcome .flag')")
    assert "no.mp4: not a video that can be opened" in browser.run(
        "document.querySelector('.outcome .flag').textContent"
    )
    # The browser itself notes each answer of 4xx.
    browser.console_errors[:] = [text for text in browser.console_errors if "status of 422" not in text]
    set_range(browser, "Frames", 20)
    browser.wait_for(f"{READY} && !document.querySelector('.outcome .flag')")
    assert "how=sample:2&frames=20" in browser.run("location.hash")
