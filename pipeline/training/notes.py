"""What a user should know of settings that work, but not as one may expect: printed before a training starts."""

from collections.abc import Iterator

from pipeline.training.config import TrainingConfig
from vdsm.device import CPU
from vdsm.float_formats import SLOW_BF16, has_fast_bf16


def notes_on(training: TrainingConfig) -> Iterator[str]:
    """Yield one line on each such setting."""
    for number in training.selected_stages:
        stage, workers = training.stage(number), training.num_workers
        together = stage.samples_together
        groups, rest = divmod(stage.batch_clips // together, workers)
        if rest:
            least, most = groups * together, (groups + 1) * together
            yield (
                f"stage{number}.batch_clips is {stage.batch_clips}: of {workers} workers, {rest} take {most} "
                f"clips and the others {least}, and wait; {least * workers} or {most * workers} would be even"
            )
        if training.static_graph and not training.uses_static_graph(number):
            yield (
                f"static_graph is not used in stage {number}, whose accumulation is {stage.accumulation}: DDP fails "
                "with both"
            )
    if training.precision == "bf16" and not training.use_gpu and not has_fast_bf16(CPU):
        yield (
            f"precision is bf16, for which the CPU of this machine has no instructions: a step takes about {SLOW_BF16} "
            "times as long as in fp32; choose fp32, or auto"
        )
