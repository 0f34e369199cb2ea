"""Records of a training, gathered into rows of a step each, for all trackers of its run."""

import contextlib
import io
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.trackers.feed import Feed
from pipeline.trackers.registry import open_feeds
from pipeline.trackers.rows import SAMPLES, stored_rows
from pipeline.trackers.scalars import scalars_of
from pipeline.trackers.tensorboard_files import TensorBoardFiles
from pipeline.trackers.tracker import Row, TrackedRun
from pipeline.training.config import TrackerName

FRAME_S = 0.125
"""Seconds for which a frame of an animation is shown."""


class Tracking:
    """The trackers of a run. Raises OSError if TensorBoard's files, or sample images, cannot be written.

    Args:
        names: its trackers.
        run: the run; None if it has no trackers but TensorBoard.
        folder: local folder of its files.
    """

    def __init__(self, names: Sequence[TrackerName], run: TrackedRun | None, folder: Path) -> None:
        self._folder, self._has_board = folder, "tensorboard" in names
        self._board: TensorBoardFiles | None = None
        self._feeds: list[Feed] = open_feeds(names, run) if run else []
        self._row = Row(-1, {}, {})

    def rewind(self, step: int, records: Iterable[Mapping[str, Any]]) -> None:
        """Resume after `step`; send what trackers may have lost.

        Args:
            step: steps done in both stages.
            records: all records of the run up to it.
        """
        if self._has_board:
            self._open_board(step)
        self._row = Row(-1, {}, {})
        if self._feeds:
            rows = list(stored_rows(self._folder, records, step))
            for feed in self._feeds:
                feed.rewind(step)
                feed.put(rows)

    def continue_board(self) -> None:
        """Have TensorBoard's records written to a new file."""
        if self._board is not None:
            self._open_board(None)

    def _open_board(self, step: int | None) -> None:
        if self._board is not None:
            self._board.close()
        self._board = TensorBoardFiles(self._folder / "tensorboard", step)

    def take(self, record: Mapping[str, Any]) -> None:
        """Take a `train`, `validation` or `images` record."""
        step, scalars = int(record["overall_step"]), scalars_of(record)
        media = self._keep_media(record) if record["kind"] == "images" and (self._board or self._feeds) else {}
        if self._board is not None:
            self._board.add(Row(step, scalars, media))
        if step != self._row.step:
            self.complete()
            self._row = Row(step, {}, {})
        self._row = Row(step, {**self._row.scalars, **scalars}, {**self._row.media, **media})

    def complete(self) -> None:
        """Send the row of the last step, to which nothing will be added."""
        if self._row:
            for feed in self._feeds:
                feed.put([self._row])
        self._row = Row(-1, {}, {})

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Have nothing written within the block, in which files are copied."""
        with contextlib.ExitStack() as held:
            for feed in self._feeds:
                held.enter_context(feed.sending)
            yield

    def close(self, patience_s: float) -> None:
        """Send what is left, for at most `patience_s` seconds in all."""
        self.complete()
        end = time.monotonic() + patience_s
        for feed in self._feeds:
            feed.close(max(end - time.monotonic(), 0.1))
        self._feeds = []
        board, self._board = self._board, None
        if board is not None:
            board.close()

    def _keep_media(self, record: Mapping[str, Any]) -> dict[str, Path]:
        """Write images [H, W, C] as .png and animations [T, H, W, C] as .gif, and return their paths by tag."""
        folder = self._folder / SAMPLES
        folder.mkdir(parents=True, exist_ok=True)
        media = {}
        for name, pixels in record["images"].items():
            slug = re.sub(r"\W+", "-", name)
            kind = "gif" if pixels.ndim == 4 else "png"
            path = folder / f"stage{record['stage']}-{slug}-{record['overall_step']:08d}.{kind}"
            path.write_bytes(encode(pixels))
            media[f"stage {record['stage']}/{name}"] = path
        return media


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """Return an image uint8 [H, W, C] as PNG, or an animation uint8 [T, H, W, C] as GIF."""
    buffer, frames = io.BytesIO(), pixels if pixels.ndim == 4 else pixels[None]
    first, *others = [Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame) for frame in frames]
    if pixels.ndim == 3:
        first.save(buffer, "PNG")
    else:
        first.save(buffer, "GIF", save_all=True, append_images=others, duration=round(1000 * FRAME_S), loop=0)
    return buffer.getvalue()
