"""From a command line to a validated command object, and from a failure to one line on stderr.

    main = entry(TrainCommand, train, prog="vdsm train")

Slow libraries are imported when they are needed, so that listing the commands is instant.
"""

import contextlib
import functools
import io
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, TextIO, TypeVar

from cluster import extras
from cluster.cli import stop_signals
from cluster.errors import UserError, one_line, without_credentials
from cluster.storage import os_errors
from cluster.storage.scratch import home

if TYPE_CHECKING:
    from pydantic import BaseModel

    from cluster.cli.settings import Tree

C = TypeVar("C", bound="BaseModel")

log = logging.getLogger(__name__)


def entry(
    command: type[C], action: Callable[[C], object], prog: str, *, prepare: Callable[[list[str]], list[str]] = list
) -> Callable[..., None]:
    """Return the `main` of a command: parse its arguments, then call `action` with the command object.

    Args:
        command: class of the command, as for `parse`.
        action: does the work.
        prog: name of the command for help and messages, such as `vdsm train`.
        prepare: rewrites the arguments before they are parsed.
    """

    def main(argv: Sequence[str] | None = None) -> None:
        """Run the command with the arguments `argv`, by default those of the process."""
        run(lambda args: action(parse(command, prepare(args), prog)), argv)

    return main


def first_as(option: str) -> Callable[[list[str]], list[str]]:
    """Return a `prepare` for `entry`: what is given before any option is the value of this one, such as `--name`."""
    return lambda args: [option, *args] if args and not args[0].startswith("-") else args


def parse(command: type[C], argv: Sequence[str], prog: str) -> C:
    """Return the command object described by a command line and its recipe.

    Settings come from, in increasing precedence: the defaults of `command`, the recipes of `--config` in their order,
    and dotted options such as `--model.num-experts 24`. `--help` and `--print-config` print and exit with code 0.

    Args:
        command: a class that adds the fields of the command to a recipe and `cluster.cli.settings.Controls`, such as
            `class TrainCommand(Recipe, Controls)`; its docstring is the description in the help.
        argv: arguments after the name of the command.
        prog: name of the command for help and messages.

    Raises:
        UserError: unknown key or option, invalid value, unreadable recipe, or missing required setting.
    """
    from cluster.cli import former_names, options, recipe_file, settings
    from cluster.cli.shipped_recipes import recipe_path

    argv, renamed = former_names.current_args(argv, command)
    recipes: dict[str, Tree] = {}  # in increasing precedence
    for name in options.values_of("config", argv):
        recipe = recipe_file.read_recipe(recipe_path(name), command, renamed=renamed)
        for control in settings.Controls.model_fields:
            if control in recipe:
                raise UserError(f"{name}: {control} is an option, not a setting; remove it from the recipe")
        recipes.pop(name, None)
        recipes[name] = recipe
    if not recipes:
        former_names.warn_of_former_names(renamed)
    base = functools.reduce(settings.merge, recipes.values(), settings.defaults(command))
    given = options.read(command, argv, prog, base)
    if recipes:
        given["config"] = list(recipes)

    def origin(path: str) -> str:
        if settings.holds(given, path):
            return f" (option {settings.option(path)})"
        return next((f" (in {name})" for name, tree in reversed(recipes.items()) if settings.holds(tree, path)), "")

    tree = settings.merge(base, given)
    if tree.get("print_config"):
        print_recipe(command, tree, origin)
        raise SystemExit(0)
    return settings.validated(command, tree, origin)


def print_recipe(command: "type[BaseModel]", tree: "Tree", origin: Callable[[str], str]) -> None:
    """Print the settings that a recipe can hold as YAML, in the format that `--config` reads."""
    from cluster.cli import settings
    from cluster.cli.yaml_file import to_yaml

    # The recipe is the base class of the command: --data and --out may be missing here.
    controls = set(settings.Controls.model_fields)
    recipe = next((base for base in command.__bases__ if set(settings.settings_of(base)) - controls), command)
    fields = {name: value for name, value in tree.items() if name in settings.settings_of(recipe)}
    resolved: Tree = settings.validated(recipe, fields, origin).model_dump(mode="json", exclude=controls)
    sys.stdout.write(to_yaml(resolved))


def run(main: Callable[[list[str]], object], argv: Sequence[str] | None = None) -> None:
    """Run a command as a program: set up logging, and turn exceptions into exit codes.

    The exit code is 0 on success, 2 for a user error or a fault of this machine (printed in one line), and 130 for
    Ctrl-C, SIGTERM and SIGHUP. Any other exception is a bug and keeps its traceback.

    Args:
        main: takes the command-line arguments.
        argv: the arguments, by default those of the process.
    """
    _open_closed_streams()
    set_up_logging()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text, or that of the terminal
    sys.excepthook, threading.excepthook = _report_bug, _report_thread
    home()  # Ray fails for a user without one
    try:
        with stop_signals.as_interrupt():
            main(list(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        _fail(error)
    except KeyboardInterrupt:
        _print_last("interrupted; rerun the same command to resume")
        raise SystemExit(130) from None
    except ModuleNotFoundError as error:
        line = extras.remedy(error.name)
        if line is None:
            raise
        _fail(UserError(line))
    except BrokenPipeError:  # the reader of our output, `head` for instance, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except Exception as error:
        fault = os_errors.fault_in(error)
        if fault is None:
            raise
        log.debug("a fault of this machine", exc_info=True)
        try:
            os_errors.explain(fault.filename or "the output or a temporary folder", fault)
        except UserError as explanation:
            _fail(explanation)


def _open_closed_streams() -> None:
    """Open what a parent closed (`>&-`): the next file would get its number, and what libraries print as content."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # with the lowest number that is free
            os.set_inheritable(opened, True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - as long as the process


def _fail(error: UserError) -> NoReturn:
    _print_last(f"error: {' '.join(str(error).split())}")
    raise SystemExit(2) from None


def _print_last(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal has closed, or standard error is a file on a full disk
        sys.stderr.write(f"{line}\n")


def _report_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _print_last(without_credentials("".join(traceback.format_exception(kind, error, trace)).rstrip()))


def _report_thread(failure: threading.ExceptHookArgs) -> None:
    """Print the traceback of a thread, unless it ended by a fault of this machine, which ends the command too."""
    error = failure.exc_value
    if error is None or isinstance(error, SystemExit) or os_errors.fault_in(error) is not None:
        return
    _print_last(f"Exception in thread {failure.thread.name if failure.thread else 'of a library'}:")
    _report_bug(type(error), error, failure.exc_traceback)


def set_up_logging() -> None:
    """Log to stderr from level INFO, or the level named by VDSM_LOG_LEVEL; only the first call has an effect."""
    level = os.environ.get("VDSM_LOG_LEVEL", "INFO").upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        level = "INFO"
    handler = _StderrHandler()
    handler.setFormatter(_PrintableFormatter("%(asctime)s %(levelname).1s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=level, handlers=[handler])
    # At INFO, it logs in every process where it found credentials.
    logging.getLogger("botocore").setLevel(max(logging.WARNING, getattr(logging, level)))
    # It logs a traceback of each error that it raises.
    logging.getLogger("botocore.credentials").setLevel(logging.CRITICAL)
    logging.getLogger("botocore.tokens").setLevel(logging.CRITICAL)


class _PrintableFormatter(logging.Formatter):
    """Escapes control characters in messages, which quote names of foreign files; tracebacks keep their lines.

    Libraries log addresses, also signed ones.
    """

    def format(self, record: logging.LogRecord) -> str:
        return without_credentials(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = "\n".join(map(one_line, record.message.split("\n")))
        return super().formatMessage(record)


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` is when a record is logged: a live progress bar replaces it to print above itself."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)  # StreamHandler's would store the stream

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr
