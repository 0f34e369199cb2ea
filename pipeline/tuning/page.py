"""sweep.html: how the best settings were found, in one self-contained file that makes no network requests."""

import logging
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from cluster.storage import api as storage
from pipeline.report.animation import Animation, display_fps, make_animation, median_fps
from pipeline.report.grids import action_donors, identity_donors, transfer_grid
from pipeline.report.images import mosaic
from pipeline.report.page import fill
from pipeline.tuning.charts import draw_charts, plotly_script, short_names
from pipeline.tuning.parameter_names import current_params
from pipeline.tuning.study import ERROR, RUN, finished_trials, ranked_trials

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from pipeline.tuning.space import Space, Values
    from pipeline.tuning.trial import SweepContext

log = logging.getLogger(__name__)

MAX_ANIMATIONS = 3
"""Number of best trials whose action transfer is shown."""
MAX_ROWS = 30
"""Maximum number of trials in the table."""
MAX_IDENTITIES, MAX_ACTIONS = 8, 6
"""Columns and rows of an animation."""


class TrialRow(NamedTuple):
    """A row of the table of trials."""

    number: int
    scores: list[float]
    values: "Values"


def write_page(first: "Study", second: "Study | None", space: "Space", context: "SweepContext") -> str:
    """Write sweep.html into the folder of the sweep and return its URL.

    Args:
        first: the study of the first round.
        second: the study of the second round, if there was one; its trials are then the ranked ones.
        space: the searched settings.
        context: what the trials share.
    """
    ranked = ranked_trials(second or first)
    page = fill(
        "sweep.html.j2",
        {},
        title=first.study_name,
        sweep=context.sweep,
        objectives=context.sweep.objectives,
        counts={
            "complete": len(ranked_trials(first)),
            "failed": len(failures(first)),
            "second": len(ranked) if second else 0,
        },
        ranked=[TrialRow(trial.number, trial.values, current_params(trial)) for trial in ranked[:MAX_ROWS]],
        short=short_names(space),
        searched={path: parameter.describe() for path, parameter in space.parameters.items()},
        failed=failures(first) + (failures(second) if second else []),
        charts=draw_charts(first, space),
        correlation=rank_correlation(first, second) if second else None,
        animations=transfer_animations(ranked[:MAX_ANIMATIONS], context),
        plotly=plotly_script() if len(ranked_trials(first)) > 1 else "",
    )
    url = storage.join(context.url, "sweep.html")
    storage.write_bytes(url, page.encode())
    return url


def failures(study: "Study") -> list[tuple[int, str]]:
    """Return the number and the reason of each failed trial."""
    return [(trial.number, trial.user_attrs[ERROR]) for trial in finished_trials(study) if ERROR in trial.user_attrs]


def rank_correlation(first: "Study", second: "Study") -> str:
    """Return a sentence with the rank correlation (Spearman) of both rounds over the settings that ran in both."""
    pairs = []
    for trial in ranked_trials(second):
        for other in ranked_trials(first):
            if current_params(other) == current_params(trial):
                pairs.append((other.values[0], trial.values[0]))
                break
    if len(pairs) < 3:
        return f"{len(pairs)} settings ran in both rounds, too few to compare their ranks."
    ranks = np.argsort(np.argsort(np.array(pairs), axis=0), axis=0).astype(float)
    correlation = float(np.corrcoef(ranks.T)[0, 1])
    return f"{len(pairs)} settings ran in both rounds; rank correlation {correlation:.2f} (1: same order)."


def transfer_animations(ranked: "list[FrozenTrial]", context: "SweepContext") -> list[tuple[int, Animation]]:
    """Return the number and the action transfer of each trial. A run that cannot be read is left out."""
    animations = []
    for trial in ranked:
        try:
            animations.append((trial.number, transfer_animation(context.run_url(trial.user_attrs[RUN]), context)))
        except (ValueError, OSError, KeyError) as error:
            log.warning("no animation of trial %d: %s", trial.number, error)
    return animations


@torch.inference_mode()
def transfer_animation(run: str, context: "SweepContext") -> Animation:
    """Return action transfer between validation identities: actions from the first column, identities from the row."""
    from pipeline.runs.store import load_run
    from pipeline.tuning.validation_score import BATCH_CLIPS
    from pipeline.tuning.validation_split import split_as_training
    from preprocessing.dataset.reader import ClipDataset
    from vdsm.evaluation.model import encode_clips
    from vdsm.evaluation.outputs import SwapDecoder

    model, recipe, origin = load_run(run)
    clips = ClipDataset(context.data, "train")
    validation = split_as_training(clips, recipe, run).validation
    length = recipe.training.stage2.clip_frames
    actions, identities = action_donors(validation)[:MAX_ACTIONS], identity_donors(validation, MAX_IDENTITIES)
    decoder = SwapDecoder(model.eval(), encode_clips(model, validation, length, BATCH_CLIPS), length, BATCH_CLIPS)
    grid = transfer_grid(decoder, validation, actions, identities, origin["stage"] >= 2)
    frames = mosaic(grid, header_row=True, header_column=True)
    alt = "each row takes its action from the clip on the left, each column its identity from the clip above"
    return make_animation(frames, display_fps(median_fps(clips)), alt, recipe.model.frame_size)
