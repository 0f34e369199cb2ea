"""ONNX files with which a browser computes what the studio's server does, one clip at a time.

encode.onnx   frames f32 [1, T, C, H, W] in [0, 1] -> latent [1, K] before the softmax, static [1, K], pose [1, T, Z],
              dynamics [1, D]
poses.onnx    dynamics [1, D], state [1, S], started [1, 1] -> pose [1, T, Z], state [1, S]
decode.onnx   pose [1, T, Z], static [1, K] -> frames [1, T, C, H, W] in [0, 1]
density.onnx  latent [1, K] -> log density [1] of the model's fitted prior, if it has one

T is the clip length of the training. `poses` continues from the state that it returned, so clips have any length; with
`started` 0 it begins, whatever the state.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from cluster.errors import UserError
from pipeline.exports.onnx_files import write_onnx_file
from vdsm.code_density import CodeDensity
from vdsm.disentangler import Disentangler
from vdsm.dynamics_decoders import DynamicsDecoder, PhaseDecoder


class _Encode(nn.Module):
    def __init__(self, model: Disentangler) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        frame_model, sequence_model = self.model.frame_model, self.model.sequence_model
        latents = frame_model.encoder(frames)
        latent, _ = frame_model.pool_static(latents)
        dynamics, _ = sequence_model.dynamics_encoder(latents.pose_loc)
        return latent, frame_model.static_code(latent, self.model.temperature), latents.pose_loc, dynamics


class _Poses(nn.Module):
    """The means of q(z_t | z_{t-1}, d) of the next T frames.

    The state is z_{t-1} with the state of the decoder of the dynamics: output, hidden and cell of an LSTM, or the time
    of a phase.
    """

    def __init__(self, model: Disentangler, frames: int) -> None:
        super().__init__()
        self.sequence, self.frames = model.sequence_model, frames
        self.decoder = model.sequence_model.dynamics_decoder
        self.pose_size = model.config.pose_size
        size = 1
        if isinstance(self.decoder, DynamicsDecoder):
            _, layers, width = self.decoder.state_shape
            size = (2 * layers + 1) * width
        self.state_size = self.pose_size + size

    def forward(self, dynamics: Tensor, state: Tensor, started: Tensor) -> tuple[Tensor, Tensor]:
        state = started * state + (1 - started) * self._first(dynamics)
        pose, rest = state.split([self.pose_size, self.state_size - self.pose_size], dim=1)
        outputs, rest = self._lstm(rest) if isinstance(self.decoder, DynamicsDecoder) else self._time(dynamics, rest)
        drive, poses = self.sequence.combiner.drive(outputs, dynamics), []
        for frame in range(self.frames):
            pose, _ = self.sequence.combiner(pose, drive[:, frame])
            poses.append(pose)
        return torch.stack(poses, dim=1), torch.cat([pose, rest], dim=1)

    def _first(self, dynamics: Tensor) -> Tensor:
        pose = self.sequence.combiner.first_pose
        if isinstance(self.decoder, DynamicsDecoder):
            return torch.cat([pose, self.decoder.first_input[0], self.decoder.start(dynamics)], dim=1)
        return torch.cat([pose, torch.zeros(1, 1)], dim=1)

    def _lstm(self, rest: Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(self.decoder, DynamicsDecoder)
        _, layers, width = self.decoder.state_shape
        output, hidden, cell = rest.split([width, layers * width, layers * width], dim=1)
        states = hidden.view(layers, 1, width), cell.view(layers, 1, width)
        outputs = []
        for _ in range(self.frames):
            found, states = self.decoder.rnn(output[:, None], states)
            output = found[:, 0]
            outputs.append(output)
        rest = torch.cat([output, states[0].reshape(1, -1), states[1].reshape(1, -1)], dim=1)
        return torch.stack(outputs, dim=1), rest

    def _time(self, dynamics: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(self.decoder, PhaseDecoder)
        return self.decoder.at(dynamics, time[0] + torch.arange(self.frames)), time + self.frames


class _Decode(nn.Module):
    def __init__(self, model: Disentangler) -> None:
        super().__init__()
        self.model = model

    def forward(self, pose: Tensor, static: Tensor) -> Tensor:
        return self.model.decode(pose, static)


class _Density(nn.Module):
    """`CodeDensity.log_prob`, with all inverses computed in advance."""

    def __init__(self, density: CodeDensity) -> None:
        super().__init__()
        self.mean, self.inverse = density.mean.float(), torch.linalg.pinv(density.mixing).T.float()
        self.volume = float(0.5 * torch.linalg.slogdet(density.mixing.T @ density.mixing).logabsdet)
        self.blocks = []
        for block in density.blocks:
            size = block.means.shape[1]
            inverse = torch.linalg.inv(block.cholesky)
            logs = block.cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1)
            constant = block.weights.log() - logs - 0.5 * size * torch.log(torch.tensor(2 * torch.pi))
            self.blocks.append((block.coordinates, block.means.float(), inverse.float(), constant.float()))

    def forward(self, latent: Tensor) -> Tensor:
        coordinates = (latent - self.mean) @ self.inverse
        total = torch.full((1,), -self.volume)
        for index, means, inverse, constant in self.blocks:
            around = coordinates[:, index] - means  # [M, d]
            white = (inverse @ around[..., None])[..., 0]
            total = total + torch.logsumexp(constant - 0.5 * white.square().sum(-1), 0)
        return total


class _OriginalDensity(nn.Module):
    def __init__(self, density: CodeDensity) -> None:
        super().__init__()
        self.density = density

    def forward(self, latent: Tensor) -> Tensor:
        return self.density.log_prob(latent.to(self.density.mean)).float()


class _OriginalPoses(nn.Module):
    """Poses of 2 T frames by the model, of which a continued file returns the second half."""

    def __init__(self, model: Disentangler, poses: _Poses) -> None:
        super().__init__()
        self.model, self.poses = model, poses

    def forward(self, dynamics: Tensor, state: Tensor, started: Tensor) -> tuple[Tensor, Tensor]:
        whole = self.model.poses(dynamics, 2 * self.poses.frames)
        return whole[:, self.poses.frames :], self.poses(dynamics, state, started)[1]


def write_browser_files(folder: Path, model: Disentangler, clip_frames: int) -> dict[str, int]:
    """Write the files; return the size of `state`.

    Raises:
        UserError: their numbers differ from the model's, or the model cannot be written.
    """
    if model.refinement_steps:
        raise UserError(
            "the model refines the static code of each clip by gradient steps, which a browser cannot; "
            "use a run with evaluation.refinement_steps 0"
        )
    config = model.config
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(1, clip_frames, config.channels, config.frame_size, config.frame_size, generator=generator)
    encode, poses, decode = _Encode(model).eval(), _Poses(model, clip_frames).eval(), _Decode(model).eval()
    with torch.no_grad():
        _, static, pose, dynamics = encode(frames)
        state = poses(dynamics, torch.zeros(1, poses.state_size), torch.zeros(1, 1))[1]
    works: list[tuple[str, tuple[tuple[str, ...], tuple[str, ...]], nn.Module, tuple[Tensor, ...], nn.Module]] = [
        ("encode", (("frames",), ("latent", "static", "pose", "dynamics")), encode, (frames,), encode),
        ("poses", (("dynamics", "state", "started"), ("pose", "next")), poses, (dynamics, state, torch.ones(1, 1)),
         _OriginalPoses(model, poses)),
        ("decode", (("pose", "static"), ("frames",)), decode, (pose, static), decode),
    ]  # fmt: skip
    if model.fitted_priors is not None:
        density = model.fitted_priors.static
        works.append(
            (
                "density",
                (("latent",), ("density",)),
                _Density(density).eval(),
                (density.sample(1, generator).float(),),
                _OriginalDensity(density),
            )
        )
    for name, names, module, example, original in works:
        write_onnx_file(folder / f"{name}.onnx", names, module, example, original, batches=None)
    return {"state": poses.state_size}
