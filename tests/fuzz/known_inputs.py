"""Inputs on which a reader once failed: with a traceback, too much memory or time, or a message of several lines."""

import io
import json
import struct
import zipfile
from typing import Any


def _npy(shape: str, kind: str = "'|u1'", values: bytes = b"", header: str = "") -> bytes:
    text = header or f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}}}\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode("latin1") + values


def _npz(method: int = zipfile.ZIP_STORED, **arrays: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)
    return packed.getvalue()


def _rows(**values: Any) -> bytes:
    return json.dumps([{"path": "a.npy", "identity": "anna", **values}]).encode()


def _manifest(**values: Any) -> bytes:
    return json.dumps({"schema_version": 2, "vocabulary": {}, "shards": [], "splits": {"train": {}}, **values}).encode()


_PIXELS = _npy("(2, 4, 8, 8, 3)", values=bytes(1536))
_BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi")
)

INPUTS: dict[str, dict[str, bytes]] = {
    "index": {
        "no object": b"5",
        "nested deeply": b"[" * 60_000,
        "no samples": b"{}",
    },
    "manifest": {
        "nested deeply": b'{"a":' * 10_000,
        "version alone": b'{"schema_version": 2}',
        "version is a list": b'{"schema_version": []}',
        "name of the split breaks the line": _manifest(splits={"a\n\x1b[2J": {}}),
        "half a surrogate": _manifest(vocabulary={"\ud800": []}),
    },
    "arrays": {
        "a billion videos without frames": _npy("(1000000000, 0, 8, 8, 3)"),
        "a billion videos": _npy("(1000000000, 4, 8, 8, 3)"),
        "negative": _npy("(-1, 4, 8, 8, 3)"),
        "length is a truth value": _npy("(True, 8, 8, 3)"),
        "too long to address": _npy("(4611686018427387904, 0, 4611686018427387904)"),
        "brackets": _npy("", header="(" * 5000),
        "no header": _npy("", header="x = 'a\n  b = {"),
        "type of no bytes": _npy("(1000000000, 8, 8, 3)", "'|S0'"),
        "type that is no type": _npy("(4, 8, 8, 3)", "[('a',)]"),
        "a million tiny videos": _npz(
            zipfile.ZIP_DEFLATED, images=_npy("(30000000, 2, 1, 1, 1)", values=bytes(60_000_000))
        ),
        "packed by another method": _npz(zipfile.ZIP_BZIP2, images=_PIXELS),
        "labels that are no text": _npz(images=_PIXELS, labels=_npy("(2, 2)", "'<U1'", b"\xff" * 16)),
        "labels that are half a surrogate": _npz(images=_PIXELS, labels=_npy("(2, 2)", "'<U1'", b"\x00\xd8\0\0" * 4)),
        "lengths that are records": _npz(
            images=_npy("(8, 8, 8, 3)", values=bytes(1536)),
            lengths=_npy("(2,)", "[('a', '|u1'), ('b', '|u1')]", bytes(4)),
        ),
        "lengths cut short": _npz(images=_npy("(8, 8, 8, 3)", values=bytes(1536)), lengths=_npy("(2,)", "'<i8'")),
        "name with control characters": _npz(**{"\x1b[2J\n": _PIXELS, "b": _PIXELS}),
    },
    "sidecar": {
        "nested deeply": b"[" * 60_000,
        "value nested deeply": b'[{"path": ' + b"[" * 900 + b"]" * 900 + b"}]",
        "many digits": b"path,identity,age\na.npy,anna," + b"9" * 5000 + b"\nb.npy,ben,1\n",
        "half a surrogate": _rows(action="\ud800"),
        "half a surrogate as identity": _rows(identity="\udfff\ud800"),
        "crop box outside": _rows(left=100, top=0, width=5, height=5),
        "long number": _rows(start_s="x" * 60_000),
        "long label": _rows(**{"y" * 60_000: "1"}),
        "control characters": b"path,identity\na.npy,\x1b[2J\nx\x1b[2J.npy,b\n",
    },
    "list": {
        "half a character": b"\xff\xfea",
        "zero bytes": b"a.mp4\0\n",
        "long line": b"x" * 60_000,
        "control characters": b"\x1b[2J.mp4\n",
        "home of nobody": b"~nobody-here/x.mp4\n",
        "another scheme": b"http://example/x.mp4\n",
        "marks": "\ufeff".encode() * 100,
        "folder": b"folder\n",
    },
    "recipe": {
        "aliases of aliases": _BOMB.encode(),
        "aliases of aliases as a key": f"{_BOMB}? *h\n: 1\n".encode(),
        "merged aliases": b"a: &a {x: 1}\n"
        + b"".join(b"b%d: {<<: [%s]}\n" % (i, b", ".join([b"*a"] * 2000)) for i in range(3)),
        "a list in itself": b"model: &a [*a]\n",
        "a section in itself": b"model: &a {training: *a}\n",
        "nested deeply": b"model: " + b"[" * 20_000,
        "nested deeply in lines": b"".join(b" " * n + b"a:\n" for n in range(300)),
        "a day that does not exist": b"seed: 2001-99-99\n",
        "no integer": b"seed: !!int ''\n",
        "no number": b"seed: !!float ''\n",
        "no time": b"seed: !!timestamp x\n",
        "many digits": b"seed: " + b"9" * 6000,
        "control characters": b'"\\e[2J\\n": 1\n',
        "a long name": b"training: {" + b"x" * 50_000 + b": 1}\n",
        "half a surrogate": b'training: {appearance: {descriptor: "\\ud800"}}\n',
        "space that is no section": b"space: {1: {low: 0}, true: [1], null: 3}\n",
    },
    "run": {
        "no object": b"[]",
        "nothing": b"{}",
        "nested deeply": b"[" * 60_000,
        "no hash": b'{"data": "/data", "data_sha256": "../../x"}',
        "no path": b'{"data": 5, "data_sha256": null}',
    },
    "plan": {
        "nested deeply": b"[" * 60_000,
        "no object": b"[]\n[]\n",
        "nothing": b"{}\n",
        "inputs nested deeply": b"{}\n" + b"[" * 60_000,
        "an input without elements": b"{}\n[]\n",
        "an input with lists": b'{}\n[["a"], {}, [], {}, 1, null, 5]\n',
    },
    "log": {
        "nested deeply": b"[" * 60_000,
        "no objects": b"5\n[]\nnull\n",
        "stage is a list": b'{"stage": [], "step": 1}\n',
        "no step": b'{"stage": 1}\n{"loss": 1}\n',
        "endless": b'{"stage": 1, "step": Infinity, "loss": 1}\n',
        "many digits": b'{"stage": 1, "step": 1, "loss": ' + b"9" * 400 + b"}\n",
        "many steps": b'{"stage": 1, "step": ' + b"9" * 400 + b', "loss": 1}\n',
        "no text": b'{"stage": 1, "step": 1}\n\xff\xfe\n',
    },
}
"""Reader -> what is wrong with the input -> the input."""
