"""From a request to results: check it, measure with progress on stderr, and return the metrics."""

from typing import TYPE_CHECKING, Any, Protocol

from cluster.cli.progress import ProgressDisplay
from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.lock import output_lock
from pipeline.evaluation.inputs import use_all_cpus
from pipeline.evaluation.request import EvaluationRequest

if TYPE_CHECKING:
    from vdsm.evaluation.progress import Progress


class Evaluation(Protocol):
    """A checked evaluation, of a run or of samples."""

    @property
    def request(self) -> EvaluationRequest:
        """What was requested."""

    @property
    def phases(self) -> int:
        """Number of phases of progress that `execute` starts."""

    def describe(self) -> str:
        """Return what would be measured, in one line."""

    def execute(self, progress: "Progress") -> dict[str, Any]:
        """Measure, write metrics.json and report.html, and return what metrics.json holds."""


def prepare(request: EvaluationRequest) -> Evaluation:
    """Return the requested evaluation after checking everything that can be checked before the work.

    Raises:
        UserError: the run, the samples or the data are missing or damaged, or do not belong together.
    """
    # Torch takes seconds to import, which --help and invalid options should not wait for.
    if request.run is not None and request.samples is None:
        if request.system is not None:
            raise UserError(f"--system {request.system} names the system that made samples; leave it out for a run")
        from pipeline.evaluation.run import prepare_run

        return prepare_run(request.run, request)
    if request.samples is not None and request.run is None:
        from pipeline.evaluation.samples import prepare_samples

        with ProgressDisplay(1) as progress:
            return prepare_samples(request.samples, request, progress)
    raise UserError("give --run, a folder of `vdsm train`, or --samples, clips of another system; not both")


def execute(evaluation: Evaluation) -> dict[str, Any]:
    """Run an evaluation on all CPUs of this process, show its progress, and return what metrics.json holds.

    Raises:
        UserError: another process writes into the same folder.
    """
    use_all_cpus()
    with output_lock(evaluation.request.out), ProgressDisplay(evaluation.phases) as progress:
        return evaluation.execute(progress)


def result_text(metrics: dict[str, Any], out: str) -> str:
    """Return the table of results and the files that were written to `out`, as text for a terminal."""
    from pipeline.report.table import text_table

    files = {"metrics": "metrics.json", "report": "report.html"}
    lines = [f"{name + ':':<9}{storage.join(out, file)}\n" for name, file in files.items()]
    return text_table(metrics) + "".join(lines)
