"""`vdsm push`: upload an exported model to the Hugging Face Hub."""

if __name__ == "__main__":  # import from the repository, not from this file's or the working folder
    import sys
    from pathlib import Path

    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import sys

from cluster.cli.run import entry, first_as
from cluster.cli.settings import Controls
from pipeline.models.hub_request import PushRequest


class PushCommand(PushRequest, Controls):
    """Upload an exported model to the Hugging Face Hub: vdsm push hf://ORG/NAME --model FOLDER. Log in first with
    `hf auth login`, or set HF_TOKEN."""


def push(command: PushCommand) -> None:
    """Check the model, upload it, and print the address of the commit.

    Raises:
        UserError: the model is missing or damaged, or the Hub refuses it or does not respond.
    """
    from pipeline.models.transfer import push_model

    for line in push_model(command, dry_run=command.dry_run):
        sys.stdout.write(f"{line}\n")


main = entry(PushCommand, push, prog="vdsm push", prepare=first_as("--to"))


if __name__ == "__main__":
    main()
