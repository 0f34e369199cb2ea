"""Files of a data set on the Hugging Face Hub: hf://ORG/NAME, or hf://ORG/NAME@REVISION."""

import functools
import os
import re
from collections.abc import Iterator
from typing import Any

from cluster.errors import UserError, first_line
from cluster.extras import require
from preprocessing.sources.listing import Entry

_NAME = re.compile(r"hf://(?:datasets/)?(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


def is_hub(path: str) -> bool:
    """Return whether a path names a data set on the Hub."""
    return path.startswith("hf://")


def list_hub(url: str) -> Iterator[Entry]:
    """Yield the Parquet files of a data set, with the commit as their version.

    Raises:
        UserError: there is no such data set, or the Hub does not respond.
    """
    repo, info = _info(url, os.environ.get("HF_ENDPOINT"))
    del repo
    for file in sorted(info.siblings or (), key=lambda one: str(one.rfilename)):
        if file.rfilename.endswith(".parquet"):
            if file.size is None:
                raise UserError(f"{url}: the Hub does not state the size of {file.rfilename}; it is not downloaded")
            yield Entry(file.rfilename, int(file.size), f"{info.sha}")


def local_copy(url: str, name: str) -> str:
    """Return the path of a file on this machine; it is downloaded where the cache of huggingface_hub lacks it.

    Raises:
        UserError: the Hub refuses it or does not respond.
    """
    from huggingface_hub import hf_hub_download

    repo, info = _info(url, os.environ.get("HF_ENDPOINT"))
    try:
        return hf_hub_download(
            repo, name, repo_type="dataset", revision=info.sha, endpoint=os.environ.get("HF_ENDPOINT")
        )
    except Exception as error:  # of many libraries: HTTP, files, the Hub's own
        raise UserError(f"{url}: {name} cannot be downloaded ({first_line(error):.200})") from None


@functools.lru_cache(maxsize=4)
def _info(url: str, endpoint: str | None) -> tuple[str, Any]:
    """Return the repository, and its files at one commit."""
    match = _NAME.fullmatch(url)
    if match is None:
        raise UserError(f"{url}: is no data set of the Hub; give hf://ORG/NAME or hf://ORG/NAME@REVISION")
    require("huggingface_hub")
    from huggingface_hub import HfApi

    try:
        api = HfApi(endpoint=endpoint or None)
        return match["repo"], api.dataset_info(match["repo"], revision=match["revision"], files_metadata=True)
    except Exception as error:
        raise UserError(
            f"{url}: the Hub has no such data set, or does not respond ({first_line(error):.200}); check the name, "
            "HF_TOKEN and HF_ENDPOINT"
        ) from None
