"""Start the studio on this machine or on a cluster, and wait."""

import logging
import os
import secrets
import socket
import sys
from pathlib import Path

from cluster.cli.stop_signals import serve_until_stopped
from cluster.errors import UserError
from pipeline.web_studio.gate import LOOPBACK, VARIABLE, GateSettings, hash_of
from pipeline.web_studio.settings import StudioSettings

CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
"""Variable by which Serve's proxy finds the gate."""
GATE = "pipeline.web_studio.gate:middlewares"
"""Its value."""
NICENESS = "RAY_worker_niceness"
TOKEN_BYTES = 16
"""Shortest accepted token."""
REQUEST_S = 120.0
"""Time in which a request is answered, once it has arrived, in seconds."""


def token_for(host: str, token_file: Path | None) -> str | None:
    """Return the token that requests need: that of the file, or a new one; None on loopback without a file.

    Raises:
        UserError: the file cannot be read, or its token is too short.
    """
    if token_file is not None:
        try:
            token = token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise UserError(f"--token-file {token_file}: cannot be read ({reason})") from None
        if len(token) < TOKEN_BYTES or not token.isascii() or not token.isprintable() or " " in token:
            raise UserError(
                f"--token-file {token_file}: holds no token of {TOKEN_BYTES} or more letters and digits in one line; "
                "write one with `openssl rand -hex 32`"
            )
        return token
    return None if host in LOOPBACK else secrets.token_hex(32)


def free_port(host: str, port: int | None, first: int) -> int:
    """Return a port on which nothing listens: `port`, or the next free one from `first` on.

    Raises:
        UserError: the port is taken, or the host is not of this machine.
    """
    reason = ""
    for candidate in [port] if port is not None else range(first, first + 100):
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, candidate))
                return candidate
        except OSError as error:
            reason = error.strerror or str(error)
    raise UserError(f"cannot listen on {host}:{port or first} ({reason}); give another --port or --host")


def serve_studio(settings: StudioSettings, host: str, port: int, token: str | None) -> None:
    """Serve until Ctrl-C; print the address once the first request can be answered.

    Raises:
        UserError: the model or the data is missing or damaged, or Ray does not start.
    """
    from cluster.ray_runtime import connect, inherited, set_defaults

    if os.environ.get("RAY_ADDRESS"):
        raise UserError(
            "RAY_ADDRESS names a cluster, and the studio starts a Ray of its own here; unset it, or deploy the studio "
            "there with `serve deploy cluster/studio.yaml`"
        )
    from pipeline.web_studio.model_facts import facts_of, load

    set_defaults()
    trained = load(settings)
    facts = facts_of(trained, settings)
    accelerator = next(trained.model.parameters()).device.type == "cuda"
    del trained
    gate = GateSettings(hash_of(token) if token else None, settings.max_upload_mb * 10**6, settings.max_upload_s)
    # The Ray is of this command, and Serve ends with it.
    with inherited(_variables(gate)), connect():
        from ray import serve
        from ray.serve.config import HTTPOptions

        from pipeline.web_studio.application import NAME, deploy

        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        quiet = {"log_level": "WARNING", "enable_access_log": False}
        serve.start(
            proxy_location="HeadOnly",
            http_options=HTTPOptions(host=host, port=port, request_timeout_s=REQUEST_S),
            logging_config=quiet,
        )
        serve.run(deploy(settings, facts, gate, accelerator=accelerator), name=NAME, logging_config=quiet)
        sys.stdout.write(f"{address(host, port, token)}\n")
        sys.stdout.flush()
        serve_until_stopped()


def address(host: str, port: int, token: str | None) -> str:
    """Return the address of the page, with its token if it needs one."""
    shown = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    query = f"?token={token}" if token else ""
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/{query}"


def _variables(gate: GateSettings) -> dict[str, str]:
    """Return what the processes of Ray need: where the gate is, its settings, and to be as fast as other processes.

    People wait for what its workers do; Ray would run them at nice 15.
    """
    return {CALLBACK: GATE, VARIABLE: gate.to_text(), NICENESS: os.environ.get(NICENESS, "0")}
