"""The static edition in a browser, from a plain web server, below a sub-path: its numbers are those of torch."""

import base64
import functools
import http.server
import io
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cluster.errors import UserError
from pipeline.web_studio import onnxruntime_web
from pipeline.web_studio.factors import Factor, Walk
from pipeline.web_studio.settings import StudioSettings
from pipeline.web_studio.stored_clips import FigureClips
from pipeline.web_studio.studio_model import StudioModel
from tests.pipeline.chromium import Chromium
from tests.pipeline.web_studio.test_pages import READY

pytestmark = pytest.mark.slow

WHO, HOW = "figure0014-walk", "figure0023-kick"
PLACE = "some/where/studio"
STILL = {"prefers_reduced_motion": "reduce"}
PATIENCE_S = 300
"""Limit of a wait, which only ends a test that would hang."""
ROUNDING = 1
"""Largest accepted difference of a pixel, of 255: numbers that agree to 1e-4 can round to neighbours."""


@pytest.fixture(scope="module")
def edition(made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """Return a folder that holds the edition of the built-in model below PLACE."""
    for module in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(module, reason="pip install 'vdsm-pipeline[onnx]'")
    try:
        onnxruntime_web.runtime_files(None)
    except UserError as error:
        pytest.skip(str(error))

    def make(folder: Path) -> None:
        from pipeline.web_studio.edition import write_edition

        write_edition(StudioSettings(), folder / PLACE, None)

    return made_once("studio-edition", make)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def url(edition: Path) -> Iterator[str]:
    """Return the address of the edition on a plain web server."""
    handler = functools.partial(_Quiet, directory=str(edition))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{PLACE}/"
        server.shutdown()


@pytest.fixture
def page(url: str, browser: Chromium) -> Iterator[Chromium]:
    """Return a browser; afterwards, check that its console is empty and that no request left for elsewhere."""
    browser.console_errors.clear()
    browser.requests.clear()
    browser.open("about:blank")
    yield browser
    assert browser.console_errors == []
    assert [one for one in browser.requests if not one.startswith((url, "data:", "blob:", "about:"))] == []


@pytest.fixture(scope="module")
def model() -> StudioModel:
    """Return the built-in model in torch."""
    return StudioModel(StudioSettings())


def figure(key: str) -> NDArray[np.uint8]:
    clips = FigureClips(8)
    return clips.frames(clips.keys.index(key))


def call(browser: Chromium, script: str) -> Any:
    """Return what a script returns to which the API in the page is known as `api`."""
    return browser.run(f"import(new URL('page/api.js', document.baseURI)).then(async api => {{ {script} }})")


def frames_of(sheet: dict[str, Any]) -> NDArray[np.uint8]:
    """Return the frames of a sheet: uint8 [T, H, W, 3]."""
    with Image.open(io.BytesIO(base64.b64decode(sheet["uri"].partition(",")[2]))) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert sheet["rows"] == sheet["frames"]
    return pixels.reshape(sheet["frames"], sheet["height"], sheet["width"], 3)


def largest(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def test_a_transfer_between_figures_has_the_pixels_and_the_numbers_of_torch(
    page: Chromium, url: str, model: StudioModel
) -> None:
    page.open(f"{url}#transfer?who=figures:{WHO}&how=figures:{HOW}", **STILL)
    page.wait_for(READY, PATIENCE_S)
    answer = call(
        page, f"return api.post('transfer', api.form({{who: 'figures:{WHO}', how: 'figures:{HOW}', frames: 8}}))"
    )
    who, how = model.encode([figure(WHO), figure(HOW)])
    (expected,) = model.decode([(who.code.static, how.code.dynamics, 8)])
    assert largest(frames_of(answer["result"]), expected) <= ROUNDING
    for found, reading in ((answer["identity"], who), (answer["action"], how)):
        assert largest(frames_of(found["reconstruction"]), reading.reconstruction) <= ROUNDING
        assert found["share"] == pytest.approx(reading.share, abs=0.002)
        assert found["psnr_db"] == pytest.approx(reading.psnr_db, abs=0.01)
        assert found["warning"] is None
    pages = "[...document.querySelectorAll('#pages a')].map(link => link.textContent)"
    assert page.run(pages) == ["Transfer", "Grid", "Explore"]


@pytest.mark.long
def test_a_link_shows_blends_steps_and_samples_of_any_length_as_torch_does(
    page: Chromium, url: str, model: StudioModel, edition: Path
) -> None:
    facts = json.loads((edition / PLACE / "model" / "facts.json").read_text())
    stored = next(factor for factor in facts["factors"] if factor["name"] == "hat")
    ends = {name: np.array(end, dtype=np.float32) for name, end in stored["ends"].items()}
    factor = Factor("hat", np.float32(stored["mean"]), np.float32(stored["basis"]), ends, labelled=True)
    page.open(
        f"{url}#explore?who=sample:1&who=sample:1&how=sample:2&how=sample:2&factor=hat&towards=crown&amount=0.7&frames=20",
        **STILL,
    )
    page.wait_for(READY, PATIENCE_S)
    assert page.run("document.querySelector('[aria-label=\"One trait\"] output').textContent") == "70% crown"
    content = {
        "static": [{"of": "sample:1", "weight": 1}], "dynamics": [{"of": "sample:2", "weight": 1}], "frames": 20,
        "walk": {"factor": "hat", "towards": "crown", "amount": 0.7},
    }  # fmt: skip
    answer = call(page, f"return api.post('explore', {json.dumps(content)})")
    static = Walk(factor, "crown", 0.7, facts["static_groups"]).apply(model.sample(1).static)
    (expected,) = model.decode([(static, model.sample(2).dynamics, 20)])
    assert largest(frames_of(answer["result"]), expected) <= ROUNDING
    before = page.run("document.querySelector('.result canvas').toDataURL()")
    page.run("document.querySelector('.result .clip').dataset.before = 'yes'")
    page.run(
        "(box => { box.value = 0; box.dispatchEvent(new Event('input')); })"
        "(document.querySelector('[aria-label=\"One trait\"] input'))"
    )
    page.wait_for(f"{READY} && !document.querySelector('.result .clip[data-before]')")
    assert page.run("document.querySelector('.result canvas').toDataURL()") != before
    assert "amount" not in page.run("location.hash")


@pytest.mark.long
def test_a_grid_is_shown_and_saved_as_an_animation(page: Chromium, url: str) -> None:
    page.open(f"{url}#grid?who=figures:{WHO}&who=sample:3&how=figures:{HOW}", **STILL)
    page.wait_for(READY, PATIENCE_S)
    size = "(canvas => [canvas.width / 2, canvas.height / 2])(document.querySelector('.result canvas'))"
    assert page.run(size) == [3 * 64 + 2 * 2 + 6, 2 * 64 + 2 + 6]
    encoded = (
        "const { encodeGif } = await import(new URL('page/gif.js', document.baseURI));"
        "const { pixels } = await import(new URL('page/clips.js', document.baseURI));"
        f"const label = ['identity:{WHO[:10]}', 'action:walk'];"
        "const { clips } = await api.get('clips', { kind: 'figures', label });"
        "const clip = { pixels: await pixels(clips[0].clip), frames: 8, size: 64 };"
        "return btoa(String.fromCharCode(...encodeGif(clip, 8)));"
    )
    with Image.open(io.BytesIO(base64.b64decode(call(page, encoded)))) as animation:
        assert (animation.n_frames, animation.size, animation.info["duration"]) == (8, (256, 256), 130)
        for number, expected in enumerate(figure(WHO)):
            animation.seek(number)
            found = np.asarray(animation.convert("RGB"))[::4, ::4]
            assert np.abs(found.astype(int) - expected.astype(int)).mean() < 4


@pytest.mark.long
def test_the_browser_decodes_uploads_and_refuses_in_one_line_what_it_cannot(
    page: Chromium, url: str, model: StudioModel, tmp_path: Path
) -> None:
    import imageio.v3 as iio

    clip = figure(HOW).repeat(4, axis=1).repeat(4, axis=2)
    iio.imwrite(tmp_path / "kick.mp4", clip, fps=8, codec="libx264", out_pixel_format="yuv420p", plugin="pyav")
    Image.fromarray(figure(WHO)[0]).save(tmp_path / "who.png")
    (tmp_path / "no.mp4").write_bytes(b"no video")
    page.open(url, **STILL)
    page.wait_for(READY, PATIENCE_S)
    for slot, name in ((1, "who.png"), (2, "kick.mp4")):
        page.choose_file(f".slot:nth-of-type({slot}) input[type=file]", tmp_path / name)
        page.wait_for(f"document.querySelector('.slot:nth-of-type({slot}) .name').textContent === '{name}'")
    page.wait_for(READY, PATIENCE_S)
    flags = "[1, 2].map(slot => document.querySelectorAll(`.slot:nth-of-type(${slot}) .flag`).length)"
    (still,) = model.encode([figure(WHO)[:1].repeat(8, axis=0)])
    assert still.unlike, "no training clip stands still"
    assert page.run(flags) == [1, 0]
    result = page.run("document.querySelector('.result canvas').toDataURL()")
    link = page.run("location.href")
    page.choose_file(".slot:nth-of-type(2) input[type=file]", tmp_path / "no.mp4")
    page.wait_for("!!document.querySelector('.outcome .flag')")
    shown = page.run("document.querySelector('.outcome .flag span:last-child').textContent")
    assert shown.startswith("no.mp4: not a video or picture that this browser can decode")
    page.open("about:blank")
    page.open(link, **STILL)
    page.wait_for(READY, PATIENCE_S)
    assert page.run("document.querySelector('.result canvas').toDataURL()") == result
