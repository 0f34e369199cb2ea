"""`vdsm generate`: write action transfers, samples, interpolations and rollouts of a run as media files."""

if __name__ == "__main__":  # import from the repository, not from this file's or the working folder
    import sys
    from pathlib import Path

    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import sys

from cluster.cli.progress import ProgressDisplay
from cluster.cli.run import entry
from cluster.cli.settings import Controls
from pipeline.generation.request import GenerationRequest


class GenerateCommand(GenerationRequest, Controls):
    """Generate clips from a run, driven by test clips of its data or by clips of your own; reruns give equal files."""


def generate(command: GenerateCommand) -> None:
    """Write the requested files and print their URLs.

    Raises:
        UserError: the run, the data or a clip is missing or damaged, or they do not belong together.
    """
    # Torch takes seconds to import, which --help and invalid options should not wait for.
    from pipeline.generation.execute import prepare

    generation = prepare(command)
    if command.dry_run:
        sys.stdout.write("".join(f"would write {url}\n" for url in generation.outputs.urls.values()))
        return
    with ProgressDisplay(generation.phases) as progress:
        for url in generation.execute(progress):
            sys.stdout.write(f"{url}\n")


main = entry(GenerateCommand, generate, prog="vdsm generate")


if __name__ == "__main__":
    main()
