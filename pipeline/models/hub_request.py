"""The requests of `vdsm push` and `vdsm pull`. Field docstrings are the help of options."""

from pydantic import Field

from cluster.cli.paths import Location
from cluster.cli.settings import Section


class PushRequest(Section):
    """An exported model, and the repository of the Hub that it goes to."""

    model: Location
    """Folder of the exported model, as `vdsm export` wrote it; may be in S3."""
    to: str = ""
    """Repository hf://ORG/NAME, or hf://ORG/NAME@BRANCH; it is created if needed. May be given as the first argument
    without --to."""
    private: bool = False
    """Create a repository that only its owners can see. An existing one keeps its visibility."""
    message: str = Field(default="Upload a model exported by vdsm", max_length=200)
    """Message of the commit."""


class PullRequest(Section):
    """A model of the Hub, and the folder for it."""

    source: str = ""
    """Repository hf://ORG/NAME, or hf://ORG/NAME@REVISION. May be given as the first argument without --source."""
    out: Location
    """Folder for the model; may be in S3."""
