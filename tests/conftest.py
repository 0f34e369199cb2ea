"""What tests of several packages share."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cluster.development.s3_server import S3Server

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--trials", type=int, help="how often a test of random kills or damage tries; without it, a few")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--trials") is None:
        for item in items:
            if item.get_closest_marker("campaign"):
                item.add_marker(pytest.mark.skip(reason="takes five minutes; `pytest --trials 1` runs it"))


@pytest.fixture(scope="session")
def trials(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """`trials(short)`: how often to try, `short` unless --trials says otherwise."""
    return lambda short: request.config.getoption("--trials") or short


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


def folder_or_skip(folder: Path) -> Path:
    """`folder`, where it is there."""
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; set VDSM_DATA to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def sprites(shared_data: Path) -> Path:
    """The sheets of the Sprites set."""
    return folder_or_skip(shared_data / "lpc_li")


@pytest.fixture(scope="session")
def universal_sprites(shared_data: Path) -> Path:
    """The sheets of the Sprites of the Universal set."""
    return folder_or_skip(shared_data / "lpc_universal")


@pytest.fixture(scope="session")
def mnist(shared_data: Path) -> Path:
    """The four files of MNIST."""
    return folder_or_skip(shared_data / "mnist")


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray of two CPUs for all tests of a session."""
    from cluster.ray_runtime import connect

    with connect(num_cpus=2):
        yield


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator["S3Server"]:
    """A real S3 server that checks credentials."""
    from cluster.development.s3_server import serve

    with serve(tmp_path_factory.mktemp("s3"), access_key="test-key", secret_key="test-secret-Zq81") as server:
        yield server


@pytest.fixture
def s3_bucket(s3_server: "S3Server", monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a new, empty bucket; the environment of the test leads to its server and lets in."""
    import boto3

    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    # a session of its own: the default one keeps the keys of whichever test used it first
    boto3.session.Session().client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}"


@pytest.fixture(scope="session")
def figures_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset of the built-in figures: 12 identities, every action, several shards. Not to be changed."""
    from preprocessing.recipe import DataRecipe, ShardsConfig
    from preprocessing.sharding import manifest, plan, preview, rejects
    from preprocessing.sharding.output_lock import acquire_output
    from preprocessing.sharding.write_shard import write_shard
    from preprocessing.sources.config import FiguresConfig, SourceConfig
    from preprocessing.sources.registry import make_source

    folder = tmp_path_factory.mktemp("figures")
    figures = FiguresConfig(identities=12, test_fraction=0.25)
    recipe = DataRecipe(source=SourceConfig(figures=figures), shards=ShardsConfig(target_mb=1.5))
    source = make_source(recipe.source, recipe.seed)
    planned = plan.make_plan(recipe, source)
    url = str(folder)
    acquire_output(url, planned)
    summaries = [write_shard(url, planned.identity, shard, source) for shard in planned.shards]
    rejected = rejects.write_rejects(url, [])
    made = manifest.make_manifest(url, planned, source, summaries, rejected)
    preview.write_preview(url, made, rejected)
    manifest.write_manifest(url, made)
    return folder
