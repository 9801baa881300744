"""Processes of tests/helpers/fork_server.py are like those of a new interpreter; most tests run programs in them."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.helpers.runs import fresh_python, python, started

ENDINGS = (
    "print('well', flush=False)",
    "raise SystemExit",
    "raise SystemExit('why')",
    "raise SystemExit(300)",
    "print(1 / 0)",
    "raise KeyboardInterrupt",
    "import os; os.kill(os.getpid(), 2); import time; time.sleep(9)",
    "import os; os.kill(os.getpid(), 9)",
    "import os; os.abort()",
    "import atexit; atexit.register(print, 'exit'); import threading; threading.Timer(0.1, print, 'thread').start()",
    "import sys; print(__name__, sys.argv, sys.path[:3])",
    "import os; print(os.getcwd(), sorted(os.environ.items())); os.fsencode('é')",
    "import signal; print([signal.getsignal(number) for number in (1, 2, 15, 17)])",
    "import multiprocessing as m; print(m.Pool(1).map(abs, [-2]), m.get_start_method())",
    "import tests.helpers, sys; print('train' in sys.modules, 'utils' in sys.modules)",
)


@pytest.mark.parametrize("code", ENDINGS)
def test_a_process_ends_as_that_of_a_new_interpreter(code: str):
    forked, fresh = (run("-c", code, "one", 2, PYTHONPATH="/nowhere", MARK="x y") for run in (python, fresh_python))
    assert forked.returncode == fresh.returncode
    assert forked.stdout == fresh.stdout
    assert forked.stderr.splitlines()[-1:] == fresh.stderr.splitlines()[-1:]


def test_modules_and_scripts_are_run_as_such(tmp_path: Path):
    (tmp_path / "beside.py").write_text("number = 3\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text("import sys, beside; print(__name__, sys.argv, beside.number)\n")
    (tmp_path / "program.py").write_text("import sys, beside; print(__name__, sys.argv, __file__, beside.number)\n")
    script, main = str(tmp_path / "program.py"), str(tmp_path / "package" / "__main__.py")
    assert python(script, "-x").stdout == f"__main__ {[script, '-x']} {script} 3\n"
    assert python("program.py", cwd=tmp_path).stdout == f"__main__ {['program.py']} {tmp_path / 'program.py'} 3\n"
    assert python("-m", "package", "-x", cwd=tmp_path).stdout == f"__main__ {[main, '-x']} 3\n"


def test_two_processes_do_not_share_random_numbers():
    code = "import random, numpy, os; print(random.random(), numpy.random.rand(), os.getpid())"
    first, second = (python("-c", code).stdout.split() for _ in range(2))
    assert all(one != other for one, other in zip(first, second, strict=True))


def test_torch_is_there_with_one_thread_and_its_usual_seed_and_computes():
    code = (
        "import sys; assert 'torch' in sys.modules; import torch; print(torch.get_num_threads()); x = torch.ones(9, 9)"
    )
    code += ".requires_grad_(); (x @ x).sum().backward(); print(x.grad.sum().item())"
    assert python("-c", code).stdout == "1\n1458.0\n"


def test_ctrl_c_reaches_the_whole_group_and_a_process_can_be_killed():
    code = "import os, time; os.write(1, f'{os.fork()} {os.getpid() == os.getpgid(0)}\\n'.encode()); time.sleep(60)"
    with started("-c", code) as process:
        lines = {process.stdout.readline() for _ in range(2)}
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) == -signal.SIGINT
        assert {line.split()[1] for line in lines} == {"True", "False"} and "0 False\n" in lines
        assert process.stdout.read().count("KeyboardInterrupt") == 2
    with started("-c", "import time; time.sleep(60)") as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
        process.kill()
        assert process.wait(20) == process.poll() == -signal.SIGKILL


def test_output_arrives_line_by_line():
    with started("-c", "import time; print('one'); time.sleep(60)") as process:
        assert process.stdout.readline() == "one\n"
        start = time.monotonic()
        process.kill()
    assert time.monotonic() - start < 50
