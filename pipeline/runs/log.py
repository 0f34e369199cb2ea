"""What the driver keeps and shows of a run: metrics.jsonl, events.jsonl, TensorBoard, the progress line."""

import json
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from cluster.storage import api as storage
from cluster.storage.errors import UnreachableError
from pipeline.training.job import TrainPosition

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

_TAGS = {
    "loss": "loss/annealed",
    "reconstruction": "loss/reconstruction",
    "kl_static": "kl/static",
    "kl_pose": "kl/pose",
    "kl_dynamics": "kl/dynamics",
    "static_consistency": "regulariser/static_consistency",
    "dynamics_consistency": "regulariser/dynamics_consistency",
    "pose_distillation": "regulariser/pose_distillation",
    "weight_static": "weight/static",
    "weight_pose": "weight/pose",
    "weight_dynamics": "weight/dynamics",
    "temperature": "weight/temperature",
    "learning_rate": "optimiser/learning_rate",
    "gradient_norm": "optimiser/gradient_norm",
    "clips_per_s": "speed/clips_per_s",
    "data_wait_share": "speed/data_wait_share",
    "memory_gb": "speed/memory_gb",
}
CLOSING_PATIENCE_S = 60.0
"""For how long the last upload of the logs is tried while storage is unreachable."""


class RunLog:
    """Takes the records of the workers, in order.

    A run in S3 is logged to a local folder, which is uploaded with every checkpoint and at the end.
    """

    def __init__(self, run_url: str, total_steps: int, stage1_steps: int, stream: TextIO | None = None) -> None:
        self._url, self._stage1_steps = run_url, stage1_steps
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        if storage.is_s3(run_url):
            self._scratch = tempfile.TemporaryDirectory()
        self._folder = Path(self._scratch.name if self._scratch else run_url)
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._scratch:
            for name in ("metrics.jsonl", "events.jsonl"):
                if storage.exists(storage.join(run_url, name)):
                    storage.download(storage.join(run_url, name), self._folder / name)
        self._board: SummaryWriter | None = None
        self._line = ProgressLine(total_steps, stream or sys.stderr)

    def take(self, record: Mapping[str, Any]) -> None:
        """Keeps and shows one record: `train`, `validation`, `pictures`, `checkpoint` or `event`, by its `kind`."""
        kind = record["kind"]
        if kind == "event":
            self._take_event(record)
        elif kind == "checkpoint":
            try:
                self._upload()
            except UnreachableError as error:  # they come with the next checkpoint
                self.note(f"logs not uploaded: {error}")
        elif kind == "pictures":
            self._show(record)
        else:
            self._append("metrics.jsonl", record)
            self._plot(record)
            self._line.show(record)

    def note(self, text: str) -> None:
        """Says something to the user, below the progress line."""
        self._line.end()
        logger.info("%s", text)

    def event(self, event: str, **details: Any) -> None:
        """Keeps an event of the driver's own."""
        self._append(
            "events.jsonl", {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "event": event, **details}
        )

    def close(self) -> None:
        """Ends the progress line and uploads what is left."""
        self._line.end()
        if self._board is not None:
            self._board.close()
            self._board = None
        storage.patiently(self._upload, CLOSING_PATIENCE_S)

    def _take_event(self, record: Mapping[str, Any]) -> None:
        details = {name: value for name, value in record.items() if name not in ("kind", "event")}
        self._line.end()
        if record["event"] in ("start", "resume"):
            place = TrainPosition(record["stage"], record["step"])
            self._rewind(place)
            if place.step or place.stage > 1:
                logger.info("going on from %s", place)
        elif record["event"] == "failure":
            logger.warning("a worker failed (%s); its group starts again from the last checkpoint", record["error"])
        elif record["event"] == "divergence":
            logger.warning("%s", record["error"])
        elif record["event"] == "rollback":
            place = TrainPosition(record["stage"], record["step"])
            self._rewind(place)
            factor = record["rate_factor"]
            logger.warning("back to %s, with %g of the learning rate (rollback %d)", place, factor, record["number"])
        elif record["event"] == "preemption notice":
            place = TrainPosition(record["stage"], record["step"])
            logger.warning("a machine will be taken away; saved a checkpoint at %s", place)
        self.event(record["event"], **details)

    def _rewind(self, place: TrainPosition) -> None:
        """Forgets what was logged after `place`: those steps will be taken again."""
        path = self._folder / "metrics.jsonl"
        if path.exists():
            lines = path.read_text().splitlines()
            kept = [line for line in lines if (record := _parsed(line)) and (record["stage"], record["step"]) <= place]
            storage.write_bytes(str(path), "".join(f"{line}\n" for line in kept).encode())
        if self._board is not None:
            self._board.close()
        from torch.utils.tensorboard import SummaryWriter

        overall = place.step + (self._stage1_steps if place.stage == 2 else 0)
        self._board = SummaryWriter(str(self._folder / "tensorboard"), purge_step=overall + 1)

    def _append(self, name: str, record: Mapping[str, Any]) -> None:
        with (self._folder / name).open("a") as file:
            file.write(json.dumps(dict(record)) + "\n")

    def _plot(self, record: Mapping[str, Any]) -> None:
        if self._board is None:
            return
        prefix = "validation/" if record["kind"] == "validation" else ""
        tags = {"elbo": "elbo", **_TAGS} if prefix else _TAGS
        for name, tag in tags.items():
            if name in record:
                self._board.add_scalar(prefix + tag, record[name], record["overall_step"])
        self._board.flush()

    def _show(self, record: Mapping[str, Any]) -> None:
        if self._board is None:
            return
        for name, picture in record["pictures"].items():
            tag = f"stage {record['stage']}/{name}"
            self._board.add_image(tag, picture, record["overall_step"], dataformats="HWC")
        self._board.flush()

    def _upload(self) -> None:
        if self._scratch is None:
            return
        for path in self._folder.rglob("*"):
            if path.is_file():
                storage.upload(path, storage.join(self._url, path.relative_to(self._folder).as_posix()))


def _parsed(line: str) -> dict[str, Any] | None:
    """A line of a log; none for the broken last line of a process that was killed."""
    try:
        record: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return record


class ProgressLine:
    """One line that is rewritten in a terminal, as much of it as fits; elsewhere a line every ten seconds and at the
    end of each stage."""

    def __init__(self, total_steps: int, stream: TextIO) -> None:
        self._total, self._stream = total_steps, stream
        self._live = stream.isatty()
        self._open = False
        self._printed_at = float("-inf")
        self._elbo = ""

    def show(self, record: Mapping[str, Any]) -> None:
        """Shows a `train` record; of a `validation` record the ELBO stands on the line from then on."""
        if record["kind"] == "validation":
            self._elbo = f"  validation ELBO {record['elbo']:.4f}"
            return
        text = self._text(record)
        if self._live:
            # What does not fit would move to a second line, which cannot be rewritten.
            self._stream.write(f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}")
            self._open = True
        elif time.monotonic() - self._printed_at >= 10 or record["step"] == record["steps"]:
            self._stream.write(f"{text}\n")
            self._printed_at = time.monotonic()
        self._stream.flush()

    def end(self) -> None:
        """Leaves the line as it stands."""
        if self._open:
            self._stream.write("\n")
            self._stream.flush()
            self._open = False

    def _text(self, record: Mapping[str, Any]) -> str:
        left_s = (self._total - record["overall_step"]) * record["seconds_per_step"]
        parts = [
            f"stage {record['stage']}  {record['step']}/{record['steps']}  {record['clips_per_s']:.0f} clips/s",
            f"{duration(left_s)} left",
            f"loss {record['loss']:.4f}",
            f"KL static {record['kl_static']:.5f} pose {record['kl_pose']:.5f} dynamics {record['kl_dynamics']:.5f}"
            + self._elbo,
            f"waiting for data {record['data_wait_share']:.1%}",
            f"reconstruction {record['reconstruction']:.4f}",
            f"weights static {record['weight_static']:.3g} pose {record['weight_pose']:.3g} "
            f"dynamics {record['weight_dynamics']:.3g} temperature {record['temperature']:.3g}",
            f"rate {record['learning_rate']:.2g}",
            f"gradient {record['gradient_norm']:.3g}",
            f"{record['memory_gb']:.1f} GB per worker",
        ]
        return "  ".join(parts)


def duration(seconds: float) -> str:
    """Such as `42s`, `3m 20s`, `5h 07m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
