"""A parent for processes that need not import torch and the like, which takes ten seconds; and how to ask it for one.

    python tests/helpers/fork_server.py SOCKET [MODULE ...]

The server imports :data:`IMPORTED`, nothing of the project but the given modules, and starts no thread. Each request
forks a child that does what ``python ARGUMENTS`` does, at the top level of this file, so that the interpreter itself
ends it: exit codes, tracebacks, atexit. All pytest workers of a session share one server; it ends when the last of them
has.
"""

import contextlib
import fcntl
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

IMPORTED = (
    *("torch", "torch._dynamo", "torch.distributed.run", "torch.nn.parallel", "torch.utils.checkpoint"),
    *("torch.utils.data", "torch.utils.tensorboard", "numpy", "PIL.Image", "yaml", "tqdm", "prettytable", "ftfy"),
    *("regex", "matplotlib.figure", "matplotlib.backends.backend_agg", "faiss", "flask", "waitress", "jinja2"),
)
"""what the scripts import sooner or later, slowest of all what training imports at its first step"""
ROOT = Path(__file__).parents[2]
STARTING = 180
"""seconds that a server may take for its imports"""


def serve(path: Path, modules: list[str]) -> dict[str, Any] | None:
    """Fork for every request that comes in; the request in the child, None once no client is left."""
    if modules:
        sys.path[0] = str(ROOT)
    for name in (*IMPORTED, *modules):
        with contextlib.suppress(() if name in modules else ModuleNotFoundError):  # what only search needs
            importlib.import_module(name)
    threads = Path("/proc/self/task")
    assert not threads.exists() or len(list(threads.iterdir())) == 1, "children would lack a thread"
    gc.collect()
    gc.freeze()  # so that children write less into the memory that they share
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # supervisors need not be waited for
    clients: set[socket.socket] = set()
    while True:
        for client in select.select([listener, *clients], [], [])[0]:
            if client is listener:
                clients.add(listener.accept()[0])
                continue
            clients.remove(client)
            asks = client.recv(1)
            if asks and os.fork() == 0:
                for other in (listener, *clients):
                    other.close()
                return supervise(client)
            client.close()
        if not clients:
            with locked(path):  # nobody is about to connect
                if not select.select([listener], [], [], 0)[0]:
                    path.unlink()
                    lock_of(path).unlink()
                    return None


def supervise(client: socket.socket) -> dict[str, Any]:
    """Fork the child, in which this returns the request; the client is told its pid and, at the end, its status."""
    _, descriptors, _, _ = socket.recv_fds(client, 1, 3)
    with client.makefile("r", encoding="utf-8") as lines:
        request = json.loads(lines.readline())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        os.setsid()  # a group of its own, as a shell gives to a command, so that Ctrl-C can be sent to it
        for number in (signal.SIGTERM, signal.SIGHUP):  # whatever "pytest &" and nohup ignore
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with client:
            client.sendall(f"{os.getpid()}\n".encode())
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        return request
    for descriptor in descriptors:
        os.close(descriptor)
    with contextlib.suppress(BrokenPipeError):  # nobody wants to know any more
        client.sendall(f"{os.waitpid(child, 0)[1]}\n".encode())
    os._exit(0)


def run(arguments: list[str], cwd: str, environment: dict[str, str]) -> None:
    """Do what ``python ARGUMENTS`` does in a folder and an environment: a script, ``-m MODULE`` or ``-c CODE``."""
    import random

    import numpy as np

    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    random.seed()
    np.random.seed()
    for stream in (sys.stdout, sys.stderr):
        unbuffered = "PYTHONUNBUFFERED" in environment
        stream.reconfigure(line_buffering=stream is sys.stderr or stream.isatty(), write_through=unbuffered)
    option = arguments.pop(0) if arguments[0] in ("-m", "-c") else ""
    file = Path(cwd, arguments[0])
    start = {"-m": cwd, "-c": "", "": str(file.parent)}[option]
    sys.path[0:1] = [start, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    importlib.invalidate_caches()
    sys.argv = ["-c", *arguments[1:]] if option == "-c" else arguments
    if option == "-m":
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        return
    sys.modules["__main__"] = module = types.ModuleType("__main__")
    if not option:
        module.__file__ = str(file)
    code = arguments[0] if option else file.read_bytes()
    exec(compile(code, "<string>" if option else str(file), "exec"), module.__dict__)


class Forked:
    """A child of the server, with the part of :class:`subprocess.Popen`'s interface that tests use."""

    def __init__(
        self,
        arguments: list[str],
        cwd: Path,
        environment: dict[str, str],
        stdout: Any,
        stderr: Any = None,
        imported: Sequence[str] = (),
    ) -> None:
        """Start ``python ARGUMENTS`` in a session of its own, with output to files or to :data:`subprocess.PIPE`.

        stderr goes where stdout goes if it is not given. ``imported`` are modules of the project that it need not
        import either.
        """
        self.args, self.returncode, self.stdout, writing = arguments, None, None, None
        if stdout is subprocess.PIPE:
            reading, writing = os.pipe()
            self.stdout = os.fdopen(reading, encoding="utf-8")
        out = stdout.fileno() if writing is None else writing
        request = {"arguments": arguments, "cwd": str(cwd), "environment": environment}
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(server(*imported))
        with open(os.devnull) as nothing:  # noqa: PTH123
            self._connection.sendall(b"+")
            descriptors = [nothing.fileno(), out, stderr.fileno() if stderr else out]
            socket.send_fds(self._connection, [b"+"], descriptors)
        if writing is not None:
            os.close(writing)
        self._connection.sendall(f"{json.dumps(request)}\n".encode())
        self._said = b""
        self.pid = self._number(None)
        assert self.pid, "the fork server has died"

    def _number(self, timeout: float | None) -> int | None:
        """The next number that the supervisor sends; None if the time is over."""
        end = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._said:
            left = None if end is None else max(0, end - time.monotonic())
            if not select.select([self._connection], [], [], left)[0]:
                return None
            more = self._connection.recv(100)
            assert more, "the fork server has died"
            self._said += more
        line, _, self._said = self._said.partition(b"\n")
        return int(line)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.returncode is None and (status := self._number(0)) is not None:
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, after waiting for it."""
        if self.returncode is None:
            status = self._number(timeout)
            if status is None:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is not None:  # a test that failed must not wait for ever
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        if self.stdout:
            self.stdout.close()
        self.wait()
        self._connection.close()


def lock_of(path: Path) -> Path:
    return path.with_suffix(".lock")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone in looking for a server, starting or ending it."""
    with lock_of(path).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@functools.cache
def server(*modules: str) -> str:
    """The address of the session's server that has imported these, too; the first process that asks starts it."""
    session = os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(os.getpid())
    name = "-".join(["forks", str(os.getuid()), session[:12], *modules])
    path = Path(tempfile.gettempdir()) / f"{name}.socket"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # counts when torch is imported
    environment.pop("PYTHONPATH", None)  # children look at that of their own
    command = [__file__, str(path), *modules]
    with locked(path), tempfile.TemporaryFile("w+") as said:
        if not _connected(path):
            path.unlink(missing_ok=True)
            if modules:
                process = Forked(command, ROOT, environment, said)
            else:
                outputs = {"stdin": subprocess.DEVNULL, "stdout": said, "stderr": said}
                process = subprocess.Popen(
                    [sys.executable, *command], cwd=ROOT, env=environment, start_new_session=True, **outputs
                )
            _KEPT.append(process)
            end = time.monotonic() + STARTING
            while not _connected(path):
                if process.poll() is not None or time.monotonic() > end:
                    said.seek(0)
                    raise RuntimeError(f"no fork server: {said.read()}")
                time.sleep(0.05)
    return str(path)


_KEPT: list[object] = []
"""connections that keep a server alive as long as this process lives, and servers that it has started"""


def _connected(path: Path) -> bool:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        return False
    _KEPT.append(connection)
    return True


if __name__ == "__main__":
    wanted = serve(Path(sys.argv[1]), sys.argv[2:])
    if wanted is not None:
        run(**wanted)
