"""`vdsm adapt`: fit a trained model to one new person from a few clips."""

if __name__ == "__main__":  # import from the repository, not from this file's or the working folder
    import sys
    from pathlib import Path

    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import sys

from cluster.cli.progress import ProgressDisplay
from cluster.cli.run import entry
from cluster.cli.settings import Controls
from pipeline.generation.adaptation_request import AdaptationRequest


class AdaptCommand(AdaptationRequest, Controls):
    """Fit a trained model to one new person, so that transfers show that person; takes about half a minute.

    The image encoder and the dynamics stay as trained. Writes a run folder for `vdsm generate`, whose model shows the
    person whatever clip gives the identity.
    """


def adapt(command: AdaptCommand) -> None:
    """Write the adapted model, and print how well it reconstructs the clips.

    Raises:
        UserError: the run or a clip is missing, damaged or does not fit, or `out` holds something else.
    """
    # Torch takes seconds to import, which --help and invalid options should not wait for.
    from pipeline.generation.adapted_run import prepare

    work = prepare(command)
    sys.stdout.write(work.summary())
    if command.dry_run:
        sys.stdout.write(f"would write {command.out} (--dry-run)\n")
        return
    with ProgressDisplay(work.phases) as progress:
        result = work.execute(progress)
    sys.stdout.write(result)


main = entry(AdaptCommand, adapt, prog="vdsm adapt")


if __name__ == "__main__":
    main()
