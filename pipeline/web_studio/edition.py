"""The static edition: a folder that any web server can serve, in which the browser computes what the server would."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import pipeline.web_studio.browser
from cluster import extras
from cluster.errors import UserError
from cluster.storage import os_errors
from cluster.storage.fence import LOCK
from cluster.storage.lock import output_lock
from pipeline.exports.browser_files import write_browser_files
from pipeline.generation.unlike_text import TEMPLATE
from pipeline.report.animation import display_fps
from pipeline.report.images import Frames
from pipeline.web_studio.factors import SAMPLES, Factor, principal_factors
from pipeline.web_studio.model_facts import facts_of
from pipeline.web_studio.onnxruntime_web import runtime_files
from pipeline.web_studio.page_files import page_files
from pipeline.web_studio.schema import CollectionAnswer, LimitsAnswer, ModelAnswer
from pipeline.web_studio.settings import ModelFacts, StudioSettings
from pipeline.web_studio.stored_clips import FIGURES, ClipShelf, described
from pipeline.web_studio.studio_model import StudioModel
from vdsm.familiarity import RARE

MARK = "studio.json"
"""File by which an edition is recognised; it is written last."""
CSP = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data: blob:; "
    "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'"
)
MOST_CLIPS = 96
"""Clips of the test split of `--data` that travel with an edition."""
NUM_SAMPLES = 200
"""Samples of the prior that travel with it: those of the seeds 0, 1, and so on."""


def write_edition(settings: StudioSettings, out: Path, package: Path | None) -> int:
    """Write the edition, and return its size in bytes.

    Args:
        settings: which model and data to show; `runs` and `data` beyond its first test clips are left out.
        out: the folder; an earlier edition in it is replaced.
        package: folder of the npm package onnxruntime-web; None downloads it with npm.

    Raises:
        UserError: the model cannot be written, there is no onnxruntime-web, `out` holds something else, or another
            process writes into it.
    """
    for module in ("onnx", "onnxscript", "onnxruntime"):
        extras.require(module)
    with os_errors.explained(out, "choose another --static"):
        if out.exists() and not out.is_dir():
            raise UserError(f"{out}: is a file; choose another --static")
        with output_lock(str(out), "--static"):
            if not (out / MARK).is_file() and any(path.name != LOCK for path in out.iterdir()):
                raise UserError(f"{out}: holds something other than an edition of the studio; choose another --static")
            return _write_edition(settings, out, package)


def _write_edition(settings: StudioSettings, out: Path, package: Path | None) -> int:
    runtime = runtime_files(package)
    model = StudioModel(settings.model_copy(update={"device": "cpu"}))
    facts = facts_of(model.trained, settings)
    shelf = ClipShelf(facts, settings.data)
    for folder in ("page", "model", "clips"):
        (out / folder).mkdir(exist_ok=True)
    (out / MARK).unlink(missing_ok=True)
    sizes = write_browser_files(out / "model", model.trained.model, facts.clip_frames)
    clips = _write_clips(out, shelf, facts)
    _write_samples(out / "model", model)
    content = {
        "model": _answer(facts, clips, settings).model_dump(mode="json"), "clips": clips,
        "static_size": facts.static_size, "dynamics_size": facts.dynamics_size,
        "static_groups": facts.static_groups, "state_size": sizes["state"],
        "likelihoods": model.training is not None, "unlike": TEMPLATE, "rare": RARE,
        **_factors(shelf, facts, model),
    }  # fmt: skip
    (out / "model" / "facts.json").write_text(json.dumps(content))
    _write_page(out, runtime)
    (out / MARK).write_text(json.dumps({"model": facts.name}))
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def _answer(facts: ModelFacts, clips: dict[str, list[Any]], settings: StudioSettings) -> ModelAnswer:
    kinds = [CollectionAnswer(kind=kind, clips=len(found), labels=_labels(found)) for kind, found in clips.items()]
    return ModelAnswer(
        name=facts.name, frame_size=facts.frame_size, channels=facts.channels, clip_frames=facts.clip_frames,
        fps=facts.fps, has_runs=False, pages=["transfer", "grid", "explore"], formats=["gif"], accepts="video/*,.gif",
        collections=kinds,
        limits=LimitsAnswer(
            upload_bytes=settings.max_upload_mb * 10**6, video_seconds=settings.max_video_s,
            frame_pixels=settings.max_pixels, samples=NUM_SAMPLES,
        ),
    )  # fmt: skip


def _labels(clips: list[Any]) -> dict[str, list[str]]:
    """Return the values of each label that clips have, in the order in which they occur."""
    names = clips[0]["labels"] if clips else {}
    return {name: list(dict.fromkeys(clip["labels"][name] for clip in clips)) for name in names}


def _write_clips(out: Path, shelf: ClipShelf, facts: ModelFacts) -> dict[str, list[Any]]:
    """Write one image per clip, and return the entries of the lists."""
    found: dict[str, list[Any]] = {}
    for kind in ("test", FIGURES):
        if kind not in shelf.collections:
            continue
        clips = shelf.collections[kind]
        rows = range(len(clips.keys)) if kind == FIGURES else range(min(len(clips.keys), MOST_CLIPS))
        found[kind] = []
        for row in rows:
            try:
                frames = shelf.frames(kind, clips.keys[row])
            except UserError:  # too short for the model
                continue
            uri = f"clips/{kind}-{row:03d}.png"
            sheet = write_sheet(out / uri, frames)
            fps = display_fps(float(clips.fps[row]))
            entry = {**described(clips, kind, row), "clip": {**sheet, "uri": uri, "fps": fps, "alt": clips.keys[row]}}
            found[kind].append(entry)
    return found


def write_sheet(path: Path, clip: Frames) -> dict[str, int]:
    """Write a clip uint8 [T, H, W, C] as one PNG without loss, and return how its frames lie in it."""
    frames, height, width, channels = clip.shape
    rows = min(frames, 16_000 // height)
    columns = -(-frames // rows)
    sheet = np.zeros((columns, rows, height, width, channels), dtype=np.uint8)
    sheet.reshape(-1, height, width, channels)[:frames] = clip
    image = sheet.transpose(1, 2, 0, 3, 4).reshape(rows * height, columns * width, channels)
    Image.fromarray(image[..., 0] if channels == 1 else image).save(path, optimize=True)
    return {"width": width, "height": height, "frames": frames, "rows": rows, "channels": channels}


def _write_samples(folder: Path, model: StudioModel) -> None:
    codes = [model.sample(seed) for seed in range(NUM_SAMPLES)]
    samples = np.stack([np.concatenate([code.static, code.dynamics]) for code in codes])
    (folder / "samples.f32").write_bytes(samples.astype("<f4").tobytes())
    if model.training is not None:
        (folder / "likelihoods.f32").write_bytes(model.training.drawn.numpy().astype("<f4").tobytes())


def _factors(shelf: ClipShelf, facts: ModelFacts, model: StudioModel) -> dict[str, Any]:
    examples, found = shelf.examples(), list[Factor]()
    if examples is not None:
        found = examples.factors(model.static_codes(examples.clips))
    if not found:
        found = principal_factors(model.sampled_codes(SAMPLES), facts.static_groups)
    return {
        "labelled": any(factor.labelled for factor in found),
        "factors": [
            {
                "name": factor.name, "mean": factor.mean.tolist(), "basis": factor.basis.tolist(),
                "ends": {name: end.tolist() for name, end in factor.ends.items()},
            }
            for factor in found
        ],
    }  # fmt: skip


def _write_page(out: Path, runtime: dict[str, bytes]) -> None:
    files = page_files() | runtime
    for entry in resources.files(pipeline.web_studio.browser).iterdir():
        if entry.name.endswith(".js"):
            files[entry.name] = entry.read_bytes()
    index = files.pop("index.html").decode()
    policy = f'<meta http-equiv="Content-Security-Policy" content="{CSP}">'
    (out / "index.html").write_text(index.replace('<meta charset="utf-8">', f'<meta charset="utf-8">\n{policy}'))
    for name, content in files.items():
        (out / "page" / name).write_bytes(content)
