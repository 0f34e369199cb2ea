"""MLflow: a server (`MLFLOW_TRACKING_URI`), or files in the folder of the run."""

import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from cluster.errors import UserError, first_line
from pipeline.trackers.tracker import MEDIA, PROJECT, Row, TrackedRun

_ID_TAG = "vdsm.id"
_PARAMETERS_AT_ONCE = 100


class MlflowRun:
    """A run of MLflow, found by a tag with the id of the run, or made.

    Raises:
        UserError: MLflow does not respond, or refuses it.
    """

    def __init__(self, run: TrackedRun) -> None:
        # Recent versions write files only where asked to; databases need more packages.
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = (run.folder / "mlruns").as_uri()
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # `Feed` tries again
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        try:
            self._client = MlflowClient(tracking_uri=uri)
            self._id = self._find(run)
            self._client.update_run(self._id, status="RUNNING")
            text = yaml.safe_dump(dict(run.settings), sort_keys=False)
            self._client.log_text(self._id, text, "config.yaml")
        except (MlflowException, OSError) as error:
            raise UserError(
                f"mlflow: {first_line(error):.200}; check MLFLOW_TRACKING_URI, or leave mlflow out of training.trackers"
            ) from None

    def _find(self, run: TrackedRun) -> str:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else self._client.create_experiment(experiment)
        known = self._client.search_runs([number], filter_string=f"tags.`{_ID_TAG}` = '{run.id}'")
        if known:
            return str(known[0].info.run_id)
        from mlflow.entities import Param

        made = self._client.create_run(number, run_name=run.name, tags={_ID_TAG: run.id})
        parameters = [Param(name, str(value)[:500]) for name, value in _flat(run.settings)]
        for first in range(0, len(parameters), _PARAMETERS_AT_ONCE):
            self._client.log_batch(made.info.run_id, params=parameters[first : first + _PARAMETERS_AT_ONCE])
        return str(made.info.run_id)

    def newest(self, series: str) -> int:
        """Return the newest step of a series."""
        if series == MEDIA:
            names = [file.path for file in self._client.list_artifacts(self._id, "samples")]
            return max((int(found[1]) for name in names if (found := re.search(r"-(\d+)\.\w+$", name))), default=-1)
        return max((point.step for point in self._client.get_metric_history(self._id, series)), default=-1)

    def add(self, row: Row) -> None:
        """Send a row."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        for path in row.media.values():
            self._client.log_artifact(self._id, str(path), "samples")
        if metrics := [Metric(tag, value, now, row.step) for tag, value in row.scalars.items()]:
            self._client.log_batch(self._id, metrics=metrics)

    def file(self, path: Path) -> None:
        """Keep a file as an artefact of the run."""
        self._client.log_artifact(self._id, str(path), "evaluation")

    def close(self) -> None:
        """Mark the run as ended."""
        with contextlib.suppress(Exception):  # of no consequence: it says RUNNING then
            self._client.set_terminated(self._id)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
