"""ONNX Runtime on the CPU: one session, a fixed number of threads, the same bits on every call.

Rules of this backend:
- Operators run one after the other; `threads` is the whole thread budget of the engine, so that the high level
  cannot take cores from the action expert or from the control thread.
- Waiting threads sleep. A spinning pool burns the cores that the other policy needs (and is throttled under
  SCHED_FIFO).
- Results are deterministic for a given (file, threads, CPU): lock-step runs and golden files depend on it.
- An engine is not re-entrant; one thread owns it.
- On x86 CPUs without VNNI the fast kernels of U8 × S8 products saturate. There the slower U8 × U8 kernels are taken,
  which give the same integers as VNNI does; weights in 7 bits keep the fast ones.
- Graph inputs `keys.0`, `keys.1`, … are the rows of one array `keys`: a graph that cut them out itself would copy them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from memrt.runtime.engine.stacked_inputs import StackedInputs
from memrt.runtime.errors import MemrtError
from memrt.runtime.processor import Processor, this_processor
from memrt.runtime.types import TensorSpec

Array = NDArray[Any]

PROVIDER = "CPUExecutionProvider"
DYNAMIC = -1

# ONNX Runtime's names of the tensor types our graphs use (onnxruntime/core/framework/data_types.cc).
NUMPY_DTYPES: dict[str, str] = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
# Fusing a quantised 2-D product with the Add behind it leaves a Gemm that no integer kernel serves: it then runs in
# fp32, dequantising its weights on every call. In fp32 graphs the fusion is worth one pass over the result.
DISABLED_OPTIMIZERS = ("MatMulAddFusion",)
# Turns constant S8 weights beyond 7 bits into U8 (kOrtSessionOptionsAvx2PrecisionMode, Avx2WeightS8ToU8Transformer).
EXACT_PRODUCTS = "session.x64quantprecision"


class OnnxRuntimeEngine:
    """An ONNX file loaded into ONNX Runtime's CPU provider. Implements `memrt.runtime.types.Engine`."""

    def __init__(self, path: str | Path, *, threads: int = 1) -> None:
        """Load `path`, an `.onnx` file (external data beside it), with `threads` ≥ 1 computing threads.

        Raises `MemrtError` when onnxruntime is not installed, the file is absent, or ONNX Runtime refuses it.
        """
        self._path = Path(path)
        self._session: Any = _open_session(self._path, threads)
        self._stacked = StackedInputs(tensor_specs(self._session.get_inputs(), self._path))
        self._outputs = tensor_specs(self._session.get_outputs(), self._path)
        self._output_names = [spec.name for spec in self._outputs]

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Name, dtype and shape of every input; −1 is a dynamic dimension."""
        return self._stacked.specs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Name, dtype and shape of every output; −1 is a dynamic dimension."""
        return self._outputs

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute every output from `feeds`, which must hold exactly the engine's inputs.

        Raises `MemrtError` naming the input whose presence, dtype or shape is wrong.
        """
        session = self._open()
        check_feeds(str(self._path), self.inputs, feeds)
        values: list[Array] = session.run(self._output_names, self._stacked.spread(feeds))
        return dict(zip(self._output_names, values, strict=True))

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> BoundRun:
        """Fix the memory of all inputs and outputs once, for hot paths: each `BoundRun.run()` then allocates nothing.

        The arrays are read and written in place, so they must be C-contiguous and their shapes are fixed from here
        on; an output array may be next call's input only through a copy.
        """
        session = self._open()
        check_feeds(str(self._path), self.inputs, inputs)
        check_feeds(str(self._path), self._outputs, outputs, kind="output")
        return BoundRun(session, self._stacked.spread(inputs), outputs)

    def close(self) -> None:
        """Release the session; the engine cannot run afterwards. Closing twice is allowed."""
        self._session = None

    def _open(self) -> Any:
        if self._session is None:
            raise MemrtError(
                f"engine {self._path.name} was closed",
                expected="an open engine",
                found="a closed one",
                fix="open the engine again with open_engine()",
            )
        return self._session


class BoundRun:
    """A call whose input and output memory is fixed: write into the inputs, call `run()`, read from `outputs`."""

    def __init__(self, session: Any, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        self._session = session
        self._inputs: dict[str, Array] = dict(inputs)  # ONNX Runtime holds no reference to numpy's memory
        self.outputs: dict[str, Array] = dict(outputs)
        self._binding = session.io_binding()
        for name, array in self._inputs.items():
            self._binding.bind_ortvalue_input(name, _ort_value(name, array))
        for name, array in self.outputs.items():
            self._binding.bind_ortvalue_output(name, _ort_value(name, array))

    def run(self) -> None:
        """Compute all outputs in place."""
        self._session.run_with_iobinding(self._binding)


def check_feeds(engine: str, specs: tuple[TensorSpec, ...], feeds: Mapping[str, Array], *, kind: str = "input") -> None:
    """Compare arrays with the tensor specs they are meant for; `kind` ("input" or "output") words the refusal.

    Raises `MemrtError` for a missing or unknown name, another dtype, or a shape that differs in a fixed dimension.
    """
    expected_names = {spec.name for spec in specs}
    if expected_names != set(feeds):
        missing, unknown = sorted(expected_names - set(feeds)), sorted(set(feeds) - expected_names)
        raise MemrtError(
            f"engine {engine} was given the wrong {kind}s",
            expected=sorted(expected_names),
            found=f"missing {missing}, unknown {unknown}",
            fix=f"pass exactly the {kind}s of the graph",
        )
    for spec in specs:
        array = feeds[spec.name]
        if array.dtype != spec.dtype:
            raise MemrtError(
                f"engine {engine}, {kind} '{spec.name}' has another dtype",
                expected=spec.dtype,
                found=array.dtype.name,
                fix="convert the array before the call; engines never cast silently",
            )
        if not _fits(spec.shape, array.shape):
            raise MemrtError(
                f"engine {engine}, {kind} '{spec.name}' has another shape",
                expected=f"{list(spec.shape)} (-1 is free)",
                found=list(array.shape),
                fix="pass an array of the graph's shape, or export the graph again for this one",
            )


def _fits(expected: tuple[int, ...], found: tuple[int, ...]) -> bool:
    return len(expected) == len(found) and all(e in (DYNAMIC, f) for e, f in zip(expected, found, strict=True))


def _ort_value(name: str, array: Array) -> Any:
    """Wrap `array` without a copy; ONNX Runtime would silently copy (and so detach) a strided array."""
    import onnxruntime  # type: ignore[import-untyped, unused-ignore]

    if not array.flags.c_contiguous:
        raise MemrtError(
            f"bound tensor '{name}' is strided",
            expected="a C-contiguous array",
            found=f"strides {array.strides} for shape {array.shape}",
            fix="bind np.ascontiguousarray(...) and keep that array",
        )
    return onnxruntime.OrtValue.ortvalue_from_numpy(array, "cpu", 0)


def session_options(threads: int, processor: Processor | None = None) -> Any:
    """The `onnxruntime.SessionOptions` of every engine; the export's audits look at graphs under the same options.

    `processor` is this computer's, or what to take it for.
    """
    import onnxruntime  # type: ignore[import-untyped, unused-ignore]

    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 3  # errors only: they come back as exceptions
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if (
        processor or this_processor()
    ).saturates:  # ONNX Runtime would apply it to CPUs with VNNI too, and slow them down
        options.add_session_config_entry(EXACT_PRODUCTS, "1")
    return options


def _open_session(path: Path, threads: int) -> Any:
    try:
        import onnxruntime  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise MemrtError(
            f"cannot open {path.name}",
            expected="the package onnxruntime",
            found=str(error),
            fix="pip install 'memrt[cpu]' (or 'memrt[gpu]', never both)",
        ) from error
    if threads < 1:
        raise MemrtError(
            f"cannot open {path.name}",
            expected="threads >= 1",
            found=threads,
            fix="give the engine at least one thread",
        )
    if not path.is_file():
        raise MemrtError(
            "engine file is missing",
            expected="an .onnx file",
            found=f"nothing at {path}",
            fix="export the bundle again",
        )
    try:
        return onnxruntime.InferenceSession(
            str(path),
            sess_options=session_options(threads),
            providers=[PROVIDER],
            disabled_optimizers=list(DISABLED_OPTIMIZERS),
        )
    except Exception as error:  # onnxruntime raises a dozen unrelated classes for a file it cannot use
        raise MemrtError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {path}",
            expected="a valid ONNX graph whose operators the CPU provider implements",
            found=str(error),
            fix="verify the bundle (memrt verify), or export it again with this version of onnxruntime",
        ) from error


def tensor_specs(nodes: Iterable[Any], path: Path) -> tuple[TensorSpec, ...]:
    """What ONNX Runtime tells of a session's inputs or outputs. Raises MemrtError for types that numpy cannot hold."""
    return tuple(_tensor_spec(node, path) for node in nodes)


def _tensor_spec(node: Any, path: Path) -> TensorSpec:
    dtype = NUMPY_DTYPES.get(node.type)
    if dtype is None:
        raise MemrtError(
            f"{path.name}, tensor '{node.name}' has a type numpy cannot hold",
            expected=sorted(NUMPY_DTYPES),
            found=node.type,
            fix="export the graph for ONNX Runtime CPU (float32 inputs and outputs)",
        )
    shape = tuple(d if isinstance(d, int) else DYNAMIC for d in node.shape)
    return TensorSpec(name=node.name, dtype=dtype, shape=shape)
