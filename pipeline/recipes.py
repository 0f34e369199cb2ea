"""`vdsm recipes`: list the recipes and sweeps that come with the package, or print one."""

if __name__ == "__main__":  # import from the repository, not from this file's or the working folder
    import sys
    from pathlib import Path

    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import sys
from collections.abc import Mapping
from pathlib import Path

from cluster.cli.paths import Location
from cluster.cli.run import entry, first_as
from cluster.cli.settings import Controls, Section
from cluster.cli.shipped_recipes import purpose, recipe_path, shipped_recipes, shipped_sweeps
from cluster.errors import UserError
from cluster.storage import api as storage


class RecipesCommand(Section, Controls):
    """List the recipes and sweeps that come with the package, or print one: `vdsm recipes NAME`. `vdsm recommend`
    writes a new recipe, for a dataset and a machine."""

    name: str | None = None
    """Recipe or sweep to print; `vdsm recipes NAME` works too."""
    out: Location | None = None
    """File to write it to instead, which must not exist; may be in s3://bucket/prefix."""


def recipes(command: RecipesCommand) -> None:
    """Print the list, or one recipe or sweep.

    Raises:
        UserError: there is none of that name, or the file exists.
    """
    if command.name is None:
        if command.out is not None:
            raise UserError(
                f"--out {command.out} has no recipe to hold; name one, as in `vdsm recipes videos --out FILE`"
            )
        sys.stdout.write(_listed("recipes, for --config NAME", shipped_recipes()))
        sys.stdout.write(_listed("\nsweeps, for `vdsm tune --sweep NAME`", shipped_sweeps()))
        sys.stdout.write("\n`vdsm recipes NAME` prints one.\n")
        return
    text = (shipped_sweeps().get(command.name) or recipe_path(command.name)).read_text()
    if command.out is None:
        sys.stdout.write(text)
        return
    if storage.exists(command.out):
        raise UserError(f"{command.out} exists; name another file with --out, or remove it")
    if not command.dry_run:
        storage.write_bytes(command.out, text.encode())
    sys.stdout.write(f"{'would write ' if command.dry_run else ''}{command.out}\n")


def _listed(title: str, files: Mapping[str, Path]) -> str:
    width = max(map(len, files)) + 2
    lines = [f"  {name:{width}}{purpose(path.read_text())}" for name, path in files.items()]
    return "\n".join([f"{title}:", *lines]) + "\n"


main = entry(RecipesCommand, recipes, prog="vdsm recipes", prepare=first_as("--name"))


if __name__ == "__main__":
    main()
