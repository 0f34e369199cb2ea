"""`vdsm push` and `vdsm pull`, by the client of the Hugging Face Hub against a stand-in of its API."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import vdsm
from cluster.errors import UserError
from cluster.storage import api as storage
from pipeline import generate, pull, push
from pipeline.exports import execute
from pipeline.models.files import FILES, LARGEST, check_size
from tests.pipeline.models.hub_server import TOKEN, Hub, running_hub

pytest.importorskip("huggingface_hub")
# Of the client, which passes a file to its HTTP library by a former name.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with running_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        # As HF_HUB_DISABLE_XET=1 does; the stand-in does not speak the protocol of the Hub's own storage.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        yield server
        assert server.unknown == []


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the error of a command, which is one line and holds no credential."""
    text = capsys.readouterr().err
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, text
    assert TOKEN not in text
    return lines[0]


def test_a_pushed_model_is_pulled_loaded_and_generates(
    hub: Hub, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(shutil.copytree(exported, tmp_path / "model"))
    (model / "README.md").write_text("---\nlicense: mit\n---\n# Figures\n")
    (model / "notes.txt").write_text("private")
    push.main(["hf://us/figures", "--model", str(model), "--private"])
    out = capsys.readouterr().out
    assert out.splitlines()[0].startswith(f"{hub.url}/us/figures/commit/")
    assert hub.private == {"us/figures": True}
    assert hub.repos["us/figures"][-1].keys() == {"config.json", "model.safetensors", "README.md"}
    pull.main(["hf://us/figures", "--out", str(tmp_path / "pulled")])
    for name in ("config.json", "model.safetensors", "README.md"):
        assert (tmp_path / "pulled" / name).read_bytes() == (model / name).read_bytes()
    assert {path.name for path in (tmp_path / "pulled").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    expected = vdsm.load(exported).sample(2)
    assert np.array_equal(vdsm.load("hf://us/figures").sample(2), expected)
    generate.main(["--model", "hf://us/figures", "--what", "samples", "--out", str(tmp_path / "samples.gif")])
    assert (tmp_path / "samples.gif").stat().st_size > 1000


def test_a_revision_stays_what_it_was(hub: Hub, exported: Path, run: Path, tmp_path: Path) -> None:
    from vdsm.model_folder import write_model_folder

    push.main(["hf://us/figures", "--model", str(exported)])
    first = hub.commit_id("us/figures", 1)
    loaded = vdsm.load(exported)
    loaded.network.temperature = 1.0
    write_model_folder(tmp_path / "second", loaded.network, loaded.facts)
    push.main(["hf://us/figures", "--model", str(tmp_path / "second")])
    assert vdsm.load("hf://us/figures").network.temperature == 1.0
    assert vdsm.load(f"hf://us/figures@{first}").network.temperature == 10.0
    with pytest.raises(ValueError, match=r"^hf://us/figures@none: there is no such revision; omit it for the newest$"):
        vdsm.load("hf://us/figures@none")


def test_a_damaged_model_is_neither_pushed_nor_pulled(
    hub: Hub, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(shutil.copytree(exported, tmp_path / "model"))
    push.main(["hf://us/figures", "--model", str(model)])
    (model / "model.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(SystemExit, match="2"):
        push.main(["hf://us/figures", "--model", str(model)])
    assert "model.safetensors: is not a safetensors file" in refusal(capsys)
    assert len(hub.repos["us/figures"]) == 2
    hub.repos["us/figures"][-1]["model.safetensors"] = b"\x80\x04pickle"
    with pytest.raises(SystemExit, match="2"):
        pull.main(["hf://us/figures", "--out", str(tmp_path / "pulled")])
    assert "hf://us/figures/model.safetensors: is not a safetensors file" in refusal(capsys)
    assert not list((tmp_path / "pulled").iterdir())


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_files_that_are_too_large_are_not_fetched_from_wherever_they_are(
    name: str, hub: Hub, exported: Path, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    push.main(["hf://us/figures", "--model", str(exported)])
    for path in exported.iterdir():
        storage.upload(path, f"{s3_bucket}/figures/{path.name}")
    size = (exported / name).stat().st_size
    monkeypatch.setitem(LARGEST, name, size - 1)
    capsys.readouterr()
    message = f"{name}: has {size:,} bytes, and the limit is {size - 1:,}; it is no file of `vdsm export`"
    for act in (
        lambda: pull.main(["hf://us/figures", "--out", str(tmp_path / "pulled")]),
        lambda: push.main(["hf://us/other", "--model", f"{s3_bucket}/figures"]),
        lambda: push.main(["hf://us/other", "--model", str(exported)]),
    ):
        with pytest.raises(SystemExit, match="2"):
            act()
        assert message in refusal(capsys)
    for source in ("hf://us/figures", f"{s3_bucket}/figures"):
        with pytest.raises(ValueError, match=f"^{source}/{name}: has {size:,} bytes"):
            vdsm.load(source)
    assert not list((tmp_path / "pulled").iterdir())
    assert not any(request.startswith("GET") and request.endswith(name) for request in hub.requests)
    monkeypatch.setitem(LARGEST, name, size)
    assert vdsm.load("hf://us/figures").facts == vdsm.load(f"{s3_bucket}/figures").facts


def test_a_model_in_s3_that_lacks_a_file_is_one_line(
    hub: Hub, exported: Path, s3_bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    storage.upload(exported / "config.json", f"{s3_bucket}/figures/config.json")
    with pytest.raises(SystemExit, match="2"):
        push.main(["hf://us/figures", "--model", f"{s3_bucket}/figures"])
    message = f"{s3_bucket}/figures: has no model.safetensors; export the model again"
    assert message in refusal(capsys)
    with pytest.raises(ValueError, match=message):
        vdsm.load(f"{s3_bucket}/figures")


def test_a_file_whose_size_the_hub_does_not_state_is_not_fetched() -> None:
    with pytest.raises(UserError, match=r"^hf://us/figures/README\.md: its size is not stated"):
        check_size("hf://us/figures", "README.md", None)
    assert set(FILES) == set(execute.FILES)


def test_what_the_hub_refuses_is_one_line(
    hub: Hub, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repos["us/empty"] = [{"README.md": b""}]
    for url, message in (
        ("hf://us/none", "hf://us/none: there is no such model, or no access to it"),
        (
            "hf://us/empty",
            "hf://us/empty: has no config.json and no model.safetensors; it is not a model of `vdsm push`",
        ),
        ("--dry-run", "no name: is no model of the Hub; give hf://ORG/NAME"),
        ("hf://us", "hf://us: is no model of the Hub; give hf://ORG/NAME"),
    ):
        with pytest.raises(SystemExit, match="2"):
            pull.main([url, "--out", str(tmp_path / "pulled")])
        assert message in refusal(capsys)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(SystemExit, match="2"):
        push.main(["hf://us/figures", "--model", str(exported)])
    assert "hf://us/figures: the Hub refused it (status 401); check the name and `hf auth login`" in refusal(capsys)


def test_a_hub_that_does_not_respond_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SystemExit, match="2"):
        pull.main(["hf://us/figures", "--out", str(tmp_path / "pulled")])
    assert "hf://us/figures: the Hub does not respond (" in refusal(capsys)
