"""Reads `robot_io/link/WIRE.md`: its tables and test vectors, and decodes by nothing else but them."""

import json
import re
import struct
from pathlib import Path

import msgpack

PAGE = Path(__file__).parents[2] / "robot_io" / "link" / "WIRE.md"
TEXT = PAGE.read_text(encoding="utf-8")
FORMATS = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i64": "q", "f64": "d"}


def vectors() -> dict[str, tuple[bytes, object]]:
    """By name: the bytes, and what they say."""
    found = re.findall(r"```hex (\w+)\n(.*?)```\n```json (\w+)\n(.*?)```", TEXT, re.DOTALL)
    assert all(name == again for name, _, again, _ in found)
    return {name: (bytes.fromhex(data), json.loads(value)) for name, data, _, value in found}


def struct_rows(heading: str) -> list[tuple[int, str, str]]:
    """(offset, type, field) of the table under a heading."""
    section = TEXT.split(f"\n## {heading}")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| (\w+(?:\[\d+\])?) \| (\w+) \|", section, re.MULTILINE)
    return [(int(offset), kind, name) for offset, kind, name in rows]


def control_rows() -> dict[str, list[str]]:
    """By kind: the fields after it."""
    section = TEXT.split("\n## Control messages")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \| (session, [\w, ]+) \|", section, re.MULTILINE)
    return {kind: fields.split(", ") for kind, fields in rows}


def read_struct(heading: str, data: bytes) -> dict[str, object]:
    """The fields of a struct; `actions` as rows."""
    fields: dict[str, object] = {}
    for offset, kind, name in struct_rows(heading):
        base, _, count = kind.rstrip("]").partition("[")
        if name == "actions":
            fields[name] = [list(struct.unpack_from("<8d", data, at)) for at in range(offset, len(data), 64)]
        else:
            values = struct.unpack_from(f"<{count or 1}{FORMATS[base]}", data, offset)
            fields[name] = list(values) if count else values[0]
    return fields


def read_control(data: bytes) -> list[object]:
    """The array."""
    return msgpack.unpackb(data)
