"""`vdsm studio`: a page on which people see, swap and share what a model does with clips."""

if __name__ == "__main__":  # import from the repository, not from this file's or the working folder
    import sys
    from pathlib import Path

    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import contextlib
import logging
import sys
from pathlib import Path

from pydantic import Field

from cluster import extras
from cluster.cli.paths import LocalPath
from cluster.cli.run import entry
from cluster.cli.settings import Controls
from pipeline.web_studio.settings import StudioSettings
from pipeline.web_studio.start import free_port, serve_studio, token_for

log = logging.getLogger(__name__)

FIRST_PORT = 8450
"""First port to try if none is given."""


class StudioCommand(StudioSettings, Controls):
    """Serve a page to transfer actions, explore codes, browse data and compare runs, until Ctrl-C."""

    host: str = "127.0.0.1"
    """Address to listen on. On any other than loopback, every request needs a token."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """Port to listen on; by default the first free one from 8450."""
    token_file: LocalPath | None = None
    """File with the token, one line of 16 or more letters and digits. Without it, `--host` makes and prints a new
    token, which is stored nowhere."""
    static: LocalPath | None = None
    """Write a folder for any web server instead, in which the browser computes: no server, no Ray. Needs the extra
    onnx, and npm."""
    onnxruntime_web: LocalPath | None = None
    """For `--static`: folder of the npm package onnxruntime-web, instead of a download by npm."""


def studio(command: StudioCommand) -> None:
    """Serve the page and print its address.

    Raises:
        UserError: the model or the data is missing or damaged, or the port is taken.
    """
    settings = StudioSettings.model_validate(command.model_dump(include=set(StudioSettings.model_fields)))
    if command.static is not None:
        write_static(command, settings, command.static)
        return
    for module in ("ray", "fastapi", "multipart"):
        extras.require(module)
    source, token = settings.source, token_for(command.host, command.token_file)
    port = free_port(command.host, command.port, FIRST_PORT)
    if command.dry_run:
        from pipeline.web_studio.model_facts import load

        load(settings)
        sys.stdout.write(f"would serve {source} on {command.host}:{port}\n")
        return
    # Ctrl-C, and SIGTERM and SIGHUP, which the command line turns into the same.
    with contextlib.suppress(KeyboardInterrupt):
        serve_studio(settings, command.host, port, token)
    log.info("the studio has ended")


def write_static(command: StudioCommand, settings: StudioSettings, out: Path) -> None:
    """Write the static edition, and print how to serve it."""
    from pipeline.web_studio.edition import write_edition

    if command.dry_run:
        sys.stdout.write(f"would write {settings.source} into {out}\n")
        return
    size = write_edition(settings, out, command.onnxruntime_web)
    sys.stdout.write(f"{out}: {size / 10**6:.0f} MB; serve it with any web server: python -m http.server -d {out}\n")


main = entry(StudioCommand, studio, prog="vdsm studio")


if __name__ == "__main__":
    main()
