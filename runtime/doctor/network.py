"""The way to the arm, or to the computer of the robot's node: measured by echoes of 1200 bytes every 2 ms.

Sources: Franka's "Minimum system and network requirements" (round trip, control step and the robot's own work together
take less than 1 ms; no switch in between; 20 lost packets in a row stop it) and its "Troubleshooting", whose ping test
this is; robot_io/link: the node of another computer is not armed while clocks are uncertain by more than 5 ms, brakes
after 50 ms of silence.
"""

from __future__ import annotations

from memrt.runtime.doctor.finding import Finding, error, fine, unknown, warning
from memrt.runtime.doctor.snapshot import Network, Snapshot, number
from memrt.runtime.doctor.system import INSTALL

FILES = tuple(f"/sys/class/net/*/{name}" for name in ("speed", "wireless/uevent", "type"))
ARM_P99_MS, ARM_MAX_MS = 0.3, 1.0  # what a 1 kHz loop through the network leaves
NODE_P99_MS, NODE_MAX_MS = 5.0, 50.0  # the link's clock_sync and brake_after_ms
LEAST_MBIT_S = 100  # 100BASE-TX


def examine(snapshot: Snapshot) -> list[Finding]:
    """Findings about the network to the robot."""
    network = snapshot.network
    if network is None:
        return [unknown("way to the robot", "no address was given (--host, or the robot's YAML)")]
    return [_echoes(snapshot, network), *_way(snapshot, network)]


def _is_arm(snapshot: Snapshot) -> bool:
    return snapshot.robot is None or snapshot.robot.host_is == "arm"


def _echoes(snapshot: Snapshot, network: Network) -> Finding:
    about = f"round trip to {network.host}"
    if network.error == "no ping":
        return warning(about, "not measured: no `ping` here", "jitter stays unknown", f"{INSTALL} iputils-ping")
    if network.error or not network.received:
        found = network.error or f"none of {network.sent} echoes came back"
        look = "# cable, address and mask of this computer's port; is the robot on?"
        return error(about, found, "the robot cannot be reached", f"ip route get {network.host}", look)
    lost = network.sent - network.received
    found = (
        f"median {network.median_ms:.2f}, p99 {network.p99_ms:.2f}, at most {network.max_ms:.2f} ms, "
        f"{lost} of {network.sent} lost"
    )
    arm = _is_arm(snapshot)
    p99, most = (ARM_P99_MS, ARM_MAX_MS) if arm else (NODE_P99_MS, NODE_MAX_MS)
    if not lost and network.p99_ms <= p99 and network.max_ms <= most:
        return fine(about, found)
    if arm:
        cost = "the arm misses answers, uses the last torque again, and stops after 20 in a row"
        mend = ["# cable from this computer's own port straight to the control unit, no switch, nothing else on it"]
    else:
        cost = "the node brakes after 50 ms of silence, and is not armed while clocks are uncertain by more than 5 ms"
        mend = ["# connect both computers by cable, on a network that nothing else loads"]
    if network.interface:
        mend.append(f"sudo ethtool -C {network.interface} rx-usecs 0 # answers at once, instead of gathering packets")
    return warning(about, found, cost, *mend)


def _way(snapshot: Snapshot, network: Network) -> list[Finding]:
    """The interface that packets leave by."""
    name = network.interface
    if not name or name == "lo":
        return []
    findings = []
    folder = f"/sys/class/net/{name}"
    if f"{folder}/wireless/uevent" in snapshot.files:
        cost = "packets are sent again and gathered: tens of milliseconds at times, which stop the arm"
        findings.append(warning(f"interface {name}", "wireless", cost, "# use a cable"))
    speed = number(snapshot.text(f"{folder}/speed"))  # -1 without a link, EINVAL on some drivers
    if speed is not None and 0 < speed < LEAST_MBIT_S:
        cost = "Franka asks for 100 Mbit/s: packets wait for each other"
        mend = f"sudo ethtool {name} # what both ends offer; change the cable"
        findings.append(warning(f"speed of {name}", f"{speed:g} Mbit/s", cost, mend))
    if network.gateway and _is_arm(snapshot):
        cost = "each packet is passed on by another computer, in its own time"
        mend = "# give this computer's port an address in the arm's network, such as 172.16.0.1/24"
        findings.append(warning("route", f"through {network.gateway}", cost, mend))
    return findings or [fine(f"interface {name}", f"{speed:g} Mbit/s" if speed and speed > 0 else "direct")]
