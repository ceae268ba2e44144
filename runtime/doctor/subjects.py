"""What the doctor must know of the bundle and the robot that it was asked about."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from memrt.runtime.bundle import Bundle, load_bundle
from memrt.runtime.bundle_needs import needed_backend, served_gpus
from memrt.runtime.device_engines import proven
from memrt.runtime.doctor.snapshot import BundleFacts, CameraFacts, RobotFacts
from memrt.runtime.errors import MemrtError
from memrt.runtime.signing import load_trusted, signer_of

if TYPE_CHECKING:  # the robots are imported when a command needs them, never by importing the runtime
    from memrt.robot_io.config import RobotConfig


def robot_facts(robot: RobotConfig) -> RobotFacts:
    """From a robot's YAML."""
    cameras = robot.cameras if isinstance(robot.cameras, dict) else {}
    franka = robot.driver == "franka"
    return RobotFacts(
        name=robot.name,
        simulated=robot.simulated,
        enforces_realtime=franka and robot.settings.get("realtime", "enforce") == "enforce",
        host_is="arm" if robot.link.endpoint is None else "node",
        cameras={
            name: CameraFacts(
                kind=camera.kind,
                serial=camera.serial,
                path=camera.path,
                width=camera.width,
                height=camera.height,
                fps=camera.fps,
            )
            for name, camera in cameras.items()
        },
    )


def robot_host(robot: RobotConfig) -> str | None:
    """Whom to send echoes to: the computer of a node that runs elsewhere, else the arm; None where there is neither."""
    if robot.link.endpoint is not None:
        return urlsplit(robot.link.endpoint).hostname if robot.link.endpoint.startswith("tcp://") else None
    return robot.host


def bundle_facts(path: Path, cache: Path | None, keys: Path | None) -> BundleFacts:
    """Every file is hashed; what keeps it from being opened is in `refused`. `cache`, `keys`: as for `memrt run`."""
    try:
        bundle = load_bundle(path)
        signer = signer_of(bundle, load_trusted(keys))
    except MemrtError as problem:
        return BundleFacts(path=str(path), refused=str(problem))
    manifest = bundle.manifest
    proof, unproven = _proof(bundle, cache)
    return BundleFacts(
        path=str(path),
        target=manifest.target,
        backend=needed_backend(manifest),
        precision=manifest.precision,
        full_range=manifest.cpu.full_range if manifest.cpu is not None else (),
        sm=served_gpus(manifest),
        engine_bytes=sum(file.stat().st_size for name, file in bundle.files.items() if not name.startswith("golden/")),
        proven=proof,
        unproven=unproven,
        signature=signer.says,
        signed=signer.key is not None,
    )


def _proof(bundle: Bundle, cache: Path | None) -> tuple[bool | None, str]:
    try:
        return proven(bundle, cache=cache) is not None, ""
    except MemrtError as problem:
        return None, str(problem)
