"""The systemd units, written from code: what each line is for stands here, and the tests let systemd read them.

Three units. The **node** owns the arm and outlives everything else: ending it brakes the arm first. The **runtime**
loads the policy; it may hang, crash and be started again while the node holds the arm. **Rollback** runs when the
runtime has failed for good.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from memrt.runtime.deploy.target.layout import Layout
from memrt.runtime.service.config import SETTINGS
from memrt.runtime.signing.key_files import KEYS_FOLDER

NODE, RUNTIME, ROLLBACK = "memrt-node.service", "memrt.service", "memrt-rollback.service"
NODE_FOLDER = "memrt-node"  # below /run
NODE_ENDPOINT = f"ipc:///run/{NODE_FOLDER}/robot"
STATE = Layout().root
RUNS = STATE / "runs"
# video: V4L2 cameras; plugdev: RealSense over USB; dialout: grippers on a serial port; render: GPUs, Jetson's too.
DEVICE_GROUPS = ("video", "render", "plugdev", "dialout")

# Exit statuses of `memrt service run`, after sysexits(3): EX_TEMPFAIL, EX_CONFIG; 2 is any command's refusal.
BUNDLE_STATUS, COMPUTER_STATUS, SETTINGS_STATUS = 2, 75, 78
RESTARTS, RESTARTS_WITHIN_S = 3, 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """What differs from robot to robot. `memrt` is the command with its whole path, `node` what follows `memrt node`.

    Without `node` the robot's node is another computer's, or a program of your own.
    """

    memrt: str = "/opt/memrt/current/bin/memrt"
    user: str = "memrt"
    settings: Path = SETTINGS
    node: str | None = None

    def texts(self) -> dict[str, str]:
        """The units' texts by file name."""
        texts = {RUNTIME: self._runtime(), ROLLBACK: self._rollback()}
        return texts if self.node is None else {NODE: self._node(), **texts}

    def _node(self) -> str:
        return f"""\
# Written by `memrt service install`. Changes of your own: `systemctl edit memrt-node`.
[Unit]
Description=memrt: the robot's node, which owns the arm
Wants=network-online.target
After=network-online.target
# A robot that is switched off is tried until it answers.
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={self.memrt} node {self.node} --endpoint {NODE_ENDPOINT}
{self._account(NODE_FOLDER)}
Restart=always
RestartSec=2
# SIGTERM brakes the arm; it takes at most 2 s to come to rest, cameras and the robot's own interface some more.
KillMode=mixed
TimeoutStopSec=15
# The control loop runs under SCHED_FIFO, libfranka's at the highest priority, and neither waits for a page of memory.
LimitRTPRIO=99
LimitNICE=-10
LimitMEMLOCK=infinity
# When memory runs out, whatever else there is goes before what brakes the arm.
OOMScoreAdjust=-900
{_HARDENING}
[Install]
WantedBy=multi-user.target
"""

    def _runtime(self) -> str:
        node = "" if self.node is None else f"Wants={NODE}\nAfter={NODE}\n"
        at = "" if self.node is None else f" --node {NODE_ENDPOINT}"
        return f"""\
# Written by `memrt service install`. Changes of your own: `systemctl edit memrt`.
[Unit]
Description=memrt: the policy's runtime, disarmed until `memrt service arm`
Wants=network-online.target
After=network-online.target
{node}# The third failure within {RESTARTS_WITHIN_S // 60} minutes is one too many: then the bundle before comes back.
StartLimitIntervalSec={RESTARTS_WITHIN_S}
StartLimitBurst={RESTARTS}
OnFailure={ROLLBACK}

[Service]
# Ready once every engine is loaded and has reproduced its golden outputs. Loading asks for more time, engine by engine.
Type=notify
NotifyAccess=main
TimeoutStartSec=90
# A flash that was cut short by a power failure is undone first; as root, since the service cannot change bundles.
ExecStartPre=-+{self.memrt} target recover
ExecStart={self.memrt} service run --settings {self.settings}{at}
{self._account("memrt")}
# Fed only while the supervisor, both policies and the cameras get on.
WatchdogSec=10
TimeoutAbortSec=5
# Every start is disarmed. A bundle that is refused will be refused again.
Restart=on-failure
RestartSec=1
RestartPreventExitStatus={BUNDLE_STATUS} {SETTINGS_STATUS}
KillMode=mixed
TimeoutStopSec=45
LimitRTPRIO=99
LimitNICE=-10
LimitMEMLOCK=infinity
LimitCORE=0
# The recorder, a process of its own, has put itself first in line (1000); its end is not the service's.
OOMScoreAdjust=-500
OOMPolicy=continue
{_HARDENING}
[Install]
WantedBy=multi-user.target
"""

    def _rollback(self) -> str:
        status = f"systemctl show --property=ExecMainStatus --value {RUNTIME}"
        return f"""\
# Written by `memrt service install`. Started by {RUNTIME} when that has failed for good.
[Unit]
Description=memrt: back to the bundle before

[Service]
Type=oneshot
# No bundle's fault: a computer that is not ready (no GPU, a new driver), and settings.
ExecCondition=/bin/sh -c 'case $$({status}) in {COMPUTER_STATUS}|{SETTINGS_STATUS}) exit 1;; esac'
ExecStart={self.memrt} target rollback --failed --reason "the service failed for good"
"""

    def _account(self, folder: str) -> str:
        return f"""\
User={self.user}
Group={self.user}
SupplementaryGroups={" ".join(DEVICE_GROUPS)}
WorkingDirectory={STATE}
RuntimeDirectory={folder}
RuntimeDirectoryMode=0750
Environment=PYTHONUNBUFFERED=1"""

    def account(self) -> str:
        """The user and the groups, for systemd-sysusers."""
        groups = "".join(f"m {self.user} {group}\n" for group in DEVICE_GROUPS)
        return f'u {self.user} - "memrt, the robot policy runtime" {STATE}\n{groups}'

    def folders(self) -> str:
        """The folders, for systemd-tmpfiles: the service cannot change what it runs, only what it makes."""
        return f"""\
d {STATE} 0755 root root -
d {RUNS} 0750 {self.user} {self.user} -
d {KEYS_FOLDER.parent} 0755 root root -
d {KEYS_FOLDER} 0755 root root -
"""


def node_arguments(robot: str, host: str | None) -> str:
    """What follows `memrt node` for a robot; systemd's quoting."""
    parts = [robot] if host is None else [robot, "--host", host]
    return " ".join('"' + part.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"' for part in parts)


# Not MemoryDenyWriteExecute, PrivateDevices or RestrictRealtime: GPUs, cameras and control loops need what these take.
_HARDENING = f"""\
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={STATE}
ProtectHome=read-only
PrivateTmp=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
"""
