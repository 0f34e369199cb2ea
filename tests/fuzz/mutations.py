"""Mutations that keep a file well-formed, so that the code behind the parser is reached."""

import contextlib
import io
import json
import struct
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import yaml

from preprocessing.dataset import arrow_file
from preprocessing.dataset.schema import SchemaError

Mutation = Callable[[bytes, Random], bytes]

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 255, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**13, 10**30, 10**400,
    0.0, -0.5, 1e13, 1e308, 5e-324, float("nan"), float("inf"), "", ".", "..", "/", "/etc/passwd", "../../x", "a/../b",
    "~", "s3://bucket/key", "C:\\x", "a\\b", "nul\0byte", "\x1b[2J", "line\nbreak", "\ud800", "\udce9", "\u202e",
    "é" * 90, "9" * 5000, "x" * 70_000, "1e999", "nan", "true", "%s{0}", "=1+1", "train", "test", "frame", [], {}, [[]],
    [0] * 5, {"": ""}, {"name": 1},
)  # fmt: skip
"""Values that readers tend to mishandle."""

TOKENS = (
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\x1b[31m", b"\n", b"\r", b"\n\n", b",", b'"', b"'", b"[", b"]", b"{", b"}", b":",
    b"- ", b"&a ", b"*a", b"<<: *a\n", b"!!python/object/apply:os.system ", b"!!binary ", b"!!timestamp ", b"!!int ''",
    b"2001-99-99", b"? ", b"| ", b"> ", b"%YAML 1.1\n", b"---\n", b"...\n", b"#", b"\t", b"0x", b"0b", b"1:99:99",
    b".inf", b".nan", b"path", b"identity", b"split", b"start_s", b"end_s", b"width", b"\\ud800", b"1e999", b"-1",
    b"9" * 400, b"[" * 3000, b'{"a":' * 2000, b"\x93NUMPY", b"PK\x05\x06", b"True", b"(1000000000,", b"'|O'", b"'<U8'",
    b"'>f8'", b"'|S0'",
)  # fmt: skip


MAX_NODES = 5000
"""Values of a tree among which one is chosen."""


def mutate_bytes(data: bytes, random: Random) -> bytes:
    """Change, insert, remove or repeat a few bytes."""
    content = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randint(0, len(content))
        stop = min(len(content), at + random.choice((1, 1, 2, 8, 64)))
        match random.randrange(5):
            case 0 if content:
                content[at % len(content)] ^= 1 << random.randrange(8)
            case 1:
                content[at:at] = random.choice(TOKENS)
            case 2:
                del content[at:stop]
            case 3:
                content[at:at] = content[at:stop] * random.choice((1, 2, 50))
            case _:
                content[at:stop] = random.choice(TOKENS)[: stop - at]
    return bytes(content)


def mutate_tree(tree: Any, random: Random) -> Any:
    """Return a tree with a value or a key of it replaced, removed, repeated, moved or nested deeply."""
    nodes: list[tuple[Any, Any]] = []

    def collect(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            nodes.append((node, key))
            if isinstance(node[key], dict | list) and len(nodes) < MAX_NODES:  # aliases of YAML may repeat nodes
                collect(node[key])

    if not isinstance(tree, dict | list) or not tree or random.random() < 0.02:
        return random.choice(VALUES)
    collect(tree)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        node, key = random.choice(nodes)
        if not _holds(node, key):
            continue
        match random.randrange(8):
            case 0:
                del node[key]
            case 1 if isinstance(node, list):
                node.insert(key, node[key])
            case 1:
                node[str(random.choice(VALUES))[:2000]] = node[key]
            case 2:
                other, name = random.choice(nodes)
                if _holds(other, name):
                    node[key] = json.loads(json.dumps(other[name]))
            case 3 if isinstance(node[key], int | float):
                with contextlib.suppress(OverflowError):  # 0.5 more than an integer that no float holds
                    node[key] += random.choice((1, -1, 0.5, 2**32, 10**13))
            case 4:
                for _ in range(random.choice((1, 40, 200))):
                    node[key] = [node[key]]
            case _:
                node[key] = random.choice(VALUES)
    return tree


def _holds(node: Any, key: Any) -> bool:
    return key in node if isinstance(node, dict) else key < len(node)


def mutate_json(data: bytes, random: Random) -> bytes:
    """Mutate the values of a JSON document, or of one line of several."""
    lines = data.splitlines()
    number = random.randrange(len(lines)) if lines else 0
    try:
        tree = json.loads(lines[number])
        lines[number] = json.dumps(mutate_tree(tree, random)).encode()
    except (ValueError, IndexError, RecursionError, OverflowError):
        return mutate_bytes(data, random)
    return b"\n".join(lines) + b"\n"


def mutate_yaml(data: bytes, random: Random) -> bytes:
    """Mutate the values of a YAML document."""
    try:
        tree = mutate_tree(yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)), random)
        return yaml.safe_dump(tree, default_flow_style=random.choice((None, True, False))).encode("utf-8", "replace")
    except (ValueError, yaml.YAMLError, RecursionError, OverflowError, TypeError, AttributeError, LookupError):
        return mutate_bytes(data, random)


def mutate_csv(data: bytes, random: Random) -> bytes:
    """Mutate the cells of a CSV, or the values of a JSON document."""
    if data[:1] in (b"[", b"{"):
        return mutate_json(data, random)
    rows = [line.split(",") for line in data.decode("utf-8", "replace").splitlines()]
    changed = mutate_tree(rows, random)
    if not isinstance(changed, list) or not all(isinstance(row, list) for row in changed):
        return mutate_bytes(data, random)
    text = "\n".join(",".join(map(_cell, row)) for row in changed) + "\n"
    return text.encode("utf-8", "surrogatepass" if random.random() < 0.2 else "replace")


def mutate_lines(data: bytes, random: Random) -> bytes:
    """Mutate the lines of a text file, in its own encoding."""
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    lines = mutate_tree(data.decode(encoding, "replace").splitlines(), random)
    if not isinstance(lines, list) or random.random() < 0.2:
        return mutate_bytes(data, random)
    errors = "surrogatepass" if random.random() < 0.2 else "replace"
    return random.choice(("\n", "\n", "\r\n", "\r")).join(map(_cell, lines)).encode(encoding, errors)


def _cell(value: Any) -> str:
    try:
        return str(value)
    except ValueError:  # an integer of more digits than Python converts
        return "9" * 400


def mutate_arrays(data: bytes, random: Random) -> bytes:
    """Mutate the header of a .npy, or the members of a .npz, with correct lengths and checksums."""
    if data[:6] == b"\x93NUMPY":
        return _mutate_npy(data, random)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
    except Exception:
        return mutate_bytes(data, random)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in members.items():
            changed = _mutate_npy(content, random) if random.random() < 0.5 else content
            title = random.choice((name, name, name, "labels.npy", "lengths.npy", "images.npy", "\x1b.npy", "x" * 300))
            method = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
            if title not in archive.namelist():
                archive.writestr(title, changed, method)
    return packed.getvalue() if random.random() < 0.7 else mutate_bytes(packed.getvalue(), random)


_SHAPES = (
    "(3, 4, 8, 8, 3)", "(10**9,)", "(-1, 4, 8, 8, 3)", "(1000000000, 0, 8, 8, 3)", "(0,)", "()", "(True, 4, 8, 8)",
    "(4611686018427387904, 4)", "(99999999999999999999999,)", "(4, 8, 8, 1)", "(3, 2)", "(192, 4, 1, 1, 3)",
    "(12, 4, 4, 4, 3)", "(3.0, 2)", "('a',)", "(576, 1, 1, 1, 4)", "(3,)", "(1, 1, 1, 1, 1)", "[3, 2]", "(" * 300,
)  # fmt: skip
_TYPES = (
    "'|u1'", "'<f4'", "'>f2'", "'<f16'", "'|b1'", "'<i8'", "'>u8'", "'|O'", "'<U1'", "'>U9999999'", "'|S0'", "'|V0'",
    "'<M8[ns]'", "'<c16'", "[('a', '|u1')]", "[('a', '<f4', (2,))]", "'|S8'", "'<U0'", "'i,i'", "('<f4', (3, 3))",
    "{}", "'" + "x" * 500 + "'",
)  # fmt: skip


def _mutate_npy(data: bytes, random: Random) -> bytes:
    """Replace the header of a .npy by one with another type, order or shape, or the values by others."""
    length = struct.unpack("<H", data[8:10])[0] if len(data) >= 10 else 0
    header, values = data[10 : 10 + length].decode("latin1"), data[10 + length :]
    match random.randrange(6):
        case 0:
            return mutate_bytes(data, random)
        case 1:
            values = random.choice((b"", values[:7], values * 3, bytes(len(values)), b"\xff" * len(values)))
        case 2:
            header = mutate_bytes(header.encode("latin1"), random).decode("latin1")
        case _:
            order = random.choice(("False", "False", "True", "1", "None"))
            shape, kind = random.choice(_SHAPES), random.choice(_TYPES)
            if random.random() < 0.5:
                kind = random.choice(("'|u1'", "'<f4'"))
            elif random.random() < 0.5:
                shape = random.choice(("(3, 2)", "(3,)", "(3, 4, 8, 8, 3)"))
            header = f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {shape}}}\n"
    raw = header.encode("latin1", "replace")[: 2**16 - 1]
    version = random.choice((b"\x01\x00", b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x09"))
    packed = struct.pack("<H" if version == b"\x01\x00" else "<I", len(raw))
    return b"\x93NUMPY" + version + packed + raw + values


def mutate_arrow(data: bytes, random: Random) -> bytes:
    """Mutate a value or a column of an Arrow file, or its bytes."""
    if random.random() < 0.5:
        return mutate_bytes(data, random)
    try:
        file = arrow_file.decode(data)
        kinds = dict(file.kinds)
        columns: dict[str, Any] = {
            name: file.ragged(name) if kind in ("text", "bytes", "numbers") else file.array(name).copy()
            for name, kind in kinds.items()
        }
        name = random.choice(list(kinds))
        column = columns[name]
        if isinstance(column, arrow_file.Ragged):
            rows = [column.row(row).tobytes() for row in range(len(column))]
            if kinds[name] == "text" and rows:
                rows[random.randrange(len(rows))] = str(random.choice(VALUES)).encode("utf-8", "surrogatepass")
                columns[name] = arrow_file.ragged(rows)
        elif len(column):
            limits = np.iinfo(column.dtype) if column.dtype.kind in "iu" else None
            extremes = [0, 1, -1, limits.max, limits.min] if limits else [0.0, -1.0, np.nan, np.inf, 5e-324]
            column[random.randrange(len(column))] = np.array(random.choice(extremes)).astype(column.dtype)
        match random.randrange(8):
            case 0:
                del kinds[name]
            case 1:
                kinds = {key: kinds[key] for key in random.sample(list(kinds), len(kinds))}
        return arrow_file.encode(columns, kinds)
    except (SchemaError, ValueError, IndexError):
        return mutate_bytes(data, random)
