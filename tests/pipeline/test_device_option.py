"""A device that is not here is refused in one line, before any work."""

import importlib

import pytest

from vdsm import device

ARGS = {
    "evaluate": ["--run", "nowhere", "--data", "nowhere", "--out", "nowhere"],
    "generate": ["--run", "nowhere", "--out", "nowhere"],
    "adapt": ["--run", "nowhere", "--videos", "nowhere.mp4", "--out", "nowhere"],
}


@pytest.mark.parametrize("command", ARGS)
def test_a_device_that_is_not_here_is_refused(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(device, "_count", lambda kind: 0)
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(f"pipeline.{command}").main([*ARGS[command], "--device", "cuda:1"])
    assert caught.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: --device is cuda:1, but torch finds no cuda device here")
    assert error.endswith("it finds cpu")
