"""One place sets torch's flags of number formats, and knows which devices compute fast in bf16."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from vdsm.device import CPU
from vdsm.float_formats import has_fast_bf16, set_flags


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False
    torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
    set_flags("fp32")


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_only_tf32_rounds_products_and_convolutions(precision: str) -> None:
    set_flags("fp32" if precision == "tf32" else "tf32")
    set_flags(precision)  # type: ignore[arg-type]
    assert torch.backends.cudnn.allow_tf32 == (precision == "tf32")
    assert torch.backends.cuda.matmul.allow_tf32 == (precision == "tf32")
    assert torch.get_float32_matmul_precision() == ("high" if precision == "tf32" else "highest")


def test_determinism_is_switched_on_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # restored at the end
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    set_flags("fp32")
    assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    set_flags("fp32", deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.deterministic
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.parametrize(
    ("text", "is_fast"),
    [
        ("flags\t\t: fpu sse2 avx2 f16c", False), ("flags\t\t: fpu avx512f avx512_bf16", True),
        ("flags\t\t: fpu amx_tile amx_bf16", True), ("Features\t: fp asimd bf16", True),
        ("Features\t: fp asimd", False), ("bugs\t\t: bf16", False), ("", False),
    ],
)  # fmt: skip
def test_bf16_is_fast_on_a_cpu_with_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, text: str, is_fast: bool
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self: f"processor\t: 0\n{text}\n")
    assert has_fast_bf16(CPU) == is_fast
