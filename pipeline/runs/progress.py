"""The progress of a run on the display of its command."""

from collections.abc import Mapping
from typing import Any

from cluster.cli.progress import ProgressDisplay
from pipeline.training.config import TrainingConfig
from pipeline.training.position import TrainPosition


class TrainingProgress:
    """One phase per stage on the progress display, with the newest metrics as its note."""

    def __init__(self, training: TrainingConfig, position: TrainPosition) -> None:
        self._training, self._position = training, position
        self._stages = [s for s in training.selected_stages if position < TrainPosition(s, training.stage(s).steps)]
        self.display = ProgressDisplay(phases=len(self._stages))
        self._elbo = ""

    def start(self, note: str = "") -> None:
        """Start the phase of the current position, or restart its clock."""
        stage, step = self._position
        steps = self._training.stage(stage).steps
        if step >= steps and stage + 1 in self._stages:
            stage, step, steps = stage + 1, 0, self._training.stage(stage + 1).steps
        # A rollback can lead back to a stage that was finished before this process started.
        number = self._stages.index(stage) + 1 if stage in self._stages else 1
        self.display.start(f"training stage {stage}", steps, unit="steps", done=step, number=number)
        self.display.update(step, note=note)

    def rewind(self, position: TrainPosition) -> None:
        """Continue from `position`."""
        self._position = position
        self.start()

    def show(self, record: Mapping[str, Any]) -> None:
        """Show a `train` record; of a `validation` record, the ELBO is shown from then on."""
        position = TrainPosition(record["stage"], record["step"])
        if record["kind"] == "validation":
            self._elbo = f"validation ELBO {record['elbo']:.4f}"
            return
        if position.stage != self._position.stage:
            self._position, self._elbo = TrainPosition(position.stage, 0), ""
            self.start()
        self._position = position
        self.display.update(position.step, note=_note(record, self._elbo))


def _note(record: Mapping[str, Any], elbo: str) -> str:
    """Return the metrics of a `train` record in one line, the most important first, as the line may be cut off."""
    parts = [
        f"loss {record['loss']:.4f}",
        elbo,
        f"KL static {record['kl_static']:.5f} pose {record['kl_pose']:.5f} dynamics {record['kl_dynamics']:.5f}",
        f"waiting for data {record['data_wait_share']:.1%}",
        f"{record['clips_per_s']:.0f} clips/s",
        f"reconstruction {record['reconstruction']:.4f}",
        f"weights static {record['weight_static']:.3g} pose {record['weight_pose']:.3g} "
        f"dynamics {record['weight_dynamics']:.3g} temperature {record['temperature']:.3g}",
        f"learning rate {record['learning_rate']:.2g}",
        f"gradient norm {record['gradient_norm']:.3g}",
        f"{record['memory_gb']:.1f} GB per worker",
    ]
    return ", ".join(part for part in parts if part)
