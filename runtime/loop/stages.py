"""The stages inside one policy call, as its reply states them: for the record's latencies and for the trace."""

from __future__ import annotations

from typing import Any

from memrt.runtime.trace import Trace

STAGES = ("vision", "prefill", "decode", "prefix", "step")  # in the order in which a call passes them
AMOUNTS = ("new_tokens", "reused_tokens")


def stage_durations(reply: object) -> list[tuple[str, int]]:
    """(stage, nanoseconds) for every `<stage>_ns` attribute that a policy's reply carries."""
    found = ((name, getattr(reply, f"{name}_ns", None)) for name in STAGES)
    return [(name, int(value)) for name, value in found if value is not None]


def trace_call(trace: Trace, track: str, start_ns: int, end_ns: int, reply: object, **arguments: Any) -> None:
    """A span for the call, and inside it one for each stage.

    Replies say how long a stage took, not when it began: stages are laid end to end from the call's start, and what
    lies between them is seen after the last.
    """
    trace.span("call", track, start_ns, end_ns, **arguments)
    for name, duration_ns in stage_durations(reply):
        trace.span(name, track, start_ns, start_ns + duration_ns)
        start_ns += duration_ns
