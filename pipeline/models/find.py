"""A model by the path, URL or name that a user gives: a run, an exported folder, a shipped model, or one of the Hub."""

from pathlib import Path
from typing import TYPE_CHECKING

from cluster.cli.paths import expand_home
from cluster.errors import UserError
from cluster.storage import api as storage
from cluster.storage.scratch import scratch_folder
from pipeline.models.files import CONFIG, REQUIRED, check_folder, fetch_from_s3
from pipeline.models.hub import PREFIX, pulled

if TYPE_CHECKING:
    from pipeline.runs.store import LoadedRun
    from vdsm.disentangler import Disentangler
    from vdsm.model_folder import ModelFacts


def open_model(source: str) -> "tuple[Disentangler, ModelFacts]":
    """Return the model at `source`, in evaluation mode on the CPU, and its facts.

    Args:
        source: folder of a run or of an exported model, local or in S3; hf://ORG/NAME; or the name of a shipped model.

    Raises:
        UserError: there is no model, or it is damaged.
    """
    from vdsm import loading
    from vdsm.model_folder import is_model_folder

    if source.startswith(PREFIX):
        with pulled(source) as folder:
            return read_folder(folder, source)
    url = expand_home(source)
    if storage.is_remote(url):
        return _open_s3(url)
    if is_model_folder(Path(url)):
        return read_folder(Path(url), url)
    if Path(url).exists():
        return run_model(url)
    if url in loading.shipped():
        return read_folder(loading.SHIPPED / url, url)
    known = ", ".join(loading.shipped()) or "none"
    raise UserError(f"{source}: there is no such folder, and no shipped model of this name (shipped: {known})")


def run_model(url: str) -> "tuple[Disentangler, ModelFacts]":
    """Return the newest model of a run, and its facts; see `pipeline.runs.store.load_run`."""
    from pipeline.runs.store import load_run

    loaded = load_run(url)
    return loaded[0], facts_of(loaded)


def facts_of(loaded: "LoadedRun", fps: float | None = None) -> "ModelFacts":
    """Return the facts of what `load_run` returned."""
    from vdsm.model_folder import ModelFacts

    _, recipe, origin = loaded
    kept = ("checkpoint_sha256", "data_sha256", "stage", "step")
    return ModelFacts(
        recipe.training.stage2.clip_frames, origin["stage"] >= 2, fps, {name: origin[name] for name in kept}
    )


def _open_s3(url: str) -> "tuple[Disentangler, ModelFacts]":
    if not storage.exists(storage.join(url, CONFIG)):
        return run_model(url)
    with scratch_folder() as folder:
        fetch_from_s3(url, folder, REQUIRED)
        return read_folder(folder, url)


def read_folder(folder: Path, source: str) -> "tuple[Disentangler, ModelFacts]":
    """Return the exported model in a local folder, and its facts; errors name `source`, what the user gave.

    Raises:
        UserError: it is damaged, too large, or not of an exported model.
    """
    from vdsm.model_folder import read_model_folder

    check_folder(folder, source)
    try:
        return read_model_folder(folder)
    except ValueError as error:
        raise UserError(str(error).replace(str(folder), source)) from error
