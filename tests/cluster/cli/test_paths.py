"""A `~` at the start of a path is the home folder, in every option of every command and in recipes.

No path holds credentials.
"""

import importlib
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.cli.paths import expand_home
from cluster.cli.run import parse
from cluster.cli.settings import Controls, option, paths, settings_of
from cluster.errors import UserError
from cluster.storage import api as storage
from pipeline.cli import COMMANDS
from preprocessing.appearance.stored import read_embeddings
from preprocessing.sources.listing import find_inputs
from preprocessing.verify import VerifyCommand
from tests.cluster.cli.commands import TrainLike, recipe, user_error

NOT_PATHS = {
    "name",
    "bucket",
    "host",
    "folders",
    "pattern",
    "numbers",
    "label_names",
    "worker_resource",
    "system",
    "device",
    "identity",
    "descriptor",
    "license",
    "to",
    "source",
    "message",
    "column",
    "label_columns",
}
"""Last part of the dotted path of those settings that hold text but no path."""
RESOLVED_LATER = {"model.encoder_weights", "training.start_from"}
"""Paths in sections that need no configuration library, which expand them where they are used (tested there)."""


def command_of(name: str) -> type[Controls]:
    """Return the class of a command."""
    module = importlib.import_module(COMMANDS[name][0])
    (found,) = (
        value for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Controls) and value.__module__ == module.__name__
    )  # fmt: skip
    return found


def setting_of(cls: Any, path: str) -> Any:
    *sections, last = path.split(".")
    for name in sections:
        cls = settings_of(cls)[name].section
    return settings_of(cls)[last]


def kinds(annotation: Any) -> set[Any]:
    """Return the plain types in an annotation: {str, NoneType} of `tuple[str, ...] | None`."""
    return {one for part in typing.get_args(annotation) for one in kinds(part)} or {annotation}


def path_settings(command: type[Controls]) -> list[str]:
    return [
        path for path in paths(command)
        if kinds(setting_of(command, path).annotation) & {str, Path} and path.rpartition(".")[2] not in NOT_PATHS
    ]  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_every_path_of_every_command_may_start_with_a_tilde(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "config.yaml").write_text("{}")
    command = command_of(name)
    found = path_settings(command)
    assert len(found) >= 2, found
    given = {path: "config.yaml" if path == "config" else path for path in found if path not in RESOLVED_LATER}
    args = [part for path, file in given.items() for part in (option(path), f"~/{file}")]
    args += ["--name", "x"] if "name" in paths(command) else []
    parsed = parse(command, args, prog="vdsm x")
    for path, file in given.items():
        value: Any = parsed
        for part in path.split("."):
            value = getattr(value, part)
        assert str(value[0] if isinstance(value, list | tuple) else value) == f"{tmp_path}/{file}", path


def test_a_file_of_embeddings_may_be_below_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match=f"{tmp_path}/own.npz is missing"):
        read_embeddings("~/own.npz", [])


def test_a_recipe_may_hold_a_tilde_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "recipe.yaml").write_text("source: {path: ~/videos, videos: {labels: {sidecar: ~/labels.csv}}}")
    parsed: Any = parse(command_of("shard"), ["--config=~/recipe.yaml", "--out=~"], prog="vdsm shard")
    assert parsed.source.path == f"{tmp_path}/videos"
    assert parsed.source.videos.labels.sidecar == f"{tmp_path}/labels.csv"
    assert parsed.out == str(tmp_path)


def test_the_recipe_of_a_run_is_found_below_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.evaluation.inputs import with_recipe_of_run

    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("{}")
    assert with_recipe_of_run(["--run=~/run"], tmp_path)[:2] == ["--config", f"{tmp_path}/run/config.yaml"]


@pytest.mark.slow
def test_the_cache_may_be_below_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures_dataset: Path
) -> None:
    from preprocessing.dataset.reader import ClipDataset

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VDSM_CACHE", "~/cache")
    assert ClipDataset(str(figures_dataset), "train")._cache._folder == tmp_path / "cache" / "shards"


def test_given_weights_may_be_below_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision")
    from vdsm.backbones import Backbone
    from vdsm.config import ModelConfig
    from vdsm.disentangler import Disentangler

    monkeypatch.setenv("HOME", str(tmp_path))
    loaded: list[Path] = []
    monkeypatch.setattr(Backbone, "load", lambda self, path: loaded.append(path))
    Disentangler(ModelConfig(image_encoder="resnet18", encoder_weights="~/weights.pth")).load_given_weights()
    assert loaded == [tmp_path / "weights.pth"]


def test_other_paths_are_left_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("s3://bucket/~/x", "a/~/b", "./~", "", "data~", "postgresql://user@host/optuna"):
        assert expand_home(path) == path
    Path("~$notes.mp4").touch()
    assert expand_home("~$notes.mp4") == "~$notes.mp4"


def test_a_home_folder_that_is_not_known_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"^~no-such-user/x: the home folder of ~no-such-user is not known; give the"):
        expand_home("~no-such-user/x")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 4_000_000)
    with pytest.raises(UserError, match=r"the home folder of ~ is not known"):
        expand_home("~/x")


@pytest.mark.parametrize(
    "address",
    ["s3://KEY:SECRET@bucket/x", "S3://KEY:SECRET@bucket/x", "s3://bucket/x?X-Amz-Signature=SECRET",
     "https://b.s3.amazonaws.com/x?X-Amz-Signature=SECRET", "gs://KEY:SECRET@bucket/x", "az://c/x?sv=1&sig=SECRET"],
)  # fmt: skip
def test_an_address_with_credentials_is_refused_before_it_is_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    text = f"source: {{name: videos, path: '{address}', videos: {{labels: {{sidecar: '{address}'}}}}}}"
    message = user_error(capsys, TrainLike, "--data", "a", "--config", recipe(tmp_path, text), "--print-config")
    assert "holds credentials, which would be stored and logged; name s3://bucket/prefix alone" in message
    assert "SECRET" not in message
    with pytest.raises(UserError, match="holds credentials"):
        parse(VerifyCommand, ["--data", address], prog="vdsm verify")
    for read in (storage.is_remote, storage.read_bytes, find_inputs):
        with pytest.raises(UserError, match="holds credentials") as raised:
            read(address)
        assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    text = yaml.safe_dump({"source": {"path": name}})
    message = user_error(capsys, TrainLike, "--data", "a", "--config", recipe(tmp_path, text))
    assert message.endswith(": holds a character that no name of a file can have; correct the name")
    assert expand_home("caf\udce9") == "caf\udce9"  # bytes that are not UTF-8, in an argument
