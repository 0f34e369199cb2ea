"""Fixtures shared by the tests of several packages."""

import contextlib
import dataclasses
import os
import shutil
import signal
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

from tests import selection
from tests.leftovers import pytest_runtest_teardown, undisturbed  # noqa: F401 (a hook and a fixture)
from tests.selection import (  # noqa: F401 (hooks)
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_testnodedown,
    pytest_xdist_make_scheduler,
)

if TYPE_CHECKING:
    from cluster.development.s3_server import S3Server
    from preprocessing.clip import Clip
    from tests.s3_store import S3Store

ROOT = Path(__file__).resolve().parents[1]

# Ray runs its workers at nice 15, where they starve beside the tests of another process.
os.environ.setdefault("RAY_worker_niceness", "0")
# Tests run in as many processes as there are cores. With more threads than cores, threads wait for each other for most
# of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What a shell starts in the background ignores SIGINT, and with nohup SIGHUP. Commands that tests start would inherit
# that, but not a handler.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, lambda *_: None)):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--trials", type=int, help="number of trials of each test of random kills or damage; a few by default"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    selection.mark_by_fixture(items)
    selection.arrange(items)
    config.stash[_sharing] = selection.files_with_local_ray(items)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    if items:
        selection.count_left_out(items[0].config, items)


@pytest.fixture(scope="session")
def trials(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """Return `trials(short)`: the number of trials, `short` unless --trials is given."""
    return lambda short: request.config.getoption("--trials") or short


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of datasets outside the repository: $VDSM_DATA, or ../shared/data next to the repository."""
    folder = Path(os.environ.get("VDSM_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist; set VDSM_DATA to the folder that holds lpc_li")
    return folder


def folder_or_skip(folder: Path) -> Path:
    """Return `folder`, or skip the test if it does not exist."""
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist; set VDSM_DATA to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def sprites(shared_data: Path) -> Path:
    """Return the folder of the Sprites sheets."""
    return folder_or_skip(shared_data / "lpc_li")


@pytest.fixture(scope="session")
def universal_sprites(shared_data: Path) -> Path:
    """Return the folder of the Sprites sheets of the Universal set."""
    return folder_or_skip(shared_data / "lpc_universal")


@pytest.fixture(scope="session")
def mnist(shared_data: Path) -> Path:
    """Return the folder of the four MNIST files."""
    return folder_or_skip(shared_data / "mnist")


class LocalRay:
    """One Ray with two CPUs for all tests of this process, whose workers have access to an S3 server."""

    def __init__(self, variables: dict[str, str]) -> None:
        self._variables, self._running = variables, contextlib.ExitStack()
        self._is_open = False

    def open(self) -> None:
        """Connect, if it is not connected."""
        from cluster.ray_runtime import connect

        if not self._is_open:
            with pytest.MonkeyPatch.context() as patch:
                for name, value in self._variables.items():
                    patch.setenv(name, value)
                self._running.enter_context(connect(num_cpus=2))
            self._is_open = True

    def close(self) -> None:
        """Shut it down, if it runs."""
        self._running.close()
        self._is_open = False


_local_ray = pytest.StashKey[LocalRay]()
_sharing = pytest.StashKey[set[Path]]()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Shut Ray down while files run that do not use it: its idle processes take 0.15 of a core."""
    ray = item.config.stash.get(_local_ray, None)
    if ray is not None:
        if item.path in item.config.stash[_sharing]:
            ray.open()
        else:
            ray.close()


@pytest.fixture(scope="session")
def local_ray(
    request: pytest.FixtureRequest, s3_server: "S3Server", tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Connect all tests of a process to one Ray with two CPUs, whose workers have access to `s3_server`."""
    from tests.ray_workers import forked_workers

    ray = LocalRay({**s3_server.environment(), "VDSM_CACHE": str(tmp_path_factory.mktemp("cache"))})
    request.config.stash[_local_ray] = ray
    with forked_workers(tmp_path_factory.mktemp("ray")):
        ray.open()
        yield
        ray.close()


@pytest.fixture(scope="session")
def s3_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator["S3Store"]:
    """Start a real S3 server that checks credentials. A test that kills it restarts it."""
    from tests.s3_store import S3Store

    store = S3Store(tmp_path_factory.mktemp("s3"))
    yield store
    store.close()


@pytest.fixture(scope="session")
def s3_server(s3_store: "S3Store") -> "S3Server":
    """Return the server of `s3_store`."""
    return s3_store.server


@pytest.fixture
def s3_bucket(s3_server: "S3Server", monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of a new, empty bucket; the environment holds the server's address and credentials."""
    import boto3

    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    # A new session: the default one keeps the credentials of the first test that used it.
    boto3.session.Session().client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}"


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of the browser."""
    from tests.pipeline.chromium import find_chromium

    binary = find_chromium()
    if binary is None:
        pytest.skip("Chromium is not installed; install it, or set $CHROMIUM to its path")
    return binary


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Return `made_once(name, make)`: a folder filled by `make`, once for all processes of this test run."""

    def get(name: str, make: Callable[[Path], None]) -> Path:
        base = tmp_path_factory.getbasetemp()
        folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
        done = folder.with_suffix(".done")
        with FileLock(folder.with_suffix(".lock")):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return get


@pytest.fixture(scope="session")
def figures_dataset(made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """Return a small dataset of the built-in figures: 12 identities, every action, several shards. Do not modify it."""
    return made_once("figures", write_figures)


@pytest.fixture(scope="session")
def small_figures(made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """Return the clips of `figures_dataset` with frames of 32 pixels, for which training takes a third of the time."""
    return made_once("small-figures", lambda folder: write_figures(folder, halve=True))


@pytest.fixture
def file_system_without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make file locks, hard links and symbolic links fail, as some file systems do."""

    def flock(*_: Any) -> None:
        raise OSError(38, "Function not implemented")

    def link(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("fcntl.flock", flock)
    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(os, "symlink", link)


@pytest.fixture(scope="module")
def few_resamples() -> Iterator[None]:
    """Take intervals of Frechet distances from a fortieth of the resamples, where no test states anything of them."""
    from tests.resamples import fewer_resamples

    with fewer_resamples():
        yield


@pytest.fixture(scope="module")
def rough_probes() -> Iterator[None]:
    """Fit probes and compare reconstructions roughly, where no test states anything of their scores."""
    from tests.resamples import rough_scores

    with rough_scores():
        yield


def write_figures(folder: Path, *, halve: bool = False) -> None:
    """Write a dataset of figures as the sharding job does, without Ray; `halve` averages blocks of 2x2 pixels."""
    from preprocessing.dataset.manifest import write_manifest
    from preprocessing.recipe import DataRecipe, ShardsConfig
    from preprocessing.sharding.manifest import make_manifest
    from preprocessing.sharding.output_lock import acquire_output
    from preprocessing.sharding.plan import make_plan
    from preprocessing.sharding.preview import write_preview
    from preprocessing.sharding.rejects import write_rejects
    from preprocessing.sharding.write_shard import write_shard
    from preprocessing.sources.config import FiguresConfig, SourceConfig
    from preprocessing.sources.registry import make_source

    figures = FiguresConfig(identities=12, test_fraction=0.25)
    recipe = DataRecipe(source=SourceConfig(figures=figures), shards=ShardsConfig(target_mb=1.5))
    source: Any = make_source(recipe.source, recipe.seed)
    if halve:
        full_size = source.clips
        source.clips = lambda item: map(halved, full_size(item))
    plan = make_plan(recipe, source)
    url = str(folder)
    acquire_output(url, plan)
    summaries = [write_shard(url, plan.identity, shard, source) for shard in plan.shards]
    rejected = write_rejects(url, [])
    manifest = make_manifest(url, plan, source, summaries, rejected)
    write_preview(url, manifest, rejected)
    write_manifest(url, manifest)


def halved(clip: "Clip") -> "Clip":
    frames, height, width, channels = clip.frames.shape
    blocks = clip.frames.reshape(frames, height // 2, 2, width // 2, 2, channels)
    return dataclasses.replace(clip, frames=blocks.mean(axis=(2, 4)).round().astype("uint8"))
