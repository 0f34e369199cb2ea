"""From the words of a command line to a checked command object, and from a failure to one clear line.

    main = entry(TrainCommand, train, prog="vdsm train")

Libraries that take long to import are imported when they are needed, so that a list of commands costs nothing.
"""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cluster.errors import UserError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from cluster.cli.settings import Tree

C = TypeVar("C", bound="BaseModel")


def parse(command: type[C], argv: Sequence[str], prog: str) -> C:
    """The command that a command line and its recipe describe.

    Settings come from, in rising precedence: the defaults of `command`, the YAML file of `--config`, and dotted
    options such as `--model.num-experts 24`. `--help` and `--print-config` print and exit with code 0.

    Args:
        command: a class that extends a recipe and `cluster.cli.settings.Controls` by the fields of the command, such as
            `class TrainCommand(Recipe, Controls)`; its docstring is the description in the help.
        argv: the words after the command's name.
        prog: how the command is called, for help and messages.

    Raises:
        UserError: unknown key or option, value that is not allowed, unreadable recipe, missing required setting.
    """
    from cluster.cli import former_names, options, recipe_file, settings

    argv, renamed = former_names.current_args(argv, command)
    recipe_path = options.value_of("config", argv)
    recipe: Tree = {}
    if recipe_path is None:
        former_names.warn_of_former_names(renamed)
    else:
        recipe = recipe_file.read_recipe(Path(recipe_path), command, renamed=renamed)
        for name in settings.Controls.model_fields:
            if name in recipe:
                raise UserError(f"{recipe_path}: {name} belongs on the command line; take it out of the recipe")
    base = settings.merge(settings.defaults(command), recipe)
    given = options.read(command, argv, prog, base)

    def origin(path: str) -> str:
        if settings.holds(given, path):
            return f" (option {settings.option(path)})"
        return f" (in {recipe_path})" if settings.holds(recipe, path) else ""

    tree = settings.merge(base, given)
    if tree.get("print_config"):
        print_recipe(command, tree, origin)
        raise SystemExit(0)
    return settings.validated(command, tree, origin)


def entry(
    command: type[C], action: Callable[[C], object], prog: str, *, prepare: Callable[[list[str]], list[str]] = list
) -> Callable[..., None]:
    """Return the `main` of a command: parse its words, then call `action` with the command object.

    Args:
        command: the class of the command, as for `parse`.
        action: what the command does.
        prog: how the command is called, for help and messages.
        prepare: changes the words before they are parsed.
    """

    def main(argv: Sequence[str] | None = None) -> None:
        """Run the command with the words `argv`, by default those of the process."""
        run(lambda words: action(parse(command, prepare(words), prog)), argv)

    return main


def print_recipe(command: "type[BaseModel]", tree: "Tree", origin: Callable[[str], str]) -> None:
    """Print the settings that a recipe can hold as YAML, which `--config` takes again."""
    import yaml

    from cluster.cli import settings

    # The recipe is what the command inherits: --data and --out may be absent here.
    controls = set(settings.Controls.model_fields)
    recipe = next((base for base in command.__bases__ if set(settings.settings_of(base)) - controls), command)
    fields = {name: value for name, value in tree.items() if name in settings.settings_of(recipe)}
    resolved: Tree = settings.validated(recipe, fields, origin).model_dump(mode="json", exclude=controls)
    sys.stdout.write(yaml.safe_dump(resolved, sort_keys=False, default_flow_style=None, width=100))


def run(main: Callable[[list[str]], object], argv: Sequence[str] | None = None) -> None:
    """Run a command as a program: logging, exit codes, and one line for what the user did wrong.

    Exit codes are 0 for success, 2 for a mistake of the user, 130 for ctrl-C. Anything else is a fault of the program
    and keeps its traceback.

    Args:
        main: takes the words of the command line.
        argv: those words; those of the process if absent.
    """
    set_up_logging()
    try:
        main(list(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on from where it stopped\n")
        raise SystemExit(130) from None
    except BrokenPipeError:  # the reader of our output, `head` for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


def set_up_logging() -> None:
    """Log to stderr from level INFO, or the level named by VDSM_LOG_LEVEL; only the first call has an effect."""
    level = os.environ.get("VDSM_LOG_LEVEL", "INFO").upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        level = "INFO"
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname).1s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr
    )
    # At INFO it says in every process where it found credentials.
    logging.getLogger("botocore").setLevel(max(logging.WARNING, getattr(logging, level)))
