"""Write the model of a run as an exported folder, see `vdsm.model_folder`, with a model card and a sample animation."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import UserError, first_line
from cluster.extras import require
from cluster.storage import api as storage
from cluster.storage.errors import MissingFileError
from cluster.storage.fence import LOCK
from cluster.storage.lock import output_lock
from cluster.storage.scratch import scratch_folder
from pipeline.evaluation.inputs import check_data, use_all_cpus
from pipeline.evaluation.schema import Metrics
from pipeline.exports import card
from pipeline.exports.onnx_files import ONNX_FILES, write_onnx
from pipeline.exports.programs import PROGRAMS, write_programs
from pipeline.exports.request import ExportRequest
from pipeline.generation.execute import prepare as prepare_generation
from pipeline.generation.request import GenerationRequest
from pipeline.models.find import facts_of
from pipeline.report.animation import median_fps
from pipeline.runs.store import LoadedRun, load_run
from preprocessing.dataset.reader import ClipDataset
from vdsm.evaluation.progress import Progress
from vdsm.model_folder import CARD, CONFIG, SAMPLE, WEIGHTS, ModelFacts, read_model_folder, write_model_folder

logger = logging.getLogger(__name__)

MAX_METRICS_BYTES = 1 << 26
"""Largest accepted metrics.json."""
FILES = (WEIGHTS, SAMPLE, CARD, *PROGRAMS, *ONNX_FILES, CONFIG)
"""Files of an export, in the order in which they are written: the last one makes it complete."""


@dataclass(frozen=True)
class ExportWork:
    """A checked request, ready to execute."""

    request: ExportRequest
    loaded: LoadedRun
    facts: ModelFacts
    metrics: Metrics | None
    data_name: str
    """Name of the dataset, without the folder that it was in."""

    @property
    def names(self) -> list[str]:
        """Names of the files to write, in this order."""
        left_out = set() if self.request.programs else set(PROGRAMS)
        left_out |= set() if self.request.onnx else set(ONNX_FILES)
        if not self._shows_something:
            left_out.add(SAMPLE)
        return [name for name in FILES if name not in left_out]

    @property
    def urls(self) -> list[str]:
        """URLs of the files to write."""
        return [storage.join(self.request.out, name) for name in self.names]

    @property
    def phases(self) -> int:
        """Number of phases of progress that `execute` starts."""
        return (
            1
            + self.request.programs
            + self.request.onnx
            + (0 if not self._shows_something else 1 if self.request.data is None else 2)
        )

    @property
    def _shows_something(self) -> bool:
        return self.facts.sequence_stage or self.request.data is not None

    def execute(self, progress: Progress) -> Iterator[str]:
        """Write each file; yield its URL once it is written.

        Raises:
            UserError: a weight does not fit half precision, or another process writes into the same folder.
        """
        use_all_cpus()
        request, model = self.request, self.loaded[0]
        with output_lock(request.out), scratch_folder() as folder:
            progress.start("writing the weights")
            try:
                write_model_folder(folder, model, self.facts, dtype="float16" if request.half else "float32")
                stored, _ = read_model_folder(folder)
            except ValueError as error:
                raise UserError(f"{request.run}: {error}") from None
            if request.programs:
                progress.start("writing programs of torch.export")
                write_programs(folder, stored, self.facts)
            if request.onnx:
                progress.start("writing ONNX files")
                difference = write_onnx(folder, stored, self.facts)
                logger.info("ONNX files: numbers differ from the model's by at most %.2g", difference)
            if self._shows_something:
                self._animate(folder, progress)
            text = card.text(
                self._name, self.facts, stored, self.loaded[1], self.metrics, data=self.data_name,
                license_id=request.license, files=self.names,
            )  # fmt: skip
            (folder / CARD).write_text(text)
            for name, url in zip(self.names, self.urls, strict=True):
                storage.upload(folder / name, url)
                yield url
            for name in set(FILES) - set(self.names):  # of an earlier export
                storage.delete(storage.join(request.out, name))

    @property
    def _name(self) -> str:
        return self.request.name or Path(self.request.run.rstrip("/")).name or "model"

    def _animate(self, folder: Path, progress: Progress) -> None:
        """Draw what the exported model generates, as stored."""
        wanted = GenerationRequest(
            model=str(folder), out=str(folder / SAMPLE), data=self.request.data, seed=self.request.seed, rows=4,
            columns=6, scale=2, what="samples" if self.request.data is None else "transfer",
            prior="fitted" if self.loaded[0].fitted_priors else "published",
        )  # fmt: skip
        for _ in prepare_generation(wanted).execute(progress):
            pass


def prepare(request: ExportRequest) -> ExportWork:
    """Load the model, the metrics and the data, and check that they belong together.

    Raises:
        UserError: see `pipeline.export.export`; or a library for ONNX is not installed.
    """
    if request.onnx:
        for module in ("onnx", "onnxscript", "onnxruntime"):
            require(module)
    loaded = model, _, origin = load_run(request.run)
    fps, data_name = None, Path(str(origin["data"]).rstrip("/")).name
    if request.data is not None:
        test = ClipDataset(request.data, "test")
        check_data(test, model.config, request.run, origin, other_data=False)
        fps, data_name = median_fps(test), f"{data_name}, source {test.source['name']}"
    metrics = _read_metrics(request.metrics, str(origin["checkpoint_sha256"])) if request.metrics is not None else None
    _check_out(request.out)
    storage.check_writable(request.out)
    return ExportWork(request, loaded, facts_of(loaded, fps), metrics, data_name)


def _check_out(out: str) -> None:
    """Raise UserError if a folder holds something other than an exported model."""
    if not storage.is_remote(out) and not Path(out).is_dir():
        return
    if foreign := sorted(set(storage.list_files(out)) - set(FILES) - {".gitattributes", LOCK}):
        raise UserError(f"{out}: holds {foreign[0]}, which is not part of an exported model; choose another --out")


def _read_metrics(url: str, checkpoint_sha256: str) -> Metrics:
    """Return metrics of the checkpoint with a given hash.

    Raises:
        UserError: the file is missing, not of this version, or of another checkpoint.
    """
    path = url if url.endswith(".json") else storage.join(url, "metrics.json")
    try:
        content = storage.read_range(path, 0, MAX_METRICS_BYTES + 1)
        if len(content) > MAX_METRICS_BYTES:
            raise UserError(f"{path}: has more than {MAX_METRICS_BYTES:,} bytes, which is the limit")
        metrics = Metrics.model_validate_json(content)
    except MissingFileError:
        raise UserError(f"{path}: there are no metrics here; run `vdsm evaluate` first") from None
    except ValueError as error:
        raise UserError(
            f"{path}: is not a metrics.json of this version ({first_line(error)}); evaluate the run again"
        ) from None
    if metrics.provenance.checkpoint_sha256 != checkpoint_sha256:
        raise UserError(f"{path}: was measured on another checkpoint than the run's newest; evaluate the run again")
    return metrics
