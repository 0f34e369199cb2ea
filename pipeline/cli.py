"""The `vdsm` console script: a list of commands, each of which is a file of its own."""

import difflib
import importlib
import sys
from collections.abc import Sequence

from cluster.cli.run import run
from cluster.errors import UserError

COMMANDS = {
    "quickstart": ("pipeline.quickstart", "shard, train and evaluate built-in figures: from nothing to a report"),
    "shard": ("preprocessing.shard", "turn a source of clips into WebDataset shards and a manifest"),
    "verify": ("preprocessing.verify", "read a dataset back: hashes, counts, shapes"),
    "train": ("pipeline.train", "train both stages under Ray Train, or go on with a run"),
    "tune": ("pipeline.tune", "search for better settings with Ray Tune and Optuna, or go on with a sweep"),
    "evaluate": ("pipeline.evaluate", "measure a run on test clips: metrics.json and report.html"),
    "pairs": ("pipeline.pairs", "the fixed pairs of test clips, to measure any other system by the same protocol"),
    "compare": ("pipeline.compare", "put several evaluations side by side"),
    "generate": ("pipeline.generate", "action transfer, samples and reconstructions as pictures that move"),
    "dashboards": ("pipeline.dashboards", "TensorBoard for runs and optuna-dashboard for sweeps, on this machine only"),
    "s3": ("cluster.s3_development", "run an S3 server on this machine, for development"),
    "doctor": ("cluster.doctor", "check this machine, or every node of a cluster, and say what to do"),
}
"""Name to module, whose `main` takes the words after the name, and what it does in one line."""

USAGE = """usage: vdsm COMMAND [--config RECIPE.yaml] [--section.setting VALUE ...]

{commands}

`vdsm COMMAND --help` lists every setting with its default and unit.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command.

    Args:
        argv: its name and its words; those of the process if absent.
    """
    run(_dispatch, argv)


def _dispatch(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS)) + 2
        lines = (f"  {name:{width}}{text}" for name, (_, text) in COMMANDS.items())
        sys.stdout.write(USAGE.format(commands="\n".join(lines)))
        return
    name, *rest = words
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.4)
        answer = f"did you mean {close[0]}?" if close else f"known are {', '.join(COMMANDS)}"
        raise UserError(f"unknown command {name}; {answer}")
    importlib.import_module(COMMANDS[name][0]).main(rest)


if __name__ == "__main__":
    main()
