"""The row names of a table of ours without any library: importing one costs more than all that most cases do.

It lies beside inside.py in the image. It knows just the Parquet that the platform writes: one page of plain, snappy
texts in the first column (parquet-format 2.10, compact thrift; snappy format_description.txt).
"""

import re
from pathlib import Path


def read(path):
    """The column `row` of the Parquet file at `path`."""
    content = Path(path).read_bytes()
    sizes, position = _page_header(content, 4)
    page = _unpack(content[position : position + sizes[3]])
    return [match.decode() for match in re.findall(rb"\x11\x00\x00\x00(r[0-9a-f]{16})", page)]


def _page_header(content, position):
    """Whole numbers of the page header by their field, and where the page begins."""
    numbers, field, depth = {}, [0], 1
    while depth:
        kind = content[position]
        position += 1
        if kind == 0:
            depth -= 1
            field.pop()
            continue
        field[-1] += kind >> 4
        if kind & 15 == 12:  # a structure
            depth += 1
            field.append(0)
        elif kind & 15 in (5, 6):  # a number in zigzag
            value, position = _varint(content, position)
            if depth == 1:
                numbers[field[-1]] = value >> 1
        elif kind & 15 not in (1, 2):
            raise ValueError("not a page of ours")
    return numbers, position


def _varint(content, position):
    value = shift = 0
    while True:
        byte = content[position]
        position += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, position


def _unpack(packed):
    _size, position = _varint(packed, 0)
    out = bytearray()
    while position < len(packed):
        tag = packed[position]
        position += 1
        if tag & 3 == 0:
            length = tag >> 2
            if length >= 60:
                extra = length - 59
                length = int.from_bytes(packed[position : position + extra], "little")
                position += extra
            out += packed[position : position + length + 1]
            position += length + 1
            continue
        if tag & 3 == 1:
            length, offset = (tag >> 2 & 7) + 4, (tag >> 5) << 8 | packed[position]
            position += 1
        else:
            width = 2 if tag & 3 == 2 else 4
            length, offset = (tag >> 2) + 1, int.from_bytes(packed[position : position + width], "little")
            position += width
        for _ in range(length):
            out.append(out[-offset])
    return bytes(out)
