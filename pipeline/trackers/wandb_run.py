"""Weights & Biases: its server (`WANDB_API_KEY` or `wandb login`), or offline files (`WANDB_MODE=offline`).

Offline files are in the folder of the run, a folder `offline-run-*` for each time that the training was started; none
repeats a step of another. `wandb sync` uploads them.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

from cluster.errors import UserError, first_line
from pipeline.trackers.tracker import PROJECT, Row, TrackedRun

_BLOCK, _HEADER, _FILE_HEADER = 32_768, 7, 7
"""Bytes of a block of a .wandb file (LevelDB's log format), of the header of each piece in it, and of the file's."""
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


class WandbRun:
    """A run of Weights & Biases with the id of the run, resumed if it exists.

    Raises:
        UserError: it does not respond, or refuses it.
    """

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        self._folder = Path(os.environ.get("WANDB_DIR") or run.folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._image, self._video, self._artifact = wandb.Image, wandb.Video, wandb.Artifact
        # Neither code, command lines of other tools, nor the address of a repository are sent.
        quiet = wandb.Settings(console="off", disable_code=True, disable_git=True, silent=True)
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                id=run.id,
                name=run.name,
                dir=str(self._folder),
                config=dict(run.settings),
                resume="allow",
                reinit="create_new",
                settings=quiet,
            )
        except Exception as error:  # of several kinds, without a common one
            raise UserError(
                f"wandb: {first_line(error):.200}; log in with `wandb login`, set WANDB_MODE=offline, or leave wandb "
                "out of training.trackers"
            ) from None
        self._newest = max([self._run.step - 1 if self._run.resumed else -1, *offline_steps(self._folder, run.id)])

    def newest(self, series: str) -> int:
        """Return the newest step. A row has all series."""
        return self._newest

    def add(self, row: Row) -> None:
        """Send a row. Rows up to the newest are refused by Weights & Biases, and not sent."""
        self._run.log(row.values(self._image, self._video), step=row.step, commit=True)
        self._newest = row.step

    def file(self, path: Path) -> None:
        """Keep a file as a version of an artefact."""
        artifact = self._artifact(f"{path.stem}-{self._run.id}", type="evaluation")
        artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def close(self) -> None:
        """Send what is buffered."""
        self._run.finish()


def offline_steps(folder: Path, run_id: str) -> Iterator[int]:
    """Yield the steps in the offline files of a run, in the order of each file."""
    from wandb.proto.wandb_internal_pb2 import Record

    for path in sorted(folder.glob(f"wandb/offline-run-*-{run_id}/run-{run_id}.wandb")):
        for content in read_records(path):
            record = Record()
            try:
                record.ParseFromString(content)
            except Exception:  # a class of the installed protobuf; the end of a damaged file
                break
            if record.WhichOneof("record_type") == "history":
                yield int(record.history.step.num)


def read_records(path: Path) -> Iterator[bytes]:
    """Yield the records of a .wandb file, up to its end or the first that is torn, as a killed process leaves them."""
    content, offset, parts = path.read_bytes(), _FILE_HEADER, b""
    while offset + _HEADER <= len(content):
        if (rest := _BLOCK - offset % _BLOCK) < _HEADER:
            offset += rest
            continue
        _, length, kind = struct.unpack_from("<IHB", content, offset)
        begin = offset + _HEADER
        if kind not in (_FULL, _FIRST, _MIDDLE, _LAST) or begin + length > len(content):
            return
        parts = content[begin : begin + length] if kind in (_FULL, _FIRST) else parts + content[begin : begin + length]
        if kind in (_FULL, _LAST):
            yield parts
        offset = begin + length
