"""`vdsm export`: write the model of a run for users, as safetensors with a model card."""

if __name__ == "__main__":  # import from the repository, not from this file's or the working folder
    import sys
    from pathlib import Path

    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import sys

from cluster.cli.progress import ProgressDisplay
from cluster.cli.run import entry
from cluster.cli.settings import Controls
from pipeline.exports.request import ExportRequest


class ExportCommand(ExportRequest, Controls):
    """Export the model of a run: weights as safetensors, config.json, a model card and a sample animation."""


def export(command: ExportCommand) -> None:
    """Write the model, and print how to use it.

    Raises:
        UserError: the run, the metrics or the data is missing or damaged, or they do not belong together, or `out`
            holds something else.
    """
    # Torch takes seconds to import, which --help and invalid options should not wait for.
    from pipeline.exports.execute import prepare

    work = prepare(command)
    if command.dry_run:
        sys.stdout.write("".join(f"would write {url}\n" for url in work.urls))
        return
    with ProgressDisplay(work.phases) as progress:
        for url in work.execute(progress):
            sys.stdout.write(f"{url}\n")
    sys.stdout.write(f"load it with vdsm.load({command.out!r}), or vdsm generate --model {command.out}\n")


main = entry(ExportCommand, export, prog="vdsm export")


if __name__ == "__main__":
    main()
