"""Exported models on the Hugging Face Hub: hf://ORG/NAME, or hf://ORG/NAME@REVISION.

The address of the Hub is that of huggingface_hub: `HF_ENDPOINT`, or the public one. Credentials are its own, too (`hf
auth login`, `HF_TOKEN`); they are neither read, stored nor logged here.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import UserError, first_line
from cluster.storage.scratch import scratch_folder
from pipeline.models.files import FILES, REQUIRED, check_size

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PREFIX = "hf://"
_NAME = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class HubModel:
    """A model repository."""

    repo: str
    """ORG/NAME."""
    revision: str | None = None
    """Branch, tag or commit; None means the newest."""

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo}" + (f"@{self.revision}" if self.revision else "")


def parse(url: str) -> HubModel:
    """Return the repository that a URL names.

    Raises:
        UserError: it is none of a model.
    """
    match = _NAME.fullmatch(url)
    if match is None:
        raise UserError(f"{url or 'no name'}: is no model of the Hub; give hf://ORG/NAME or hf://ORG/NAME@REVISION")
    return HubModel(match["repo"], match["revision"])


def push(folder: Path, model: HubModel, *, private: bool, message: str) -> str:
    """Upload the files of an exported model in one commit, and return the commit's URL. The repository is created.

    Raises:
        UserError: the Hub refuses it or does not respond.
    """
    from huggingface_hub import CommitOperationAdd

    files = [name for name in FILES if (folder / name).is_file()]
    with _explained(model) as api:
        api.create_repo(model.repo, private=private, exist_ok=True)
        commit = api.create_commit(
            model.repo,
            [CommitOperationAdd(name, str(folder / name)) for name in files],
            commit_message=message,
            revision=model.revision,
        )
    return str(commit.commit_url)


@contextlib.contextmanager
def pulled(url: str) -> Iterator[Path]:
    """Fetch an exported model into a temporary folder.

    Raises:
        UserError: there is no such model, it lacks files, or the Hub does not respond.
    """
    with scratch_folder() as folder:
        pull(parse(url), folder, REQUIRED)
        yield folder


def pull(model: HubModel, folder: Path, names: tuple[str, ...] = FILES) -> str:
    """Fetch files of an exported model into a folder, all of one commit, and return the commit's id.

    What was fetched is not checked here; `vdsm.model_folder.read_model_folder` does that.

    Raises:
        UserError: see `pulled`.
    """
    with _explained(model) as api:
        info = api.model_info(model.repo, revision=model.revision, files_metadata=True)
        sizes = {file.rfilename: file.size for file in info.siblings or ()}
        if missing := set(REQUIRED) - sizes.keys():
            raise UserError(f"{model}: has no {' and no '.join(sorted(missing))}; it is not a model of `vdsm push`")
        for name in names:
            if name not in sizes:
                continue
            check_size(str(model), name, sizes[name])
            api.hf_hub_download(model.repo, name, revision=info.sha, local_dir=folder)
    return str(info.sha)


@contextlib.contextmanager
def _explained(model: HubModel) -> "Iterator[HfApi]":
    """Yield the client; its errors become UserErrors of one line, without addresses that hold tokens."""
    try:
        from huggingface_hub import HfApi, errors
    except ImportError:
        raise UserError(f"{model}: the Hub needs huggingface_hub; install vdsm-pipeline[hub]") from None
    try:
        # The endpoint as it is now: the library reads the variable when it is imported.
        yield HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    except errors.GatedRepoError:
        raise UserError(
            f"{model}: access is granted on request; ask for it on its page, then `hf auth login`"
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{model}: there is no such revision; omit it for the newest") from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"{model}: there is no such model, or no access to it; check the name, or `hf auth login`"
        ) from None
    except errors.HfHubHTTPError as error:
        raise UserError(f"{model}: the Hub refused it ({_reason(error)}); check the name and `hf auth login`") from None
    except (errors.LocalTokenNotFoundError, errors.HFValidationError, ValueError) as error:
        raise UserError(f"{model}: {first_line(error):.200}") from None
    except Exception as error:
        # Uploads wrap the error of the network.
        found = next((one for one in (error, error.__cause__) if one and _is_network(one, errors.HfHubHTTPError)), None)
        if found is None:
            raise
        problem = f"the Hub does not respond ({type(found).__name__})"
        raise UserError(f"{model}: {problem}; try again, or check HF_ENDPOINT") from None


def _reason(error: Any) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"status {status}" if status else type(error).__name__


def _is_network(error: BaseException, refusal: type[BaseException]) -> bool:
    """Return whether the client failed to reach the Hub; its HTTP library differs between versions."""
    library = type(error).__module__
    return isinstance(error, OSError | refusal) or library.startswith(("httpx", "httpcore", "requests"))
