"""`vdsm pull`: download a model from the Hugging Face Hub."""

if __name__ == "__main__":  # import from the repository, not from this file's or the working folder
    import sys
    from pathlib import Path

    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import sys

from cluster.cli.run import entry, first_as
from cluster.cli.settings import Controls
from pipeline.models.hub_request import PullRequest


class PullCommand(PullRequest, Controls):
    """Download a model from the Hugging Face Hub, and check it: vdsm pull hf://ORG/NAME --out FOLDER."""


def pull(command: PullCommand) -> None:
    """Download the model, check it, and print its files.

    Raises:
        UserError: there is no such model, it is damaged, or the Hub does not respond.
    """
    from pipeline.models.transfer import pull_model

    for line in pull_model(command, dry_run=command.dry_run):
        sys.stdout.write(f"{line}\n")


main = entry(PullCommand, pull, prog="vdsm pull", prepare=first_as("--source"))


if __name__ == "__main__":
    main()
