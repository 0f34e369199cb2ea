"""The runtime of the static edition: from npm, or from a folder, and only the expected files. Without npm."""

import json
import os
from pathlib import Path

import pytest

from cluster.errors import UserError
from pipeline.cli import main
from pipeline.web_studio import onnxruntime_web
from pipeline.web_studio.onnxruntime_web import FILES, VERSION, runtime_files


def package(folder: Path, version: str = VERSION) -> Path:
    """Write a package whose files are not the expected ones."""
    for path in FILES.values():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")
    (folder / "package.json").write_text(json.dumps({"version": version}))
    return folder


def program(folder: Path, script: str) -> None:
    """Put a program named npm into a folder."""
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)


def test_without_npm_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VDSM_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError) as error:
        runtime_files(None)
    assert str(error.value) == (
        "the static edition needs onnxruntime-web, which npm downloads, and npm is not installed; install npm, or give "
        f"--onnxruntime-web the folder of onnxruntime-web {VERSION}"
    )


def test_a_download_that_fails_or_differs_is_refused_and_not_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VDSM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    program(tmp_path, "echo 'npm error network unreachable' >&2; exit 1")
    with pytest.raises(UserError, match=r"could not download onnxruntime-web .* \(npm error network unreachable\)"):
        runtime_files(None)
    program(tmp_path, "echo other > onnxruntime-web.tgz")
    with pytest.raises(UserError, match="has another SHA-512 than expected"):
        runtime_files(None)
    assert not (tmp_path / "cache").exists()


def test_a_folder_must_hold_the_package_of_this_version_unchanged(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"holds onnxruntime-web 1\.0\.0; version {VERSION} is needed"):
        runtime_files(package(tmp_path / "old", "1.0.0"))
    with pytest.raises(UserError, match=r"dist/ort\.wasm\.bundle\.min\.mjs is not that of onnxruntime-web"):
        runtime_files(package(tmp_path / "changed"))
    with pytest.raises(UserError, match=r"is not the package onnxruntime-web: dist/.* cannot be read"):
        runtime_files(tmp_path)


def test_the_command_refuses_a_folder_with_other_files_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cluster.extras.require", lambda _: None)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(SystemExit):
        main(["studio", "--static", str(tmp_path)])
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .endswith(f"{tmp_path}: holds something other than an edition of the studio; choose another --static")
    )
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    main(["studio", "--static", str(tmp_path / "new"), "--dry-run"])
    assert capsys.readouterr().out == f"would write figures into {tmp_path / 'new'}\n"


def test_the_licence_travels_with_the_runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import hashlib

    monkeypatch.setattr(onnxruntime_web, "SHA256", dict.fromkeys(FILES, hashlib.sha256(b"x").hexdigest()))
    files = runtime_files(package(tmp_path))
    assert set(files) == {"ort.js", "ort.wasm", "ort-LICENSE.txt"}
    assert b"MIT License\n\nCopyright (c) Microsoft Corporation" in files["ort-LICENSE.txt"]
