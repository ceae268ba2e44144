"""msgpack with arrays: what the real packages write is read, what they read is written, anything else is refused."""

import io
import struct
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.robot_io.serve.arrays import DTYPES, MAX_CONTAINERS, pack, unpack
from memrt.robot_io.serve.images import decode_image
from memrt.runtime.errors import MemrtError

GOLDEN = Path(__file__).parent / "golden"  # written by the packages themselves, in the versions that the names say
IMAGE = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
STATE = np.arange(8, dtype=np.float32) / 8


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return {"__ndarray_class__": True, "as_npy": file.getvalue()}


def refusal(data):
    with pytest.raises(MemrtError) as refused:
        unpack(data)
    return str(refused.value)


@pytest.mark.parametrize("name", ["openpi_client_0.1.2", "msgpack_numpy_0.4.8"])
def test_what_openpi_client_and_msgpack_numpy_write_is_read(name):
    message = unpack((GOLDEN / f"{name}.msgpack").read_bytes())
    assert np.array_equal(message.pop("observation/image"), IMAGE)
    state = message.pop("observation/state")
    assert np.array_equal(state, STATE)
    assert state.dtype == np.float32
    assert message == {"prompt": "press", "gripper": 0.5, "open": True}


def test_what_vla_eval_writes_is_read():
    message = unpack((GOLDEN / "vla_eval_0.8.0.msgpack").read_bytes())
    assert (message["type"], message["seq"], message["timestamp"]) == ("observation", 7, 1.5)
    assert np.array_equal(decode_image(message["payload"]["images"]["agentview"]), IMAGE)
    assert np.array_equal(message["payload"]["states"], STATE)


def test_groots_npy_files_are_read():
    assert np.array_equal(unpack(msgpack.packb({"image": npy(IMAGE)}))["image"], IMAGE)


def test_openpis_dialect_is_written_byte_for_byte():
    written = pack({"observation/image": IMAGE, "observation/state": STATE, "prompt": "press"})
    golden = (GOLDEN / "openpi_client_0.1.2.msgpack").read_bytes()
    assert written[1:] == golden[1 : len(written)]  # the golden file's map has two more entries at its end


@pytest.mark.parametrize("text_keys", [False, True])
@given(
    st.sampled_from(sorted({dtype.name for dtype in DTYPES.values()})),
    st.lists(st.integers(0, 5), max_size=4),
    st.integers(0, 2**32 - 1),
)
def test_every_array_comes_back_as_it_was(text_keys, dtype, shape, seed):
    noise = np.random.default_rng(seed).integers(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8)
    array = (noise % 2 if dtype == "bool" else noise).view(dtype).reshape(shape)
    back = unpack(pack({"a": {"b": [array, 1, "text", None, b"bytes"]}}, text_keys=text_keys))["a"]["b"]
    assert back[0].tobytes() == array.tobytes()
    assert (back[0].dtype, back[0].shape) == (array.dtype, array.shape)
    assert back[1:] == [1, "text", None, b"bytes"]


def openpi_array(**changes):
    return {"__ndarray__": True, "data": b"\0" * 8, "dtype": "<f4", "shape": [2]} | changes


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (openpi_array(dtype="|O"), "dtype '|O'"),
        (openpi_array(dtype="<f4,<f4"), "dtype"),
        (openpi_array(dtype="|S8"), "dtype"),
        (openpi_array(dtype=">f4"), "dtype"),
        (openpi_array(dtype=[["a", "<f4"]]), "dtype"),
        (openpi_array(dtype=None), "dtype"),
        (openpi_array(shape=[3]), "shape [3] of float32 with 8 bytes"),
        (openpi_array(shape=[-2]), "a shape"),
        (openpi_array(shape=[-1, -2]), "a shape"),
        (openpi_array(shape=[True, 2]), "a shape"),
        (openpi_array(shape=[2.0]), "a shape"),
        (openpi_array(shape=2), "a shape"),
        (openpi_array(shape=[1] * 7 + [2]), "a shape"),
        (openpi_array(shape=[2**63]), "a shape"),
        (openpi_array(data="text"), "array data that is a str"),
        (openpi_array(data=[0] * 8), "array data that is a list"),
        ({"__ndarray__": True}, "dtype"),
        ({"nd": True, "type": "|O", "kind": b"O", "shape": [1], "data": b"\x80\x04."}, "an array of kind b'O'"),
        ({"nd": True, "type": "|O", "shape": [1], "data": b"\x80\x04."}, "dtype"),
        ({"nd": True, "type": [["a", "<f4"]], "kind": b"V", "shape": [1], "data": b"0000"}, "an array of kind b'V'"),
        ({"nd": False, "type": "<f8", "data": b"123"}, "with 3 bytes"),
        ({"__npgeneric__": True, "dtype": "<f8", "data": [1]}, "a scalar that is a list"),
        ({"complex": True, "data": "1j"}, "a complex number"),
        (npy(np.array([{}], object)), "dtype '|O'"),
        (npy(np.asfortranarray(IMAGE[0])), "Fortran order"),
        ({"__ndarray_class__": True, "as_npy": b"\x93NUMPY\x01\0\x10\0{'descr': '<f4'}"}, "ValueError"),
        ({"__ndarray_class__": True, "as_npy": "text"}, "an .npy array that is a str"),
        ({b"prompt": 1, "prompt": 2}, "given twice"),
        (msgpack.ExtType(5, b"x"), "exceeds max_ext_len"),
        (msgpack.Timestamp(1), "exceeds max_ext_len"),
        ("x" * 70_000, "exceeds max_str_len"),
        ([[]] * (MAX_CONTAINERS + 1), "exceeds max_array_len"),
    ],
)
def test_what_is_no_plain_array_is_refused(value, told):
    assert told in refusal(msgpack.packb({"value": value}))


def test_an_npy_header_that_promises_more_than_there_is_allocates_nothing():
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (2000000000, 8), }".ljust(117) + b"\n"
    file = b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header
    assert "with 0 bytes of data" in refusal(msgpack.packb({"value": {"__ndarray_class__": True, "as_npy": file}}))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x93\x01",
        b"\x01",
        b"\xa1\xff",
        b"\x80\x80",
        b"\x81\x01\x02",  # a number as key
        b"\x81\x91\x01\x02",
        b"\x91" * 100_000,  # nested
        b"\xdd\xff\xff\xff\xff" * 100,  # promises
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x81\xa1a" * 5000,
        b"\x81\xa1a" + b"\xdc\x3f\xff" * 1000,
        msgpack.packb({"a": [[{} for _ in range(100)] for _ in range(200)]}),  # many small things
        b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94.",  # a pickle
    ],
)
def test_what_is_no_message_is_refused_within_bounds(data):
    assert "expected one msgpack map" in refusal(data)


def test_objects_are_never_sent():
    for value in (np.array([object()]), np.array(["a"]), np.array([1j]), object()):
        with pytest.raises(TypeError, match="cannot send"):
            pack({"value": value})


@given(st.binary(max_size=200))
def test_noise_is_a_map_or_a_refusal(data):
    try:
        message = unpack(data)
    except MemrtError:
        return
    assert isinstance(message, dict)
