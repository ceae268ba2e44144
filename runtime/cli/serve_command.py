"""`memrt serve`: a bundle's policies behind openpi's, RoboMME's or vla-eval's protocol, or its VLM behind OpenAI's."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memrt.runtime.cli.eval_command import Precision
from memrt.runtime.cli.extras import needs_extra
from memrt.runtime.errors import MemrtError

if TYPE_CHECKING:
    from memrt.robot_io.serve.server import Limits
    from memrt.runtime.bundle import Bundle


class ServedProtocol(str, Enum):
    """Whose clients may connect."""

    OPENPI = "openpi"
    ROBOMME = "robomme"
    VLA_EVAL = "vla-eval"
    OPENAI = "openai"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("serve")(serve)


def serve(
    *,
    protocol: Annotated[ServedProtocol, typer.Option(help="Whose clients may connect.")],
    bundle: Annotated[
        Path | None, typer.Option(help="Bundle folder.", show_default="the policy's reference bundle")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="A packaged policy, or a policy YAML.", show_default="am_grounded")
    ] = None,
    precision: Annotated[Precision, typer.Option(help="Which reference bundle, when --bundle is not given.")] = (
        Precision.INT8
    ),
    cache: Annotated[
        Path | None, typer.Option(help="Folder for engines and proofs.", show_default="BUNDLE.engines, beside it")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets everybody in who can reach it.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any free one.")] = 8000,
    keys: Annotated[
        str | None,
        typer.Option(
            help="Which key of a request holds what: a name or file as configs/protocols/*.yaml.",
            show_default="the protocol's",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the policy's noise: every episode draws the same.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Computing threads of each policy.")] = 1,
    max_connections: Annotated[int, typer.Option(min=1, max=256, help="Clients at once.")] = 4,
    max_message_mib: Annotated[
        int, typer.Option(min=1, max=1024, help="Size of the largest message a client may send.")
    ] = 64,
    idle_timeout: Annotated[float, typer.Option(min=1, help="Seconds of silence after which a client is gone.")] = 600,
) -> None:
    """Serve a bundle's policies to other people's robots and benchmarks, memory included.

    The client owns the robot: it sends pictures, joint angles and the task, and gets action chunks (openpi, robomme)
    or one action per step (vla-eval). Each connection is an episode with a memory of its own; the high level is asked
    every `every_steps` control steps, the action expert for each chunk. A new connection, a reset or an episode_start
    begins with an empty memory. Health: GET /healthz or /health.

    With openai it is the VLM alone that is served, for a robot that runs elsewhere with `memrt run --remote`; memory
    stays there.

    Examples:

        memrt serve --protocol openpi

        memrt serve --protocol robomme --bundle my_bundle --port 8011

        memrt serve --protocol vla-eval --keys my_benchmark.yaml

        memrt serve --protocol openai --policy am_grounded --host 0.0.0.0
    """
    from memrt.runtime.bundle import load_bundle, require_halves
    from memrt.runtime.cli.default_bundle import find_bundle
    from memrt.runtime.cli.run_checks import say_cpu, say_unsigned
    from memrt.runtime.cli.run_display import note
    from memrt.runtime.cli.run_policies import open_policies
    from memrt.runtime.device_engines import proven
    from memrt.runtime.loop.settings import LoopSettings
    from memrt.runtime.manifest import NOT_YET_PROVEN
    from memrt.runtime.thread_budget import ThreadBudget

    with needs_extra("serve"):
        from memrt.robot_io.serve.keys import load_keys
        from memrt.robot_io.serve.server import MIB, Limits
        from memrt.robot_io.serve.serving import LOOPBACK, Serving

    loaded = load_bundle(find_bundle(bundle, policy, precision.value))
    say_unsigned(loaded)
    say_cpu(loaded)
    limits = Limits(message_bytes=max_message_mib * MIB, connections=max_connections, idle_s=idle_timeout)
    if host not in LOOPBACK:
        note(
            f"listening on {host}: these protocols know neither passwords nor encryption, so whoever reaches the port "
            "can have actions computed, and read along. Keep it on the robot's own network"
        )
    if protocol is ServedProtocol.OPENAI:
        _serve_vlm(loaded, host, port, limits, threads=threads, cache=cache)
        return
    mapping = load_keys(keys or protocol.value)
    if mapping.protocol != protocol.value:
        raise MemrtError(
            f"keys `{keys}`", expected=f"protocol {protocol.value}", found=mapping.protocol, fix="correct one of them"
        )
    require_halves(loaded)
    if proven(loaded, cache=cache) is None:
        note(f"{NOT_YET_PROVEN}: run `memrt build {loaded.path}` before its actions move a physical robot")
    with ExitStack() as stack:
        high_level, low_level = open_policies(loaded, ThreadBudget(threads, threads), stack, cache=cache)
        settings = LoopSettings.from_policy(loaded.policy, seed=seed)
        serving = Serving(loaded.policy, high_level, low_level, settings, mapping, limits)
        serving.server()  # what the keys lack is told before anything is warmed up
        if serving.one_client:
            note(f"one client at a time: the memory of {loaded.policy.name} keeps frames of one episode")
        serving.warm_up()
        server = serving.run(
            host, port, lambda bound: _announce(loaded.policy.name, protocol.value, f"ws://{_at(host, bound)}")
        )
    _tell(server.counts)


def _serve_vlm(bundle: Bundle, host: str, port: int, limits: Limits, *, threads: int, cache: Path | None) -> None:
    from memrt.robot_io.serve.chat_server import ChatServer
    from memrt.runtime.bundle import require_halves
    from memrt.runtime.policy.vlm_session import VlmSession
    from memrt.runtime.ready_engines import ReadyEngines

    require_halves(bundle, "hl")
    session = VlmSession.open(bundle, threads, engines=ReadyEngines.of(bundle, cache=cache))
    settings, name = bundle.policy.high_level, bundle.policy.name
    try:
        server = ChatServer(host, port, session, name, settings.max_new_tokens, limits)
        server.run(lambda bound: _announce(f"the VLM of {name}", "OpenAI", f"http://{_at(host, bound)}/v1"))
    finally:
        session.close()
    _tell(server.counts)


def _tell(counts: Mapping[str, int]) -> None:
    from memrt.runtime.cli.run_display import note

    note("served: " + (", ".join(f"{count} {what}" for what, count in counts.items() if count) or "nobody"))


def _announce(what: str, clients: str, address: str) -> None:
    typer.echo(f"serving {what} to {clients} clients on {address} (ctrl-C ends it)")


def _at(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
