"""Exported models between folders and the Hub, checked on either way."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from cluster.storage import api as storage
from cluster.storage.lock import output_lock
from cluster.storage.scratch import scratch_folder
from pipeline.models import hub
from pipeline.models.files import FILES, fetch_from_s3
from pipeline.models.find import read_folder
from pipeline.models.hub_request import PullRequest, PushRequest


def push_model(request: PushRequest, *, dry_run: bool) -> Iterator[str]:
    """Check an exported model and upload it; yield lines on what was done.

    Raises:
        UserError: the model is missing or damaged, or the Hub refuses it or does not respond.
    """
    model = hub.parse(request.to)
    with _local(request.model) as folder:
        read_folder(folder, request.model)
        names = [name for name in FILES if (folder / name).is_file()]
        if dry_run:
            yield from (f"would upload {name} to {model}" for name in names)
            return
        yield hub.push(folder, model, private=request.private, message=request.message)
    yield f"load it with vdsm.load({str(model)!r}), or vdsm generate --model {model}"


def pull_model(request: PullRequest, *, dry_run: bool) -> Iterator[str]:
    """Download a model, check it and write it to a folder; yield lines on what was done.

    Raises:
        UserError: there is no such model, it is damaged, the Hub does not respond, or another process writes into the
            same folder.
    """
    model = hub.parse(request.source)
    storage.check_writable(request.out)
    if dry_run:
        yield f"would download {model} to {request.out}"
        return
    with output_lock(request.out), scratch_folder() as folder:
        revision = hub.pull(model, folder)
        read_folder(folder, str(model))
        # The one that makes the folder complete comes last.
        for name in FILES:
            if (folder / name).is_file():
                storage.upload(folder / name, storage.join(request.out, name))
                yield storage.join(request.out, name)
    yield f"{model} at revision {revision}"


@contextlib.contextmanager
def _local(url: str) -> Iterator[Path]:
    """Return a folder as a local one."""
    if not storage.is_remote(url):
        yield Path(url)
        return
    with scratch_folder() as folder:
        fetch_from_s3(url, folder)
        yield folder
