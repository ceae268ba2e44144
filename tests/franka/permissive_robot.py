"""An FR3 of franky-sim on a loopback address of its own, in a child process that can be told to misbehave."""

from __future__ import annotations

import contextlib
import os
import time
from contextlib import contextmanager
from multiprocessing import get_context

RECEIVES_S = 60.0  # compiling the scene takes seconds on a busy computer
COMMUNICATION_CONSTRAINTS_VIOLATION = 25  # libfranka: research_interface::robot::Error, 41 of them
CATCH_UP_S = 0.02
ANSWER_S = 0.02  # its time stands still until libfranka has answered: on a busy computer the arm moves in slow motion
PRIORITY = 10


def own_address(number: int) -> str:
    """libfranka's ports are fixed, so every robot needs an address of its own; 127.160/11 is only used here."""
    own = (os.getpid() * 16 + number) % 64_000
    return f"127.{160 + own // 16_000}.{own // 250 % 64 + 1}.{own % 250 + 1}"


@contextmanager
def permissive_robot(number: int = 0, **arguments):
    """Yields (host, tell): `tell("reflex")`, "user stop", "release", ("stall", seconds), "torques" → its answer."""
    context = get_context("spawn")
    here, there = context.Pipe()
    host = own_address(number)
    process = context.Process(target=serve, args=(host, there, arguments), daemon=True)
    process.start()

    def tell(what):
        here.send(what)
        assert here.poll(RECEIVES_S), "the simulated robot does not answer"
        return here.recv()

    try:
        assert here.poll(RECEIVES_S), "the simulated robot did not start"
        here.recv()
        yield host, tell
    finally:
        process.kill()
        process.join()


def serve(host, pipe, arguments) -> None:
    from franky_sim import FrankaRobotServer, SimulationServer
    from franky_sim import franka_robot_protocol as protocol
    from franky_sim.mujoco_simulator import MujocoSimulator

    from memrt.sim.doubles.franky_double import await_command

    class Server(FrankaRobotServer):
        mode = None
        errors = (False,) * 41
        recovered = 0
        torques = ()

        @property
        def robot_state(self):
            state = super().robot_state.replace(errors=self.errors, reflex_reason=self.errors)
            return state if self.mode is None else state.replace(robot_mode=self.mode)

        def abort(self, mode, status, error=None):
            motion, socket = self.current_motion_id, self._tcp_socket
            self.mode = mode
            if error is not None:
                self.errors = tuple(index == error for index in range(41))
            self.stop_motion(send_preemption_signal=False)
            self.reset_current_motion_id()
            if motion:
                self.send_state()  # libfranka reads the reason from it
                protocol.MoveCommand.send_response(socket, protocol.RobotCommand.kMove, motion, status)

        def recover(self):
            self.recovered += 1
            self.mode, self.errors = None, (False,) * 41

        def _handle_udp_command(self, data):
            self.torques += (protocol.UDPCommand.from_bytes(data).tau_J_d,)
            super()._handle_udp_command(data)

    def recover(command, server):
        server.recover()
        command.reply(protocol.AutomaticErrorRecoveryStatus.kSuccess)

    protocol.AutomaticErrorRecoveryCommand.handle = recover
    with MujocoSimulator() as simulator:
        robot = simulator.add_robot(**arguments)
        simulation = SimulationServer(simulator, [host])
        server = Server(robot, [host])
        server.init()
        simulation.robot_servers.append(server)
        simulator.start()
        # Compiling the scene took seconds of computing, and this goes before all others.
        with contextlib.suppress(PermissionError):  # else its milliseconds last as long as this computer is busy
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
        pipe.send("ready")
        deadline = time.monotonic()
        while True:
            if pipe.poll():
                what = pipe.recv()
                pipe.send(obey(server, protocol, what))
                if what[0] == "stall":
                    time.sleep(what[1])
            await_command(server, ANSWER_S)
            simulation.run_once(False)
            deadline += 0.001
            late = time.monotonic() - deadline
            if late > CATCH_UP_S:
                deadline = time.monotonic()
            elif late < 0:
                time.sleep(-late)


def obey(server, protocol, what):
    if what == "reflex":
        status, error = protocol.MoveStatus.kReflexAborted, COMMUNICATION_CONSTRAINTS_VIOLATION
        server.abort(protocol.RobotMode.kReflex, status, error)
    elif what == "user stop":
        server.abort(protocol.RobotMode.kUserStopped, protocol.MoveStatus.kEmergencyAborted)
    elif what == "release":
        server.mode = None
    elif what == "torques":
        torques, server.torques = server.torques, ()
        return torques
    elif what == "recovered":
        return server.recovered
    return "done"


def eventually(condition, seconds: float = 60.0) -> bool:
    """Whether the condition becomes true; long enough for the busiest computer, and no longer than needed."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
