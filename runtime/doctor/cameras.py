"""Cameras: their USB speed, librealsense and libusb, firmware, who may open them, those that the robot's YAML names.

Sources: the kernel's Documentation/ABI/stable/sysfs-bus-usb (`speed` in Mbit/s); USB 2.0, 5.6.3 (an isochronous
endpoint moves at most 24 MB/s); librealsense, "Linux distribution" (udev rules, libusb) and `rs2_camera_info`
(recommended firmware, USB type).
"""

from __future__ import annotations

import re

from memrt.runtime.doctor.finding import Finding, error, fine, unknown, warning
from memrt.runtime.doctor.snapshot import CameraFacts, Snapshot, number
from memrt.runtime.doctor.system import INSTALL

USB, V4L2, BY_ID = "/sys/bus/usb/devices", "/sys/class/video4linux", "/dev/v4l/by-id"
FILES = (
    *(f"{USB}/*/{name}" for name in ("idVendor", "product", "speed", "busnum", "devnum")),
    *(f"{V4L2}/video*/{name}" for name in ("name", "index")),
)
LINKS = (f"{V4L2}/video*/device", f"{BY_ID}/*")
DEVICES = ("/dev/video*", "/dev/bus/usb/*/*")
COMMANDS = (("ldconfig", "-p"),)
PACKAGES = ("pyrealsense2", "opencv-python-headless", "opencv-python")
INTEL, REALSENSE = "8086", "RealSense"
SUPER_SPEED = 5000  # Mbit/s: USB 3
RULES = "/etc/udev/rules.d/99-realsense-libusb.rules"


def examine(snapshot: Snapshot) -> list[Finding]:
    """Findings about cameras, those of the robot's YAML included."""
    present = _realsense_on_usb(snapshot)
    findings = [finding for folder in present for finding in _realsense(snapshot, folder)]
    wanted = {} if snapshot.robot is None else snapshot.robot.cameras
    if present or any(camera.kind == "realsense" for camera in wanted.values()):
        findings.append(_library(snapshot))
        findings += _firmware(snapshot)
    findings += _v4l2(snapshot)
    findings += [_configured(snapshot, name, camera) for name, camera in wanted.items()]
    return findings or [unknown("cameras", "none is connected, and no robot's YAML was given (--robot)")]


def _realsense_on_usb(snapshot: Snapshot) -> list[str]:
    vendors = snapshot.matching(f"{USB}/*/idVendor")
    folders = [path.removesuffix("/idVendor") for path, vendor in vendors.items() if vendor == INTEL]
    return [folder for folder in folders if REALSENSE in snapshot.text(f"{folder}/product")]


def _realsense(snapshot: Snapshot, folder: str) -> list[Finding]:
    name = f"{snapshot.text(f'{folder}/product')} at USB {folder.rpartition('/')[2]}"
    findings = [_speed(name, snapshot.text(f"{folder}/speed"))]
    bus, place = number(snapshot.text(f"{folder}/busnum")), number(snapshot.text(f"{folder}/devnum"))
    device = f"/dev/bus/usb/{bus:03.0f}/{place:03.0f}" if bus is not None and place is not None else ""
    if snapshot.devices.get(device) is False:
        rule = f'SUBSYSTEMS=="usb", ATTRS{{idVendor}}=="{INTEL}", MODE:="0666"'
        findings.append(
            error(
                name,
                f"this user may not open {device}",
                "librealsense does not see the camera: the robot's node does not start",
                f"echo '{rule}' | sudo tee {RULES}",
                "sudo udevadm control --reload-rules && sudo udevadm trigger",
            )
        )
    return findings


def _speed(name: str, speed: str) -> Finding:
    megabits = number(speed)
    if megabits is None:
        return unknown(name, "its speed is not said")
    if megabits >= SUPER_SPEED:
        return fine(name, f"{speed} Mbit/s")
    cost = "fewer sizes and rates are offered (often 15 frames/s at 640x480): the node refuses what the YAML asks for"
    mend = ("# plug it into a USB 3 port (blue, or SS) with a USB 3 cable, firmly: a half-seated plug is USB 2",)
    return warning(name, f"USB 2, {speed} Mbit/s", cost, *mend, "memrt cameras list")


def _library(snapshot: Snapshot) -> Finding:
    about, libraries = "librealsense", snapshot.printed("ldconfig")
    cost = "no RealSense can be opened: the robot's node does not start"
    if "pyrealsense2" not in snapshot.packages:
        return error(about, "the package pyrealsense2 is not installed", cost, "pip install 'memrt[realsense]'")
    if libraries and "libusb-1.0.so.0" not in libraries:
        return error(about, "needs libusb, which is not installed", cost, f"{INSTALL} libusb-1.0-0")
    if snapshot.realsense is None:
        return error(about, "pyrealsense2 does not load", cost, "python -c 'import pyrealsense2' # says why")
    return fine(about, snapshot.packages["pyrealsense2"])


def _firmware(snapshot: Snapshot) -> list[Finding]:
    findings = []
    for camera in snapshot.realsense or ():
        name = f"firmware of {camera.get('name', 'a RealSense')} {camera.get('serial', '')}".strip()
        has, wants = camera.get("firmware", ""), camera.get("recommended_firmware", "")
        if has and wants and _numbers(has) < _numbers(wants):
            cost = "not what this librealsense was tested with: lost frames, and times without their metadata"
            mend = "rs-fw-update -f IMAGE.bin # of librealsense2-utils; the image from RealSense's firmware page"
            findings.append(warning(name, f"{has}, {wants} recommended", cost, mend))
        else:
            findings.append(fine(name, has or "not said"))
    return findings


def _v4l2(snapshot: Snapshot) -> list[Finding]:
    """V4L2 cameras on USB: those that nobody may open, and several that share one USB 2 bus."""
    findings, buses = [], dict[str, list[str]]()
    for path, name in snapshot.matching(f"{V4L2}/video*/name").items():
        node = path.split("/")[-2]
        if snapshot.text(f"{V4L2}/{node}/index") != "0" or REALSENSE in name:
            continue
        if snapshot.devices.get(f"/dev/{node}") is False:
            cost = "the camera cannot be opened: the robot's node does not start"
            mend = ('sudo usermod -aG video "$USER"', "# log in again")
            findings.append(error(f"{name} at /dev/{node}", "this user may not open it", cost, *mend))
        usb = re.search(r"/(\d+-[\d.]+)/[^/]*$", snapshot.links.get(f"{V4L2}/{node}/device", ""))
        speed = number(snapshot.text(f"{USB}/{usb.group(1)}/speed")) if usb else None
        if usb and speed is not None and speed < SUPER_SPEED:
            buses.setdefault(usb.group(1).partition("-")[0], []).append(f"/dev/{node}")
    for bus, nodes in buses.items():
        about, found = f"USB bus {bus}", f"{', '.join(nodes)} on USB 2"
        if len(nodes) == 1:
            findings.append(fine(about, found))
            continue
        cost = "one bus moves 24 MB/s of video in all, 640x480 in YUYV at 30 frames/s is 18: the second one stays dark"
        apart = "# plug them into ports of different controllers, or set `pixels: MJPG` in the robot's YAML"
        findings.append(warning(about, found, cost, "lsusb -t", apart))
    return findings


def _configured(snapshot: Snapshot, name: str, camera: CameraFacts) -> Finding:
    """Whether a camera of the robot's YAML is there; `memrt cameras check` then says how it does."""
    about, cost = f"camera `{name}`", "the robot's node does not start"
    if camera.kind == "realsense" and camera.serial is not None:
        if snapshot.realsense is None:
            return unknown(about, "librealsense could not be asked")
        connected = [found.get("serial", "") for found in snapshot.realsense]
        if camera.serial in connected:
            return fine(about, f"RealSense {camera.serial}")
        found = f"no RealSense {camera.serial}, but {', '.join(connected) or 'none at all'}"
        return error(about, found, cost, "memrt cameras list # correct `serial`, or plug it in")
    if camera.kind == "v4l2" and camera.path is not None:
        if camera.path in snapshot.links or camera.path in snapshot.devices:
            return fine(about, camera.path)
        return error(about, f"nothing at {camera.path}", cost, "memrt cameras list # correct `path`, or plug it in")
    return fine(about, f"{camera.kind}: not a device of this computer")


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version, re.ASCII)]
