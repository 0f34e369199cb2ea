"""Exported models: what is written is read again, and nothing else is."""

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vdsm.code_density import FittedPriors, density_at
from vdsm.config import ModelConfig
from vdsm.disentangler import Disentangler
from vdsm.model_folder import ModelFacts, read_model_folder, write_model_folder

CONFIG = ModelConfig(
    num_experts=4, pose_size=4, dynamics_size=5, frame_size=32, encoder_channels=(4, 4, 8), encoder_hidden=16,
    static_hidden=8, decoder_channels=(16, 8, 4), rnn_width=8, rnn_layers=2, likelihood="gaussian",
)  # fmt: skip
FACTS = ModelFacts(4, True, 12.5, {"data_sha256": "ab", "step": 3})
Content = dict[str, Any]


@pytest.fixture(scope="module")
def model() -> Disentangler:
    torch.manual_seed(1)
    model = Disentangler(CONFIG).eval()
    model.temperature = 7.5
    model.fitted_priors = FittedPriors(density_at(torch.randn(4)), density_at(torch.randn(5)))
    return model


@pytest.fixture(scope="module")
def written(model: Disentangler, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_model_folder(folder, model, FACTS)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """Return a copy that may be changed."""
    return Path(shutil.copytree(written, tmp_path / "copy"))


def replace_weights(folder: Path, data: bytes) -> None:
    """Replace the weights, and the hash that config.json has of them."""
    (folder / "model.safetensors").write_bytes(data)
    change(folder, lambda content: content["weights"].update(sha256=hashlib.sha256(data).hexdigest()))


def replace_tensors(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, folder / "model.safetensors")
    replace_weights(folder, (folder / "model.safetensors").read_bytes())


def change(folder: Path, edit: Callable[[Content], object]) -> None:
    content = json.loads((folder / "config.json").read_text())
    edit(content)
    (folder / "config.json").write_text(json.dumps(content))


def refusal(folder: Path) -> str:
    """Return the message of one line with which a folder is refused."""
    with pytest.raises(ValueError, match=r".") as failure:
        read_model_folder(folder)
    message = str(failure.value)
    assert "\n" not in message
    assert message.startswith(str(folder))
    return message.removeprefix(f"{folder}/")


def test_a_model_is_read_as_it_was_written(model: Disentangler, written: Path) -> None:
    found, facts = read_model_folder(written)
    assert facts == FACTS
    assert (found.config, found.temperature, found.training) == (CONFIG, 7.5, False)
    assert found.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in found.state_dict().items())
    draws = [one.sample_prior(2, 6, torch.Generator().manual_seed(5)) for one in (model, found)]
    assert torch.equal(*draws)
    model_without = Disentangler(CONFIG)
    assert not torch.equal(model_without.sample_static(2, torch.Generator()), found.sample_static(2, torch.Generator()))


def test_equal_models_give_equal_bytes(model: Disentangler, written: Path, tmp_path: Path) -> None:
    write_model_folder(tmp_path, model, FACTS)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes()


def test_half_precision_takes_half_the_space_and_keeps_three_digits(model: Disentangler, tmp_path: Path) -> None:
    write_model_folder(tmp_path, model, FACTS, dtype="float16")
    found, _ = read_model_folder(tmp_path)
    for name, tensor in found.state_dict().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, model.state_dict()[name], rtol=1e-3, atol=1e-6)
    large = Disentangler(CONFIG)
    large.frame_model.static_loc.bias.data[0] = 1e5
    with pytest.raises(
        ValueError, match=r"the weight \S+static_loc\.bias is not finite as float16; export the model as f"
    ):
        write_model_folder(tmp_path, large, FACTS, dtype="float16")


class Boom:
    """Something that runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('code ran')",)


def test_a_pickle_under_the_name_of_the_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(3)}, tmp_path / "zip.pt")
    for data in (pickle.dumps(Boom()), (tmp_path / "zip.pt").read_bytes(), b"", b"{}", b"\x80" * 100):
        replace_weights(folder, data)
        assert refusal(folder).startswith("model.safetensors: is not a safetensors file, and was not read further (a p")


def test_damaged_and_exchanged_weights_are_refused(folder: Path, written: Path) -> None:
    data = bytearray((written / "model.safetensors").read_bytes())
    data[-3] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    assert refusal(folder).startswith("model.safetensors: is not the file that config.json names (SHA-256 mismatch)")
    replace_weights(folder, bytes(data[:-8]))
    assert refusal(folder).startswith("model.safetensors: is not a readable safetensors file (")
    (folder / "model.safetensors").unlink()
    assert refusal(folder).startswith("model.safetensors: is missing; get the complete folder")


def test_tensors_that_do_not_fit_the_settings_are_refused(folder: Path, written: Path) -> None:
    weights = load_file(written / "model.safetensors")
    name = "sequence_model.combiner.loc.weight"
    for changed, message in (
        ({one: value for one, value in weights.items() if one != name}, f"does not fit config.json: {name} is missing"),
        (weights | {name: weights[name].T.contiguous()}, f"does not fit config.json: {name} is 8x4 and must be 4x8"),
        (weights | {"extra": torch.zeros(2)}, "does not fit config.json: extra is 2 and must be missing"),
        (weights | {name: weights[name].double()}, "holds weights of type F32, F64; they must be F32 or F16"),
        (weights | {name: weights[name] * torch.nan}, f"the tensor {name} is not finite"),
        (
            weights | {"priors.static.code": torch.zeros(2)},
            "the fitted priors are damaged: priors.static.code is none of",
        ),
        (weights | {"priors.static.mean": torch.zeros(9)}, "the fitted prior"),
        (
            {one: v for one, v in weights.items() if one != "priors.static.blocks.0.weights"},
            "the fitted prior is damag",
        ),
        (
            {one: v for one, v in weights.items() if "priors.static" not in one},
            "the fitted priors are damaged: that of",
        ),
        (weights | {"priors.dynamics.blocks.0.coordinates": torch.tensor([1])}, "the fitted prior is damaged"),
    ):
        replace_tensors(folder, changed)
        assert refusal(folder).startswith(f"model.safetensors: {message}"), message


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.update(format="other"), "config.json: is not the config.json of an exported model; give a folder"),
        (lambda c: c.update(format_version=2), "config.json: has format_version 2, this version reads up to 1; update"),
        (lambda c: c.pop("model"), "config.json: has no model; give a folder that `vdsm export` wrote"),
        (lambda c: c.update(clip_frames=0), "config.json: clip_frames is 0; it must be from 1 to 65,536"),
        (lambda c: c.update(clip_frames=True), "config.json: clip_frames is true; it must be from 1"),
        (lambda c: c.update(sequence_stage=1), "config.json: sequence_stage is 1; it must be true or false"),
        (lambda c: c.update(temperature=-1), "config.json: temperature is -1; it must be a number above 0"),
        (lambda c: c.update(fps="12"), 'config.json: fps is "12"; it must be a number above 0'),
        (lambda c: c.update(origin=[]), "config.json: origin is a list or an object; it must be an object"),
        (lambda c: c.update(origin={"x": 1.5}), "config.json: origin is a list or an object; it must be a few short"),
        (
            lambda c: c["weights"].update(dtype="int8"),
            'config.json: weights.dtype is "int8"; it must be one of float32',
        ),
        (lambda c: c["weights"].update(sha256="../x"), 'config.json: weights.sha256 is "../x"; it must be a SHA-256'),
        (
            lambda c: c["model"].update(colour=1),
            "config.json: model.colour is not a setting of this version; update vd",
        ),
        (lambda c: c["model"].update(num_experts="4"), 'config.json: model.num_experts is "4", which is not allowed'),
        (
            lambda c: c["model"].update(rnn_width=10**9),
            "config.json: model.rnn_width is 1000000000, which is not allow",
        ),
        (
            lambda c: c["model"].update(rnn_dropout=10**400),
            "config.json: model.rnn_dropout is 1000000000000000000000000",
        ),
        (lambda c: c["model"].update(rnn_layers=65), "config.json: model.rnn_layers is 65, which is not allowed"),
        (lambda c: c["model"].update(likelihood="poisson"), 'config.json: model.likelihood is "poisson", which is not'),
        (lambda c: c["model"].update(frame_size=48), "config.json: model.frame_size is 48; it must be 32, 64 or 128"),
        (lambda c: c["model"].update(rnn_width=60_000), "model.safetensors: does not fit config.json: "),
    ],
)
def test_an_invalid_config_is_refused_by_field_and_value(
    folder: Path, edit: Callable[[Content], object], message: str
) -> None:
    change(folder, edit)
    assert refusal(folder).startswith(message)


def test_a_config_that_is_no_json_object_is_refused(folder: Path) -> None:
    for text in ("[]", "{", '{"a": NaN}', "[" * 100_000, "{" + " " * 2**20 + "}"):
        (folder / "config.json").write_text(text)
        assert refusal(folder).startswith("config.json: ")
    (folder / "config.json").unlink()
    assert refusal(folder).startswith("config.json: cannot be read (No such file or directory)")


def test_the_folder_of_given_weights_is_not_exported(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    config = ModelConfig(
        image_encoder="resnet18", encoder_weights="/private/of/me/weights.pth", num_experts=2, rnn_width=4
    )
    write_model_folder(tmp_path, Disentangler(config), FACTS)
    assert "private" not in (tmp_path / "config.json").read_text()
    assert read_model_folder(tmp_path)[0].config.encoder_weights == "weights.pth"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pipe_in_the_place_of_a_file_does_not_stop_the_reader(name: str, folder: Path) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ValueError, match=f"{name}: is not a regular file but a pipe"):
        read_model_folder(folder)
