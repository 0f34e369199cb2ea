"""Uploaded clips, decoded in sandboxed processes; the file of an upload exists while it is decoded."""

import contextlib
import queue
from collections.abc import Iterator
from typing import BinaryIO

from cluster.errors import UserError, one_line
from cluster.storage.scratch import scratch_folder
from pipeline.report.images import Frames
from pipeline.web_studio.settings import ModelFacts, StudioSettings
from pipeline.web_studio.upload_source import STILL, UploadForm, open_uploads
from preprocessing.clip import Item, RejectedInputError, TransientError
from preprocessing.decoding.sandbox import DecodeProcess, SandboxFailedError

PROCESSES = 2
"""Uploads that are decoded at the same time."""
CPU_SECONDS = 20
"""CPU time that an upload may take, in seconds; it may stand still for as long."""
MEMORY_MB = 1000
"""Memory that an upload may take, in MB."""
WAIT_S = 60.0
"""Time that an upload waits for a process, in seconds."""
_CHUNK = 1 << 20


class BusyError(Exception):
    """No process became free in time; the request can be repeated."""


class UploadReader:
    """Reads uploads in a few processes; may be called by several threads.

    Args:
        facts: form of the model's clips.
        settings: limits of uploads.
    """

    def __init__(self, facts: ModelFacts, settings: StudioSettings) -> None:
        form = UploadForm(
            facts.frame_size, facts.channels, facts.clip_frames, facts.fps, settings.max_pixels, settings.max_video_s
        )
        self._free: queue.SimpleQueue[DecodeProcess] = queue.SimpleQueue()
        for _ in range(PROCESSES):
            self._free.put(DecodeProcess(open_uploads, form.to_text(), cpu_seconds=CPU_SECONDS, memory_mb=MEMORY_MB))

    def warm_up(self) -> None:
        """Start one process, so that the first upload need not wait for it."""
        with self._process() as process:
            process.start()

    def read(self, file: BinaryIO, name: str, *, still: bool) -> Frames:
        """Return the clip in an upload: uint8 [T, H, W, C].

        Args:
            file: its bytes, from the start.
            name: name of the file, for messages.
            still: whether a picture is accepted.

        Raises:
            UserError: it is not a clip that can be read, or beyond a limit.
            BusyError: too many uploads wait.
        """
        name = one_line(name.replace("\\", "/").rpartition("/")[2])[:80] or "the file"
        with self._process() as process, scratch_folder("vdsm-upload-") as folder:
            path = folder / "upload"
            with path.open("wb") as copy:
                while part := file.read(_CHUNK):
                    copy.write(part)
            item = Item("upload", "test", 0, path="upload", detail=STILL if still else "", local=str(path))
            try:
                return self._decoded(process, item)
            except (UserError, RejectedInputError, TransientError) as error:
                text = str(error)
            except SandboxFailedError as failure:
                text = failure.reason
            raise UserError(f"{name}: {text}")

    @staticmethod
    def _decoded(process: DecodeProcess, item: Item) -> Frames:
        for last in (False, True):
            try:
                (clip,) = process.clips(item)
            except SandboxFailedError as failure:
                if failure.conclusive or last:
                    raise
            else:
                return clip.frames
        raise AssertionError("the second attempt returns or raises")

    @contextlib.contextmanager
    def _process(self) -> Iterator[DecodeProcess]:
        try:
            process = self._free.get(timeout=WAIT_S)
        except queue.Empty:
            raise BusyError(f"no upload could be read for {WAIT_S:.0f} s") from None
        try:
            yield process
        finally:
            self._free.put(process)

    def close(self) -> None:
        """End the processes that are not in use."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._free.get_nowait().close()
