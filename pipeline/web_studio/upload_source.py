"""What the sandboxed process does with an upload: check it against the limits, and read one clip."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from cluster.errors import UserError
from pipeline.generation.user_clips import read_clips
from preprocessing.clip import Clip, Factors, Item, RejectedInputError
from preprocessing.decoding.input_file import open_input
from preprocessing.decoding.video import VideoReader

STILL = "still"
"""Detail of an input that may be a picture."""
NUMPY, ZIP = b"\x93NUMPY", b"PK\x03\x04"


@dataclass(frozen=True)
class UploadForm:
    """The form of the clips that the model needs, and the limits of uploads."""

    size: int
    channels: int
    clip_frames: int
    fps: float | None
    max_pixels: int
    max_seconds: float

    def to_text(self) -> str:
        """Return it as the argument of `open_uploads`."""
        return json.dumps(asdict(self))


class UploadSource:
    """Reads uploads; the source of the process that decodes them."""

    untrusted = True

    def __init__(self, form: UploadForm) -> None:
        self.vocabulary: dict[str, list[str]] = {}
        self.factors: Factors = {}
        self._form = form

    def items(self) -> list[Item]:
        """Return nothing: the uploads come one by one."""
        return []

    def fingerprint(self) -> str:
        """Return an empty text: nothing is stored of uploads."""
        return ""

    def clips(self, item: Item) -> Iterator[Clip]:
        """Yield the clip of one file.

        Raises:
            UserError: the file is not a clip that can be read.
            RejectedInputError: it is beyond a limit.
        """
        form, path = self._form, Path(item.local)
        with path.open("rb") as file:
            head = file.read(8)
        if head.startswith((NUMPY, ZIP)):  # `read_clips` goes by the ending
            path = path.rename(path.with_suffix(".npy" if head.startswith(NUMPY) else ".npz"))
        else:
            self._check(path)
        try:
            found = read_clips(
                str(path),
                size=form.size,
                channels=form.channels,
                min_frames=form.clip_frames,
                fps=form.fps,
                still_frames=form.clip_frames if item.detail == STILL else None,
            )
        except UserError as error:
            raise UserError(_as_upload(str(error), str(path))) from error
        rate = float(found.fps[0]) if len(found.fps) else form.fps or 1.0
        yield Clip(
            key=item.key, frames=found.frames(0)[: form.clip_frames], labels={}, identity=item.key, source="upload",
            start_s=0.0, fps=rate,
        )  # fmt: skip

    def _check(self, path: Path) -> None:
        form = self._form
        try:
            with Image.open(path) as image:
                if image.width * image.height > form.max_pixels:
                    raise RejectedInputError("it is too large", f"{image.width}x{image.height}, {self._largest}")
                if not getattr(image, "is_animated", False):
                    return
        except Image.DecompressionBombError:
            raise RejectedInputError("it is too large", self._largest) from None
        except (OSError, ValueError, SyntaxError):
            pass  # no picture
        with open_input(str(path)) as file, VideoReader(file, max_pixels=form.max_pixels) as video:
            if video.seconds is not None and video.seconds > form.max_seconds:
                raise RejectedInputError("it is too long", f"{video.seconds:.0f} s, at most {form.max_seconds:.0f}")

    @property
    def _largest(self) -> str:
        return f"at most {self._form.max_pixels} pixels a frame"


def open_uploads(serialized: str) -> UploadSource:
    """Return the source of an `UploadForm` as text."""
    return UploadSource(UploadForm(**json.loads(serialized)))


def _as_upload(message: str, path: str) -> str:
    """Return a message about a file as one about an upload, which has no path and is no option of a command."""
    return message.replace(f"{path}: ", "").replace(path, "it").replace(", or give it to --static-of", "")
