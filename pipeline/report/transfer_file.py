"""The action transfer that a report has in a file beside it, as an animation of another page."""

import io

import numpy as np
from PIL import Image, ImageSequence

from cluster.errors import UserError
from pipeline.report.animation import DEFAULT_FPS, Animation, make_animation
from pipeline.report.comparison import Report

MAX_PIXELS = 100_000_000
"""Most pixels of an animation, of all of its frames; they are held in memory."""


def transfer_animation(report: Report) -> Animation:
    """Return the action transfer of a report, which must have one, as an animation of the page."""
    assert report.transfer is not None
    try:
        with Image.open(io.BytesIO(report.transfer), formats=["WEBP"]) as image:
            if image.width * image.height * getattr(image, "n_frames", 1) > MAX_PIXELS:
                raise ValueError(f"more than {MAX_PIXELS:,} pixels")
            frames = [np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(image)]
            duration_ms = float(image.info.get("duration") or 1000 / DEFAULT_FPS)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{report.url}/transfer.webp is damaged ({error!s:.100}); rerun `vdsm evaluate`, or delete it"
        ) from None
    recipe = report.metrics["provenance"].get("recipe") or {}
    cell = max(1, int(recipe.get("model", {}).get("frame_size", 64)))
    return make_animation(np.stack(frames), 1000 / duration_ms, f"action transfer of {report.name}", cell)
