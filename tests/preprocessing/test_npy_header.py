"""The header of a .npy, which may state any length for itself."""

import io
import struct
from typing import IO, cast

import numpy as np
import pytest

from preprocessing.npy_header import MAX_HEADER, read_header


class CountedReads(io.BytesIO):
    """A file that counts how many bytes were requested of it, as unpacking one would produce them."""

    requested = 0

    def read(self, size: int | None = -1) -> bytes:
        assert size is not None
        assert size >= 0, "everything is requested"
        self.requested += size
        return super().read(size)


@pytest.mark.parametrize("version", [b"\x02\x00", b"\x03\x00"])
@pytest.mark.parametrize("stated", [MAX_HEADER + 1, 2_000_000_000, 2**32 - 1])
def test_a_header_that_states_gigabytes_for_itself_is_refused_before_they_are_read(version: bytes, stated: int) -> None:
    file = CountedReads(b"\x93NUMPY" + version + struct.pack("<I", stated) + b" " * 200_000)
    with pytest.raises(ValueError, match="its header has"):
        read_header(cast(IO[bytes], file))
    assert file.requested < 100


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_a_header_is_read_to_its_end_in_every_version(version: tuple[int, int]) -> None:
    file, values = io.BytesIO(), np.arange(6, dtype="<f4").reshape(2, 3)
    np.lib.format.write_array(file, values, version=version)
    file.seek(0)
    header = read_header(file)
    assert (header.shape, header.dtype, header.fortran) == ((2, 3), np.dtype("<f4"), False)
    np.testing.assert_array_equal(np.frombuffer(file.getvalue()[header.offset :], "<f4").reshape(2, 3), values)


@pytest.mark.parametrize("data", [b"\x93NUMPY\x01\x00", b"\x93NUMPY\x02\x00\x10\x00", b"\x93NUMPY\x01\x00\x50\x00{"])
def test_a_header_that_is_cut_short_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="EOF: reading"):
        read_header(io.BytesIO(data))
