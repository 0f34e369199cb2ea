"""Programs of torch.export: encoder and decoder of a model, for use without this package.

encode.pt2   frames f32 [B, T, C, H, W] in [0, 1] -> static f32 [B, K], pose f32 [B, T, Z], dynamics f32 [B, D]
decode.pt2   static [B, K] and dynamics [B, D] -> frames f32 [B, T, C, H, W]; without a sequence stage, pose [B, T, Z]
             takes the place of dynamics

B is free; T is the clip length of the training.
"""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from cluster.errors import UserError, first_line
from vdsm.disentangler import Disentangler
from vdsm.model_folder import ModelFacts

PROGRAMS = ("encode.pt2", "decode.pt2")


class _Encode(nn.Module):
    def __init__(self, model: Disentangler) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(self.model.encode(frames))  # type: ignore[return-value]


class _Decode(nn.Module):
    def __init__(self, model: Disentangler, facts: ModelFacts) -> None:
        super().__init__()
        self.model, self.facts = model, facts

    def forward(self, static: Tensor, moving: Tensor) -> Tensor:
        poses = self.model.poses(moving, self.facts.clip_frames) if self.facts.sequence_stage else moving
        return self.model.decode(poses, static)


def example_modules(model: Disentangler, facts: ModelFacts) -> list[tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return what encodes and what decodes, in evaluation mode, each with an example of its inputs, of 3 clips."""
    size, config = facts.clip_frames, model.config
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(3, size, config.channels, config.frame_size, config.frame_size, generator=generator)
    codes = model.encode(frames)
    moving = codes.dynamics if facts.sequence_stage else codes.pose
    return [(_Encode(model).eval(), (frames,)), (_Decode(model, facts).eval(), (codes.static, moving))]


def exported_program(module: nn.Module, example: tuple[Tensor, ...]) -> torch.export.ExportedProgram:
    """Return a module as a program whose number of clips is free."""
    clips = torch.export.Dim("clips", min=1, max=1 << 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the views of an LSTM's weights, which are constant
        return torch.export.export(module, example, dynamic_shapes=tuple({0: clips} for _ in example))


def write_programs(folder: Path, model: Disentangler, facts: ModelFacts) -> None:
    """Write both programs, and check that they compute what the model does, bit for bit.

    Raises:
        UserError: they do not, or this version of torch cannot export the model.
    """
    for name, (module, example) in zip(PROGRAMS, example_modules(model, facts), strict=True):
        try:
            program = exported_program(module, example)
        except Exception as error:  # many kinds, all of them about what torch.export supports
            raise UserError(
                f"torch.export cannot export this model: {first_line(error):.200}; omit --programs"
            ) from error
        torch.export.save(program, folder / name)
        _check(program.module(), module, example, folder / name)


def _check(program: nn.Module, module: nn.Module, example: tuple[Tensor, ...], path: Path) -> None:
    """Check a program at the batch size that it was made with, and at another."""
    for count in (len(example[0]), 1):
        inputs = tuple(tensor[:count] for tensor in example)
        with torch.no_grad():
            found, expected = program(*inputs), module(*inputs)
        pairs = zip(found, expected, strict=True) if isinstance(expected, tuple) else [(found, expected)]
        if not all(torch.equal(one, two) for one, two in pairs):
            raise UserError(f"{path.name}: the program computes other numbers than the model; omit --programs")
