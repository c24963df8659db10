"""Sets the sums of a model file right after its bytes were changed."""

import struct
import zlib

from edgebit.bundle.model_format import HEADER, SECTION
from edgebit.bundle.model_reader import Section


def set_sums_right(data: bytearray, section: Section) -> None:
    """Sum `section` anew, and what holds its sum: the section table and the header."""
    n_sections = struct.unpack_from("<I", data, 12)[0]
    for i in range(n_sections):
        at = HEADER.size + i * SECTION.size
        if data[at : at + 4].decode() == section.tag:
            content = data[section.offset : section.offset + section.size]
            struct.pack_into("<I", data, at + 4, zlib.crc32(content))
    table = data[HEADER.size : HEADER.size + n_sections * SECTION.size]
    struct.pack_into("<I", data, 24, zlib.crc32(table))
    struct.pack_into("<I", data, 28, zlib.crc32(data[:28]))
