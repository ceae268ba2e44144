"""Runs memrt's commands in forks of one process that has imported them: the tests start dozens.

`warm_memrt.py serve SOCKET` is that process. `warm_memrt.py call SOCKET ARGUMENT...` hands its stdin, stdout, stderr
and environment over and waits for the exit status, so sshd sees an ordinary command. MEMRT_DIE=before or after kills
the command (SIGKILL) at the rename of the link `current`; MEMRT_SMALL_DISK=BYTES lets the disk be full after as many.
"""

import json
import os
import signal
import socket
import sys


def call(path: str, arguments: list[str]) -> int:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        request = json.dumps([arguments, {k: v for k, v in os.environ.items() if k.startswith("MEMRT_")}])
        socket.send_fds(connection, [request.encode() + b"\n"], [0, 1, 2])
        for descriptor in (0, 1, 2):
            os.close(descriptor)  # only the command holds them now
        return int(connection.recv(16) or b"137")


def serve(path: str) -> None:
    import memrt.runtime.cli.build_command
    import memrt.runtime.deploy.target.report
    import memrt.runtime.deploy.target.session
    import memrt.runtime.deploy.target.undo
    import memrt.runtime.service.control  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(16)
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _relay(connection)
            connection.close()


def _relay(connection: socket.socket) -> None:
    """In a process of its own: so that whoever waits hears of a command that was killed."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    data, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 3)
    arguments, environment = json.loads(data)
    command = os.fork()
    if command == 0:
        for descriptor, number in zip(descriptors, (0, 1, 2), strict=True):
            os.dup2(descriptor, number)
        os.closerange(3, 256)
        os.environ.update(environment)
        _run(arguments)
    for descriptor in descriptors:
        os.close(descriptor)
    _, status = os.waitpid(command, 0)
    connection.send(str(os.waitstatus_to_exitcode(status) % 256).encode())
    os._exit(0)


def _run(arguments: list[str]) -> None:
    from memrt.runtime.cli import main
    from memrt.runtime.deploy.target import session

    session._COMMAND = (sys.executable, "-IS", __file__, "call", os.environ["MEMRT_WARM"])
    _inject()
    sys.argv = ["memrt", *arguments]
    status = 0
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        os._exit(status)


def _inject() -> None:
    from memrt.runtime.deploy.target import staging
    from memrt.runtime.deploy.target.files import Disk

    moment, victim = os.environ.get("MEMRT_DIE"), os.getpid()  # not the watcher, which it forks
    rename = Disk.rename

    def deadly(self, source, destination):
        if destination.name == "current" and moment == "before" and os.getpid() == victim:
            os.kill(victim, signal.SIGKILL)
        rename(self, source, destination)
        if destination.name == "current" and moment == "after" and os.getpid() == victim:
            os.kill(victim, signal.SIGKILL)

    if moment:
        Disk.rename = deadly
    left = int(os.environ.get("MEMRT_SMALL_DISK", "-1"))
    write = staging._write

    def full(descriptor, piece):
        nonlocal left
        left -= len(piece)
        if left < 0:
            raise OSError(28, "No space left on device")
        write(descriptor, piece)

    if left >= 0:
        staging._write = full


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sys.exit(call(sys.argv[2], sys.argv[3:]))
