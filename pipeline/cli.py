"""The `vdsm` console script: a table of commands, each in a file of its own."""

import difflib
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

# The working folder or PYTHONPATH may hold modules with the names of our packages.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cluster.cli.run import run
from cluster.errors import UserError

COMMANDS = {
    "quickstart": ("pipeline.quickstart", "shard, train and evaluate built-in figures: from nothing to a report"),
    "prepare": ("preprocessing.prepare", "find cuts, people and near-duplicates in recordings, before sharding"),
    "shard": ("preprocessing.shard", "convert a source of clips to WebDataset shards and a manifest"),
    "verify": ("preprocessing.verify", "check a dataset: hashes, counts, shapes"),
    "recipes": ("pipeline.recipes", "list the recipes and sweeps that --config and --sweep take by name, or print one"),
    "recommend": ("pipeline.recommend", "write a new, commented recipe for a dataset and this machine"),
    "train": ("pipeline.train", "train both stages under Ray Train, or resume a run"),
    "tune": ("pipeline.tune", "search for better settings with Ray Tune and Optuna, or resume a sweep"),
    "evaluate": ("pipeline.evaluate", "measure a run on test clips: metrics.json and report.html"),
    "pairs": ("pipeline.pairs", "export the fixed pairs of test clips, to evaluate other models by the same protocol"),
    "compare": ("pipeline.compare", "compare several evaluations side by side"),
    "generate": ("pipeline.generate", "action transfer, samples and reconstructions as images and animations"),
    "studio": ("pipeline.studio", "a page to transfer actions, explore codes, browse data and compare runs"),
    "adapt": ("pipeline.adapt", "fit a trained model to one new person from a few clips"),
    "export": ("pipeline.export", "write the model of a run for users: safetensors, model card, sample animation"),
    "push": ("pipeline.push", "upload an exported model to the Hugging Face Hub"),
    "pull": ("pipeline.pull", "download a model from the Hugging Face Hub"),
    "dashboards": ("pipeline.dashboards", "TensorBoard for runs and optuna-dashboard for sweeps, on this machine only"),
    "s3": ("cluster.s3_development", "run an S3 server on this machine, for development"),
    "doctor": ("cluster.doctor", "check this machine, or every node of a cluster, and report what to fix"),
}
"""Command name -> module, whose `main` takes the arguments after the name, and a one-line description."""

FORMER_NAMES = {"recipe": "recommend"}
"""Former name of a command, which still works -> its name."""

USAGE = """usage: vdsm COMMAND [--config RECIPE] [--section.setting VALUE ...]

{commands}

`vdsm COMMAND --help` lists the main settings with default and unit, `--help-all` all of them.
`vdsm --version` prints the version, `vdsm completion bash` (or zsh, fish) a script for the shell; see docs/install.md.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command.

    Args:
        argv: its name and its arguments, by default those of the process.
    """
    run(_dispatch, argv)


def _dispatch(args: list[str]) -> None:
    if not args or args[0] in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS)) + 2
        lines = (f"  {name:{width}}{text}" for name, (_, text) in COMMANDS.items())
        sys.stdout.write(USAGE.format(commands="\n".join(lines)))
        return
    name, *rest = args
    if name == "--version":
        from vdsm import __version__

        sys.stdout.write(f"vdsm {__version__}\n")
        return
    if name == "completion":
        sys.stdout.write(_completion(rest))
        return
    name = FORMER_NAMES.get(name, name)
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}?" if close else f"known commands: {', '.join(COMMANDS)}"
        raise UserError(f"unknown command {name}; {hint}")
    importlib.import_module(COMMANDS[name][0]).main(rest)


def _completion(args: list[str]) -> str:
    from cluster.cli.completion import SHELLS, completion_script

    if len(args) != 1 or args[0] not in SHELLS:
        raise UserError(f"`vdsm completion` takes the name of a shell: {', '.join(SHELLS)}")
    return completion_script(COMMANDS, args[0])


if __name__ == "__main__":
    main()
