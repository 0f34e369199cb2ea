"""Before `vdsm studio` starts anything: tokens, ports, addresses, and one line for what is wrong. Without Ray."""

import re
import socket
from pathlib import Path

import pytest

from cluster.errors import UserError
from pipeline.cli import main
from pipeline.web_studio.settings import StudioSettings
from pipeline.web_studio.start import address, free_port, serve_studio, token_for


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["studio", *args])
    assert stopped.value.code == 2
    return capsys.readouterr().err.removeprefix("error: ").strip()


def test_loopback_needs_no_token_and_everything_else_a_new_one() -> None:
    assert [token_for(host, None) for host in ("127.0.0.1", "localhost", "::1")] == [None] * 3
    tokens = {token_for(host, None) for host in ("0.0.0.0", "::", "192.168.1.7", "studio.example")}
    assert len(tokens) == 4
    assert all(token and len(token) == 64 for token in tokens)


def test_a_token_of_a_file_is_needed_on_loopback_too(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("0123456789abcdef\n")
    assert token_for("127.0.0.1", file) == token_for("0.0.0.0", file) == "0123456789abcdef"
    assert address("127.0.0.1", 8450, "0123456789abcdef") == "http://127.0.0.1:8450/?token=0123456789abcdef"
    assert address("::1", 8450, None) == "http://[::1]:8450/"


BAD = (b"", b"short", b"two words that are long", b"\xff" * 20, "ümlaut-ümlaut-ümlaut".encode())


@pytest.mark.parametrize("content", BAD)
def test_a_bad_token_file_is_named_without_its_content(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(f"--token-file {file}: ")) as error:
        token_for("0.0.0.0", file)
    assert content.decode(errors="replace")[5:] not in str(error.value) or not content[5:]
    with pytest.raises(UserError, match="cannot be read"):
        token_for("0.0.0.0", tmp_path / "absent")


def test_a_taken_port_is_passed_over_or_refused_if_it_was_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port("127.0.0.1", None, port) > port
        message = refused(capsys, "--port", str(port))
    assert message == f"cannot listen on 127.0.0.1:{port} (Address already in use); give another --port or --host"
    assert "cannot listen on 192.0.2.1:" in refused(capsys, "--host", "192.0.2.1")


def test_two_models_are_refused_and_a_dry_run_starts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert "are two models; give one of them" in refused(capsys, "--run", "a", "--model", "b")
    main(["studio", "--dry-run"])
    assert re.fullmatch(r"would serve figures on 127\.0\.0\.1:\d+\n", capsys.readouterr().out)


def test_an_absent_model_and_a_cluster_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, "--model", "nothing").startswith("nothing: there is no such folder, and no shipped model")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    with pytest.raises(UserError, match="unset it, or deploy the studio there with `serve deploy cluster/studio"):
        serve_studio(StudioSettings(), "127.0.0.1", 8450, None)


def test_an_installation_without_its_libraries_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cluster import extras

    found = extras.importlib.util.find_spec
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None if name == "fastapi" else found(name))
    assert refused(capsys) == "this needs fastapi, which is not installed; pip install 'vdsm-pipeline[studio]'"
