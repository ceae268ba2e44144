"""Keys on the link, over real sockets: who has the right ones gets in, everyone else learns why not."""

import socket
import stat
import time

import pytest
import zmq
from arm_driver import ArmDriver, Rig, eventually, tcp_endpoint
from typer.testing import CliRunner

from memrt.robot_io.link.client import LinkRobot
from memrt.robot_io.link.endpoints import Endpoints, needs_keys
from memrt.robot_io.link.keys import client_keys, make_keys, node_keys
from memrt.robot_io.link.node import RobotNode
from memrt.robot_io.link.wire import VERSION, Command, Hello, encode
from memrt.runtime.cli import build_app
from memrt.runtime.errors import MemrtError
from memrt.runtime.types import RobotMode

pytestmark = pytest.mark.real_time


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    make_keys(folder, "client")
    return folder


@pytest.fixture
def open_rig(tmp_path):
    made = []

    def make(**arguments) -> Rig:
        made.append(Rig(tmp_path, endpoint=tcp_endpoint("127.0.0.1"), **arguments))
        return made[-1]

    yield make
    for rig in made:
        rig.close()


def test_who_has_the_right_keys_commands_the_robot(open_rig, keys):
    rig = open_rig(keys=keys)
    robot = rig.client(keys=keys)
    robot.arm()
    assert robot.mode is RobotMode.RUNNING
    robot.stop()
    assert robot.statistics["clients refused for their key"] == 0


def test_a_key_the_node_does_not_know_is_refused_at_once(open_rig, keys, tmp_path):
    make_keys(tmp_path / "other", "client")
    strange = tmp_path / "other" / "client"
    (strange / "node.public").write_bytes((keys / "client" / "node.public").read_bytes())
    rig = open_rig(keys=keys)
    with pytest.raises(MemrtError, match="found a node that does not know this client's key") as refused:
        LinkRobot(rig.endpoint, keys=strange, connect_ms=60_000)
    assert "\n" not in str(refused.value)
    assert eventually(lambda: rig.node._figures()[0]["clients refused for their key"] >= 1)


def test_a_node_with_another_key_than_expected_is_not_talked_to(open_rig, keys, tmp_path):
    make_keys(tmp_path / "other", "client")
    rig = open_rig(keys=keys)
    with pytest.raises(MemrtError, match=r"another key than this client's `node\.public`"):
        LinkRobot(rig.endpoint, keys=tmp_path / "other", connect_ms=600)


def test_keys_on_one_side_only_are_named(open_rig, keys):
    rig = open_rig(keys=keys)
    with pytest.raises(MemrtError, match="found a node that demands keys"):
        LinkRobot(rig.endpoint, connect_ms=60_000)
    plain = open_rig()
    with pytest.raises(MemrtError, match="found a node without keys"):
        LinkRobot(plain.endpoint, keys=keys, connect_ms=60_000)


def test_nothing_gets_past_the_keys(open_rig, keys):
    rig = open_rig(keys=keys)
    addresses = Endpoints.of(rig.endpoint)
    context = zmq.Context()
    try:
        control, chunks, state = (context.socket(kind) for kind in (zmq.DEALER, zmq.PUSH, zmq.SUB))
        for plain, address in ((control, addresses.control), (chunks, addresses.chunks), (state, addresses.state)):
            plain.connect(address)
        state.subscribe(b"")
        control.send(encode(Hello(5, 1, VERSION, "here")))
        control.send(encode(Command(5, 2, "arm", 0)))
        chunks.send(b"anything")
        with socket.create_connection(addresses.control.removeprefix("tcp://").split(":")) as raw:
            raw.send(b"GET / HTTP/1.1\r\n\r\n" * 100)
        robot = rig.client(keys=keys)  # the node has served this long, and goes on
        assert robot.mode is RobotMode.DISARMED
        time.sleep(0.1)
        assert not control.poll(0)
        assert not state.poll(0)
        assert not any("dropped" in name for name in rig.node._figures()[0])  # nothing has come that far
    finally:
        context.destroy(linger=0)


def test_an_endpoint_beyond_this_computer_demands_keys():
    driver = ArmDriver()
    try:
        for endpoint in ("tcp://0.0.0.0:5550", "tcp://*:5550", "tcp://192.168.1.10:5550", "tcp://robot.local:5550"):
            with pytest.raises(MemrtError, match="expected keys, so that nobody else commands the robot"):
                RobotNode(driver, endpoint)
            with pytest.raises(MemrtError, match="memrt link-keys"):
                LinkRobot(endpoint)
    finally:
        driver.close()
    assert needs_keys("tcp://[2001:db8::1]:5550")
    for own in ("ipc:///run/robot", "tcp://127.0.0.1:1", "tcp://127.8.8.8:1", "tcp://localhost:1", "tcp://[::1]:1"):
        assert not needs_keys(own)


def own_address() -> str:
    """An address of this computer that is no loopback; no packet is sent to learn it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        return probe.getsockname()[0]


@pytest.mark.skipif(not own_address() or own_address().startswith("127."), reason="this computer has no network")
def test_a_robot_on_the_network_is_reached_with_keys(tmp_path, keys):
    rig = Rig(tmp_path, endpoint=tcp_endpoint(own_address()), keys=keys)
    try:
        robot = rig.client(keys=keys)
        robot.arm()
        robot.stop()
        assert robot.mode is RobotMode.STOPPED
    finally:
        rig.close()


def test_ipv6_is_an_address_like_any_other(tmp_path):
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
            port = probe.getsockname()[1]
    except OSError:
        pytest.skip("this computer has no IPv6")
    rig = Rig(tmp_path, endpoint=f"tcp://[::1]:{min(port, 60_000)}")
    try:
        assert rig.client().mode is RobotMode.DISARMED
    finally:
        rig.close()


def test_the_command_makes_folders_for_both_sides(tmp_path):
    runner, folder = CliRunner(), tmp_path / "robot-keys"
    result = runner.invoke(build_app(), ["link-keys", str(folder)])
    assert result.exit_code == 0
    assert f"--keys {folder / 'node'}" in result.stdout
    for secret in (folder / "node" / "node.secret", folder / "client" / "client.secret"):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        assert secret.read_text().strip() not in result.stdout
    assert runner.invoke(build_app(), ["link-keys", str(folder), "--client", "second"]).exit_code == 0
    node = node_keys("tcp://*:1", folder)
    assert len(node.clients) == 2
    for client in ("client", "second"):
        found = client_keys("tcp://10.0.0.2:1", folder / client)
        assert zmq.curve_public(found.secret) in node.clients
        assert found.node == zmq.curve_public(node.secret)
    assert node.secret.decode() not in repr(node)
    for again in ("client", "node", "../elsewhere", ""):
        refused = runner.invoke(build_app(), ["link-keys", str(folder), "--client", again])
        assert isinstance(refused.exception, MemrtError)
    assert sorted(path.name for path in folder.iterdir()) == ["client", "node", "second"]


def test_bad_keys_are_one_clear_line(tmp_path, keys):
    def refused(match: str) -> None:
        with pytest.raises(MemrtError, match=match):
            node_keys("tcp://*:1", tmp_path / "node")

    refused("found No such file or directory")
    make_keys(tmp_path, "client")
    secret = tmp_path / "node" / "node.secret"
    secret.chmod(0o644)
    refused("found mode 0644. Fix: chmod 600")
    secret.chmod(0o600)
    (tmp_path / "node" / "client.public").unlink()
    refused("at least one client")
    (tmp_path / "node" / "client.public").write_text("not a key")
    refused("40 characters of Z85")
    with pytest.raises(MemrtError, match=r"a client's client\.secret"):
        client_keys("tcp://*:1", keys / "node")
