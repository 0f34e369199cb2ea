"""The state of a sweep while it runs: a live table in a terminal, elsewhere a line now and then."""

import contextlib
import json
import logging
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from cluster.storage import api as storage
from pipeline.tuning.study import ERROR, RUN, complete, settled

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial
    from rich.table import Table

    from pipeline.tuning.trial import SweepContext

log = logging.getLogger(__name__)

EVERY_S = 2.0
"""Seconds between looks at the study in a terminal."""
LINE_S = 30.0
"""Seconds between log lines where there is no terminal."""
SHOWN = 8
"""Trials in the table: those that run, then the best."""


class Board:
    """Shows how a round goes."""

    def __init__(self, study: "Study", setting: "SweepContext", trials: int) -> None:
        self._study, self._setting, self._trials = study, setting, trials
        self._began, self._seen, self._said = time.monotonic(), 0.0, 0.0
        self._before = len(settled(study))
        self._live: Any = None

    def __enter__(self) -> "Board":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), auto_refresh=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._seen = self._said = 0.0
        self.refresh()
        if self._live is not None:
            self._live.stop()

    def refresh(self) -> None:
        """Look at the study, if the last look is long ago."""
        now = time.monotonic()
        if self._live is not None and now - self._seen >= EVERY_S:
            self._seen = now
            self._live.update(self.table(), refresh=True)
        elif self._live is None and now - self._said >= LINE_S:
            self._said = now
            log.info("%s", self.line())

    def line(self) -> str:
        """Trials done and running, the best so far, the time left."""
        done, best = settled(self._study), complete(self._study)
        failed = sum(ERROR in one.user_attrs for one in done)
        text = f"{len(done)} of {self._trials} trials{f' ({failed} failed)' if failed else ''}"
        text += f", {len(self._running())} running"
        if best:
            names = self._setting.sweep.names
            values = ", ".join(f"{name} {value:.4f}" for name, value in zip(names, best[0].values, strict=True))
            text += f", best {values} (trial {best[0].number})"
        gone = len(done) - self._before
        if gone and len(done) < self._trials:
            left = (time.monotonic() - self._began) / gone * (self._trials - len(done))
            text += f", about {left / 60:.0f} min left"
        return text

    def table(self) -> "Table":
        """The trials that run, with how far they are, and the best ones."""
        from rich.table import Table

        names = self._setting.sweep.names
        table = Table(title=self.line(), title_justify="left")
        for column in ("trial", "state", *names, "values"):
            table.add_column(column, justify="right" if column in ("trial", *names) else "left")
        for trial in self._running()[:SHOWN]:
            table.add_row(str(trial.number), self._progress(trial), *("" for _ in names), _values(trial))
        for trial in complete(self._study)[:SHOWN]:
            scores = [f"{value:.4f}" for value in trial.values]
            table.add_row(str(trial.number), "done", *scores, _values(trial))
        return table

    def _running(self) -> "list[FrozenTrial]":
        from optuna.trial import TrialState

        return self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def _progress(self, trial: "FrozenTrial") -> str:
        """How far the run of a trial is, where its log is on this disk."""
        url = self._setting.run_url(trial.user_attrs.get(RUN, ""))
        if storage.is_s3(url):
            return "running"
        with contextlib.suppress(OSError, ValueError, IndexError, KeyError):
            last = json.loads((Path(url) / "metrics.jsonl").read_bytes().splitlines()[-1])
            return f"stage {last['stage']}, step {last['step']}"
        return "starting"


def _values(trial: "FrozenTrial") -> str:
    return ", ".join(f"{path.rpartition('.')[2]} {_short(value)}" for path, value in trial.params.items())


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
