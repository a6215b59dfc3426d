"""Struct arrays out of MATLAB 5 files, as far as ILSVRC2012's meta.mat goes: fields that are numbers or text.

scipy.io reads all of the format, but a damaged file makes it crash the process, and it would be needed for this alone.
The format: MathWorks, "MAT-File Format", chapter 1. After 128 bytes of header come elements: type, length, data.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence

HEADER_BYTES = 128
MOST_BYTES = 1 << 26  # of a variable when it is decompressed; meta.mat's has some hundred kB
MATRIX, COMPRESSED = 14, 15  # types of elements
CHAR, STRUCT, NUMBERS = 4, 2, range(6, 16)  # classes of matrices
# Types of stored numbers as struct.unpack knows them. Text is stored as UTF-8, 16, 32, or as numbers, all the same as
# long as it is ASCII.
STORED = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q", 16: "B", 17: "H", 18: "I"}

Value = str | float


def rows(data: bytes, variable: str, fields: Sequence[str]) -> list[tuple[Value, ...]]:
    """Those fields of each struct in an array of structs, a text or the only number in each.

    Raises:
        ValueError: no such file, variable or field, or it is torn.
    """
    if data[124:HEADER_BYTES] != b"\0\1IM":  # version 1, least significant byte first
        raise ValueError("no MATLAB 5 file")
    try:
        for kind, element in _elements(data[HEADER_BYTES:]):
            if kind == COMPRESSED:
                ((kind, element),) = _elements(zlib.decompressobj().decompress(element, MOST_BYTES))
            if kind == MATRIX:
                of_class, name, rest = _matrix(element)
                if of_class == STRUCT and name == variable:
                    return _structs(rest, fields)
    except (struct.error, zlib.error, StopIteration, LookupError, TypeError, OverflowError) as error:
        raise ValueError(f"torn: {error}") from None
    raise ValueError(f"no array of structs named {variable}")


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and content of each element in `data`."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        begin = at + 8
        if kind >> 16:  # up to four bytes are packed into the tag
            kind, size, begin = kind & 0xFFFF, kind >> 16, at + 4
        at = begin + size
        if at > len(data):
            raise ValueError(f"torn: an element of {size} bytes where {len(data) - begin} are left")
        yield kind, data[begin:at]
        at += -at % 8 if kind != COMPRESSED else 0


def _matrix(element: bytes) -> tuple[int, str, Iterator[tuple[int, bytes]]]:
    """Class, name, and the elements that follow these."""
    inside = _elements(element)
    flags, _, name = next(inside), next(inside), next(inside)
    return flags[1][0], name[1].decode("ascii", "replace"), inside


def _structs(inside: Iterator[tuple[int, bytes]], fields: Sequence[str]) -> list[tuple[Value, ...]]:
    (length,) = struct.unpack("<i", next(inside)[1])
    names = next(inside)[1]
    if length <= 0 or len(names) % length:
        raise ValueError(f"torn: {len(names)} bytes of field names of {length}")
    all_fields = [
        names[at : at + length].split(b"\0")[0].decode("ascii", "replace") for at in range(0, len(names), length)
    ]
    wanted = [all_fields.index(field) for field in fields]
    values = [element for kind, element in inside if kind == MATRIX]
    if len(values) % len(all_fields):
        raise ValueError(f"torn: {len(values)} values in structs of {len(all_fields)} fields")
    return [
        tuple([_value(values[first + place]) for place in wanted]) for first in range(0, len(values), len(all_fields))
    ]


def _value(element: bytes) -> Value:
    of_class, _, rest = _matrix(element)
    kind, stored = next(rest, (2, b""))
    letter = STORED[kind]
    numbers = struct.unpack(f"<{len(stored) // struct.calcsize(letter)}{letter}", stored)
    if of_class == CHAR:
        return "".join(map(chr, numbers))
    if of_class not in NUMBERS or len(numbers) != 1:
        raise ValueError(f"a matrix of class {of_class} with {len(numbers)} elements: expected a text or a number")
    return float(numbers[0])
