"""Killed replicas of `vdsm studio`, and a studio with a token: each starts one of its own."""

import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.e2e import training_runs
from tests.e2e.training_runs import descendants
from tests.pipeline.web_studio.conftest import RunningStudio, started

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.long]

TOKEN = "a-token-of-enough-letters"
REQUESTS = 60


@pytest.fixture(scope="module")
def guarded(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStudio]:
    """Return a studio whose requests need `TOKEN`."""
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text(TOKEN)
    with started(root, "--token-file", str(file)) as running:
        yield running


def call(studio: RunningStudio, number: int, token: str = TOKEN) -> tuple[int, str | None]:
    """Return the status of one transfer, and what it says of a repetition."""
    form = urlencode({"who": f"sample:{number}", "how": f"sample:{number + 1}"}).encode()
    request = urllib.request.Request(f"{studio.url}api/transfer", form, {"authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=300) as response:
            response.read()
            return response.status, None
    except urllib.error.HTTPError as error:
        return error.code, error.headers["retry-after"]


def test_nothing_is_answered_without_the_token_which_no_process_shows(guarded: RunningStudio) -> None:
    assert call(guarded, 1) == (200, None)
    assert call(guarded, 1, token="wrong")[0] == 401
    for path in ("", "page/app.js", "api/model", "api/openapi.json", "-/routes"):
        assert guarded.ask(path)[0] == 401
    for pid in [guarded.pid, *descendants(guarded.pid)]:
        try:
            shown = Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        assert TOKEN.encode() not in shown


@pytest.mark.parametrize("deployment", ["Model", "Web"])
def test_every_request_is_answered_or_asked_to_repeat_if_a_replica_is_killed(
    guarded: RunningStudio, deployment: str
) -> None:
    with ThreadPoolExecutor(REQUESTS) as pool:
        running = [pool.submit(call, guarded, number) for number in range(REQUESTS)]
        wait(running[:5])
        (pid,) = (
            pid for pid, command in descendants(guarded.pid).items() if f"ServeReplica:studio:{deployment}" in command
        )
        os.kill(pid, signal.SIGKILL)
        answers = [one.result() for one in running]
    assert {status for status, _ in answers} <= {200, 503}
    assert all(int(retry or 0) > 0 for status, retry in answers if status == 503)
    training_runs.wait(lambda: call(guarded, 1)[0] == 200, "a new replica answers", 120)
