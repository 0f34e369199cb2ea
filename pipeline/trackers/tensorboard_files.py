"""TensorBoard's event files, in the folder tensorboard/ of a run. They can be rewound, so no step is shown twice."""

import io
from pathlib import Path

from PIL import Image

from pipeline.trackers.tracker import Row


class TensorBoardFiles:
    """Writes rows as they come.

    Args:
        folder: for the files.
        step: what older files hold after this step is no longer shown; None: all of it is.
    """

    def __init__(self, folder: Path, step: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=None if step is None else step + 1)

    def add(self, row: Row) -> None:
        """Write a row, and flush it."""
        for tag, value in row.scalars.items():
            self._writer.add_scalar(tag, value, row.step)
        for tag, path in row.media.items():
            self._add_image(tag, path.read_bytes(), row.step)
        self._writer.flush()

    def _add_image(self, tag: str, content: bytes, step: int) -> None:
        """Write an encoded image; of a GIF, TensorBoard shows the animation."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
        shown = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=content)
        self._writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=shown)]), step)

    def close(self) -> None:
        """Write what is buffered."""
        self._writer.close()
