"""Starting a local Ray: in a private folder, with the remedy if it cannot start, and again after a time-out."""

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.errors import UserError
from cluster.ray_folder import check_socket_length
from cluster.ray_runtime import connect
from cluster.storage.errors import MachineError

TIMEOUT = Exception("The current node timed out during startup. This could happen because ...")


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Any]]:
    """Return `start(*outcomes)`: connect, with the outcomes of successive calls of ray.init; return its options."""

    import ray

    def connected(*outcomes: BaseException | None) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = []

        def init(**options: Any) -> None:
            entrypoint = ray._private.utils.get_entrypoint_name()  # type: ignore[no-untyped-call]
            calls.append(options | {"environment": dict(os.environ), "entrypoint": entrypoint})
            outcome = outcomes[len(calls) - 1]
            if outcome is not None:
                raise outcome

        monkeypatch.setattr(ray, "init", init)
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        monkeypatch.setattr(ray, "shutdown", lambda: None)
        with connect(num_cpus=1):
            folder = Path(calls[-1]["_temp_dir"]).parent
            assert folder.stat().st_mode & 0o777 == 0o700
            assert calls[-1]["environment"]["TMPDIR"] == str(folder)
        assert not folder.exists()
        return calls

    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    return connected


def test_its_files_are_in_a_new_private_folder(start: Callable[..., list[Any]]) -> None:
    first, second = start(None)[0]["_temp_dir"], start(None)[0]["_temp_dir"]
    assert first != second


def test_the_folder_of_another_user_named_ray_does_not_matter(
    start: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("cluster.ray_folder.check_socket_length", lambda folder: None)
    (tmp_path / "ray").write_text("a file, or a folder of another user")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    start(None)
    assert [path.name for path in tmp_path.iterdir()] == ["ray"]


def test_it_listens_on_loopback_and_requires_a_token(
    start: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in ("", "mine"):
        monkeypatch.setenv("RAY_AUTH_TOKEN", given)
        if not given:
            monkeypatch.delenv("RAY_AUTH_TOKEN")
        call = start(None)[0]
        assert call["_node_ip_address"] == "127.0.0.1"
        token = call["environment"]["RAY_AUTH_TOKEN"]
        assert token == given or (not given and len(token) == 64)
    assert not list(tmp_path.iterdir()), "a stored token would be used by later clusters"


def test_the_command_line_need_not_be_utf_8(start: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray._private.utils.get_entrypoint_name", lambda: "shard caf\udce9")
    assert start(None)[0]["entrypoint"] == "shard caf\\udce9"


def test_a_time_out_is_tried_again_once(start: Callable[..., list[Any]], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert len(start(TIMEOUT, None)) == 2
        assert len(start(TimeoutError("Timed out after 30 seconds"), None)) == 2
    assert "trying again" in caplog.text
    with pytest.raises(UserError, match=r"did not start .*timed out.*; free memory and space in .*RAY_TMPDIR"):
        start(TIMEOUT, TIMEOUT)


def test_any_other_failure_is_reported_at_once(start: Callable[..., list[Any]]) -> None:
    with pytest.raises(UserError, match=r"did not start on this machine \(broken\); free memory"):
        start(RuntimeError("broken\nmore lines"), None)
    with pytest.raises(MachineError, match=r"No space left on device; .* set RAY_TMPDIR"):
        start(OSError(28, "No space left on device"), None)


def test_an_unusable_folder_is_named_with_its_variable(
    start: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAY_TMPDIR", f"{tmp_path}/file")
    with pytest.raises(MachineError, match=f"^{tmp_path}/file: File exists; "):
        start(None)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/foreign/ray-x")

    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    with pytest.raises(MachineError, match=f"^{tmp_path}: No space left on device; .*set RAY_TMPDIR"):
        start(None)
    monkeypatch.setenv("RAY_TMPDIR", "/foreign")
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(MachineError, match=r"^/foreign/ray-x: Permission denied; .*set RAY_TMPDIR"):
        start(None)


def test_a_path_too_long_for_sockets_is_an_error_before_ray_starts(
    start: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("long" * 20)))
    with pytest.raises(UserError, match=r"too long for the sockets of Ray; set RAY_TMPDIR \(or TMPDIR\) to a shorter"):
        start(None)
    longest = 107 - len("/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
    check_socket_length(Path("x" * longest))
    with pytest.raises(UserError, match="is 1 characters too long"):
        check_socket_length(Path("x" * (longest + 1)))


def test_a_signal_while_ray_starts_interrupts_and_the_handlers_are_kept(start: Callable[..., list[Any]]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        start(SystemExit(15))  # of the handler that Ray installs
    assert signal.getsignal(signal.SIGTERM) == before
    assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
