"""The npm package onnxruntime-web, with which the static edition computes in the browser: downloaded once, and checked.

Run as a module, it only downloads the package, and fails with one line if that is impossible.
"""

import base64
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from cluster.errors import UserError, one_line
from cluster.storage.scratch import scratch_folder
from preprocessing.dataset.cache import cache_folder

NAME, VERSION = "onnxruntime-web", "1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Hash of the package, as npm states it."""
FILES = {"ort.js": "dist/ort.wasm.bundle.min.mjs", "ort.wasm": "dist/ort-wasm-simd-threaded.wasm"}
SHA256 = {
    "ort.js": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
"""Name in the edition, with an ending that any web server knows -> path in the package, and hash of the content."""
LICENSE_FILE = "ort-LICENSE.txt"
LICENSE = """ort.js and ort.wasm are files of onnxruntime-web {version} (https://github.com/microsoft/onnxruntime).

MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""
"""The package names its licence (MIT), and contains no copy of it."""
TIMEOUT_S = 600
REMEDY = f"install npm, or give --onnxruntime-web the folder of {NAME} {VERSION}"


def runtime_files(folder: Path | None) -> dict[str, bytes]:
    """Return the files of the runtime for the edition, by name, with their licence.

    Args:
        folder: the package, unpacked; None downloads it with npm, or takes it from the cache.

    Raises:
        UserError: there is no npm, the download fails, or the package is not the expected one.
    """
    folder = folder or _downloaded()
    with contextlib.suppress(OSError, ValueError, AttributeError, RecursionError):
        found = json.loads((folder / "package.json").read_text()).get("version")
        if found != VERSION:
            raise UserError(f"{folder}: holds {NAME} {found!s:.20}; version {VERSION} is needed")
    files = {}
    for name, path in FILES.items():
        try:
            files[name] = (folder / path).read_bytes()
        except OSError as error:
            raise UserError(f"{folder}: is not the package {NAME}: {path} cannot be read ({error.strerror})") from None
        if hashlib.sha256(files[name]).hexdigest() != SHA256[name]:
            raise UserError(f"{folder}: {path} is not that of {NAME} {VERSION} (SHA-256); {REMEDY}")
    return files | {LICENSE_FILE: LICENSE.format(version=VERSION).encode()}


def _downloaded() -> Path:
    """Return the folder of the package in the cache."""
    cached = cache_folder() / "npm" / f"{NAME}-{VERSION}"
    if all((cached / path).is_file() for path in FILES.values()):
        return cached
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"the static edition needs {NAME}, which npm downloads, and npm is not installed; {REMEDY}")
    with scratch_folder("vdsm-npm-") as folder:
        command = [npm, "pack", f"{NAME}@{VERSION}", "--ignore-scripts", "--silent", "--pack-destination", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S, cwd=folder)
            reason = one_line(done.stderr)[:200] or f"exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            reason = f"no answer within {TIMEOUT_S} s"
        archives = list(folder.glob("*.tgz"))
        if not archives:
            raise UserError(f"npm could not download {NAME} {VERSION} ({reason}); {REMEDY}")
        content = archives[0].read_bytes()
        if f"sha512-{base64.b64encode(hashlib.sha512(content).digest()).decode()}" != INTEGRITY:
            raise UserError(f"what npm downloaded as {NAME} {VERSION} has another SHA-512 than expected; {REMEDY}")
        _unpack(archives[0], cached)
    return cached


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as package:
        for path in ("package.json", *FILES.values()):
            member = package.extractfile(f"package/{path}")
            assert member is not None, "the archive has the expected hash"
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f"{target.name}.{os.getpid()}")  # others may download it at the same time
            partial.write_bytes(member.read())
            partial.replace(target)


if __name__ == "__main__":
    try:
        runtime_files(None)
    except UserError as problem:
        sys.exit(str(problem))
