"""What the commands send, print and end with; the service itself is a socket here."""

import json

import pytest
import typer
from test_control import Service
from typer.testing import CliRunner

from memrt.runtime.cli import service_command
from memrt.runtime.errors import MemrtError
from memrt.runtime.service.control import ControlServer, Request
from memrt.runtime.service.health import Check, HealthReport
from memrt.runtime.service.status import ServiceStatus

APP = typer.Typer()
APP.callback()(lambda: None)
service_command.register(APP)


class Spoken(Service):
    """Says that it is disarmed, and as healthy as it was told to be."""

    met = True

    def status(self):
        check = Check(what="cameras", asked="fresh", found="front", met=self.met, fix="" if self.met else "plug it in")
        report = HealthReport(bundle="0", policy="p", device="d", checks=(check,))
        phase = "disarmed" if self.met else "unhealthy"
        about = {"robot": "sim", "bundle": "/b", "up_s": 1.0, "pid": 7}
        return ServiceStatus(phase=phase, reason=report.complaint, health=report, **about).to_dict()


@pytest.fixture
def service(tmp_path):
    service = Spoken()
    service.may_arm.set()
    service.path = tmp_path / "control"
    with ControlServer(service.path, service.answer, service.status):
        yield service


def invoke(service, *arguments: str):
    return CliRunner().invoke(APP, ["service", *arguments, "--control", str(service.path)])


def test_each_command_sends_its_word(service):
    for verb in ("arm", "stop", "resume", "disarm", "status"):
        assert invoke(service, verb).exit_code == 0
    assert [request.verb for request in service.asked] == ["arm", "stop", "resume", "disarm", "status"]
    invoke(service, "arm", "--goal", "pick up the cube")
    assert service.asked[-1] == Request("arm", "pick up the cube")


def test_json_is_one_object(service):
    values = json.loads(invoke(service, "status", "--json").stdout)
    assert (values["phase"], values["health"]["healthy"]) == ("disarmed", True)


def test_health_ends_with_1_unless_all_is_well(service):
    assert invoke(service, "health", "--json").exit_code == 0
    service.met = False
    result = invoke(service, "health")
    assert result.exit_code == service_command.UNHEALTHY
    assert "plug it in" in " ".join(result.stdout.split())


def test_a_service_that_is_not_there_is_a_refusal(tmp_path):
    result = CliRunner().invoke(APP, ["service", "status", "--control", str(tmp_path / "none")])
    assert isinstance(result.exception, MemrtError)


def test_install_into_an_image_writes_units_that_name_the_robot(tmp_path):
    result = CliRunner().invoke(APP, ["service", "install", "sim", "--goal", "stack", "--root", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert 'node "sim"' in (tmp_path / "etc/systemd/system/memrt-node.service").read_text()
    assert 'goal: "stack"' in (tmp_path / "etc/memrt/service.yaml").read_text()
