"""What tests of several packages share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of data sets that are not part of the repository: $VDSM_DATA, or ../shared/data beside it."""
    folder = Path(os.environ.get("VDSM_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; set VDSM_DATA to the folder that holds lpc_li")
    return folder


@pytest.fixture(scope="session")
def sprites(shared_data: Path) -> Path:
    """The sheets of the Sprites set."""
    folder = shared_data / "lpc_li"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; set VDSM_DATA to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray of two CPUs for all tests of a session."""
    from cluster.ray_runtime import connect

    with connect(num_cpus=2):
        yield
