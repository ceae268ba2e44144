"""The page that describes the link, the code, and the bytes agree; a decoder made of the page alone reads the bytes."""

import msgspec
import numpy as np
import pytest
from test_streams import same
from wire_examples import CHUNK, CONTROL, STATE
from wire_page import TEXT, control_rows, read_control, read_struct, struct_rows, vectors

from memrt.robot_io.link import streams, wire
from memrt.robot_io.link.publisher import STATE_LIFE_NS
from memrt.robot_io.link.receiving import Receiver

VECTORS = vectors()
STREAMS = {
    "chunk": ("Chunk", CHUNK, streams.encode_chunk, streams.decode_chunk),
    "state": ("State", STATE, streams.encode_state, streams.decode_state),
}
NUMPY = {"u8": "u1", "u16": "<u2", "u32": "<u4", "u64": "<u8", "i64": "<i8", "f64": "<f8"}


def test_there_is_a_vector_of_every_message():
    assert set(VECTORS) == {*STREAMS, *CONTROL} == {*STREAMS, *control_rows()}


@pytest.mark.parametrize("name", STREAMS)
def test_structs_are_what_the_page_says(name):
    heading, message, encode, decode = STREAMS[name]
    data, fields = VECTORS[name]
    assert encode(message) == data
    assert same(decode(data), message)
    assert read_struct(heading, data) == fields


def test_the_layouts_are_the_pages():
    for heading, layout in (("Chunk", streams.CHUNK_HEADER), ("State", streams.STATE)):
        rows = [row for row in struct_rows(heading) if row[2] != "actions"]
        assert [name for _, _, name in rows] == list(layout.names)
        for offset, kind, name in rows:
            base, _, count = kind.rstrip("]").partition("[")
            field, at = layout.fields[name]
            assert at == offset
            assert field == np.dtype((NUMPY[base], (int(count),)) if count else NUMPY[base])
        assert offset == 56 or heading == "State"
    assert struct_rows("Chunk")[-1] == (streams.CHUNK_HEADER.itemsize, "f64[8]", "actions")


@pytest.mark.parametrize("name", CONTROL)
def test_control_messages_are_what_the_page_says(name):
    message, kinds = CONTROL[name]
    data, array = VECTORS[name]
    assert wire.encode(message) == data
    assert Receiver(kinds).decode(data) == message
    assert read_control(data) == array
    assert control_rows()[name] == list(type(message).__struct_fields__)
    assert type(message).__struct_config__.tag == name
    assert len(array) == 1 + len(control_rows()[name])
    assert msgspec.msgpack.decode(data) == array


def test_the_pages_figures_are_the_codes():
    assert f"on the wire, version {wire.VERSION}" in TEXT
    assert f"`ZMQ_MAXMSGSIZE` to {wire.MAX_TRANSPORT_BYTES}" in TEXT
    assert f"above {wire.MAX_MESSAGE_BYTES} bytes (structs: above\n{streams.MAX_STREAM_BYTES})" in TEXT
    assert f"longer than {streams.MAX_STREAM_BYTES} bytes" in TEXT
    assert wire.MAX_TIME_NS == 2**62
    assert streams.MAX_DT_NS == 10**10
    assert STATE_LIFE_NS == 500_000_000  # "half a second"
