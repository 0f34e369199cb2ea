"""The state of a running sweep: a live table in a terminal, elsewhere a log line per interval."""

import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from cluster.cli.progress import fit_log_line, format_duration
from cluster.storage import api as storage
from pipeline.tuning.parameter_names import current_params
from pipeline.tuning.study import ERROR, RUN, finished_trials, ranked_trials

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial
    from rich.console import Group

    from pipeline.tuning.trial import SweepContext

log = logging.getLogger(__name__)

REFRESH_S = 2.0
"""Seconds between updates of the table in a terminal."""
LOG_S = 30.0
"""Seconds between log lines if stderr is not a terminal."""
MAX_ROWS = 8
"""Maximum number of running trials, and of complete ones, in the table."""


class LiveTable:
    """Shows the trials of one round, a context manager.

    Args:
        study: the study of the round.
        context: what the trials share.
        trials: number of trials that the round ends with.
        title: title of the round, such as `phase 2 of 2: trials`.
        clock: returns the seconds of a monotonic clock.
    """

    def __init__(
        self,
        study: "Study",
        context: "SweepContext",
        trials: int,
        title: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._study, self._context, self._trials, self._title = study, context, trials, title
        self._clock = clock
        self._started, self._shown = clock(), float("-inf")
        self._finished_before = len(finished_trials(study))
        self._live: Any = None

    def __enter__(self) -> "LiveTable":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            # No markup: values may contain what rich would read as such.
            console = Console(stderr=True, markup=False, highlight=False)
            if not console.is_dumb_terminal:
                self._live = Live(console=console, auto_refresh=False, redirect_stdout=sys.stdout.isatty())
                self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._show()
        if self._live is not None:
            self._live.stop()

    def refresh(self) -> None:
        """Redraw the state if the interval has passed."""
        interval = LOG_S if self._live is None else REFRESH_S
        if self._clock() - self._shown >= interval:
            self._show()

    def _show(self) -> None:
        self._shown = self._clock()
        if self._live is not None:
            self._live.update(self.table(), refresh=True)
        else:
            log.info("%s", fit_log_line(self.line()))

    def line(self) -> str:
        """Return `phase 2 of 2: trials: 3/20 (15%), 2 running, 12 min 05 s left, best elbo 0.4 (trial 1)`."""
        finished, ranked = finished_trials(self._study), ranked_trials(self._study)
        failed = sum(ERROR in trial.user_attrs for trial in finished)
        parts = [f"{len(finished)}/{self._trials} ({100 * len(finished) // self._trials}%)"]
        parts += [f"{failed} failed"] if failed else []
        parts.append(f"{len(self._running())} running")
        seconds, gained = self._clock() - self._started, len(finished) - self._finished_before
        if gained and len(finished) < self._trials:
            parts.append(f"{format_duration(seconds / gained * (self._trials - len(finished)))} left")
        else:
            parts.append(f"{format_duration(seconds)} elapsed")
        if ranked:
            names = self._context.sweep.objectives
            scores = ", ".join(f"{name} {value:.4f}" for name, value in zip(names, ranked[0].values, strict=True))
            parts.append(f"best {scores} (trial {ranked[0].number})")
        return f"{self._title}: {', '.join(parts)}"

    def table(self) -> "Group":
        """Return the state, then the running trials with their progress and the best complete ones."""
        from rich.console import Group
        from rich.table import Table

        names = self._context.sweep.objectives
        table = Table()
        for column in ("trial", "state", *names, "values"):
            table.add_column(column, justify="right" if column in ("trial", *names) else "left")
        for trial in self._running()[:MAX_ROWS]:
            table.add_row(str(trial.number), self._progress(trial), *("" for _ in names), _values(trial))
        for trial in ranked_trials(self._study)[:MAX_ROWS]:
            scores = [f"{value:.4f}" for value in trial.values]
            table.add_row(str(trial.number), "complete", *scores, _values(trial))
        return Group(self.line(), table)

    def _running(self) -> "list[FrozenTrial]":
        from optuna.trial import TrialState

        return self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def _progress(self, trial: "FrozenTrial") -> str:
        """Return the stage and step of a trial if the log of its run is on this disk."""
        url = self._context.run_url(trial.user_attrs.get(RUN, ""))
        if storage.is_remote(url):
            return "running"
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
            last = json.loads((Path(url) / "metrics.jsonl").read_bytes().splitlines()[-1])
            return f"stage {last['stage']}, step {last['step']}"
        return "starting"


def _values(trial: "FrozenTrial") -> str:
    return ", ".join(f"{path.rpartition('.')[2]} {_short(value)}" for path, value in current_params(trial).items())


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
