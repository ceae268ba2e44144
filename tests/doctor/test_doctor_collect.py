"""Looking at this computer: bounded, without rights, and without falling over what is missing."""

import socket
from pathlib import Path

import pytest

from memrt.runtime.doctor import collect as collecting
from memrt.runtime.doctor import measure
from memrt.runtime.doctor.collect import collect, run_tool
from memrt.runtime.doctor.measure import measure_clock, measure_disk, measure_network, parse_ping

REPLY = "1208 bytes from 172.16.0.2: icmp_seq={} ttl=64 time={} ms\n"
TOTALS = "\n--- 172.16.0.2 ping statistics ---\n{} packets transmitted, {} received, 0% packet loss, time 2ms\n"


def look(**asked):
    return collect(**{"files": (), "links": (), "devices": (), "commands": (), "packages": (), **asked})


def test_files_links_and_devices_are_read_by_pattern(tmp_path):
    (tmp_path / "cpu0").mkdir()
    (tmp_path / "cpu0" / "governor").write_text("performance\n")
    (tmp_path / "big").write_text("x" * 100_000)
    (tmp_path / "link").symlink_to(tmp_path / "big")
    seen = look(
        files=(f"{tmp_path}/cpu*/governor", f"{tmp_path}/big", f"{tmp_path}/missing", f"{tmp_path}/cpu0"),
        links=(f"{tmp_path}/*",),
        devices=(f"{tmp_path}/big", "/dev/no-such-device"),
    )
    assert seen.text(f"{tmp_path}/cpu0/governor") == "performance"
    assert len(seen.files[f"{tmp_path}/big"]) == collecting.MAX_FILE_BYTES
    assert set(seen.files) == {f"{tmp_path}/cpu0/governor", f"{tmp_path}/big"}
    assert seen.links == {f"{tmp_path}/link": str(tmp_path / "big")}
    assert seen.devices == {f"{tmp_path}/big": True}


def test_a_tool_that_is_missing_fails_or_hangs(tmp_path):
    assert run_tool(("no-such-tool",)) is None
    assert run_tool(("sleep", "5"), seconds=0.1) is None
    failed = run_tool(("sh", "-c", "echo why >&2; exit 9"))
    assert (failed.status, failed.text) == (9, "why\n")


def test_only_the_libraries_that_matter_are_kept():
    text = look(commands=(("ldconfig", "-p"),)).outputs["ldconfig"].text
    assert all(collecting.LIBRARIES.search(line) for line in text.splitlines())
    assert "=>" not in text


def test_the_clock():
    clock = measure_clock()
    assert clock.resolution_ns >= 1
    assert 0 < clock.read_ns < 1e6


def test_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "WRITTEN", 1 << 20)
    monkeypatch.setattr(measure, "BLOCK", 1 << 19)
    monkeypatch.setattr(measure, "SPARE", 1 << 20)
    disk = measure_disk(tmp_path, write=True)
    assert disk.writable
    assert disk.file_system
    assert disk.write_mb_s > 0
    assert list(tmp_path.iterdir()) == []
    assert measure_disk(tmp_path, write=False).write_mb_s is None
    assert measure_disk(Path("/proc"), write=False).file_system == "proc"


def test_pings_are_counted():
    text = "".join(REPLY.format(n, 0.1 * n) for n in range(1, 11)) + TOTALS.format(12, 10)
    found = parse_ping("172.16.0.2", text)
    assert (found.sent, found.received, found.max_ms) == (12, 10, 1.0)
    assert found.median_ms == pytest.approx(0.55)
    assert found.p99_ms <= found.max_ms


@pytest.mark.parametrize(
    ("text", "sent", "received", "error"),
    [
        (TOTALS.format(20, 0), 20, 0, ""),
        ("3 packets transmitted, 2 packets received, 33% packet loss\n" + REPLY.format(1, 2) * 2, 3, 2, ""),  # busybox
        ("ping: cannot resolve x: Unknown host\n", 0, 0, "ping: cannot resolve x: Unknown host"),
        ("ping: -i interval too short: Operation not permitted\n", 0, 0, "ping: -i interval too short: Operation not "),
        ("", 0, 0, "ping says nothing"),
    ],
)
def test_pings_that_say_something_else(text, sent, received, error):
    found = parse_ping("x", text)
    assert (found.sent, found.received) == (sent, received)
    assert found.error.startswith(error)


def test_echoes_of_this_computer(monkeypatch):
    monkeypatch.setattr(measure, "PINGS", (("-c", "2", "-i", "0.2"),))
    found = measure_network("127.0.0.1")
    if found.error:
        pytest.skip(f"no echoes here: {found.error}")
    assert (found.sent, found.received) == (2, 2)


def test_nothing_that_it_reads_names_the_computer():
    seen = collect()
    name = socket.gethostname()
    assert not any(name in text.split() for text in seen.files.values() if len(name) > 3)
