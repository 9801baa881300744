"""How a command ends: by a signal, by a lack of something, by a flag that does not exist."""

import os
import signal
from collections.abc import Sequence
from contextlib import suppress

import pytest

from utils.command import Parser, named_first, run_command


@pytest.fixture(autouse=True)
def handlers():
    """As they are in a script, and afterwards as they were."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def ends(main, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        run_command(main, [])
    return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_any_command_in_one_line(number: int, code: int, capsys: pytest.CaptureFixture[str]):
    cleaned = []

    def main(argv: Sequence[str] | None) -> None:
        try:
            os.kill(os.getpid(), number)
            pytest.fail("it goes on")
        finally:
            cleaned.append(True)

    got, said = ends(main, capsys)
    assert (got, len(said.splitlines()), cleaned) == (code, 1, [True])
    assert said.endswith(f"stopped by {number.name}\n")
    assert signal.getsignal(number) == signal.SIG_DFL, "another Ctrl-C while Python winds up must not print a traceback"


def test_a_server_that_takes_a_signal_for_its_end(capsys: pytest.CaptureFixture[str]):
    def main(argv: Sequence[str] | None) -> None:
        with suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)

    assert ends(main, capsys)[0] == 143


def test_what_nohup_ignores_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    run_command(lambda argv: os.kill(os.getpid(), signal.SIGHUP), [])
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(24, "Too many open files"), "ulimit -n 4096"),
        (RuntimeError("received 0 items of ancdata"), "ulimit -n 4096"),
        (OSError(28, "No space left on device"), "/dev/shm has"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is"), "pid 7 is killed by signal"),
    ],
)
def test_limits_of_the_machine(error: Exception, message: str, capsys: pytest.CaptureFixture[str]):
    def main(argv: Sequence[str] | None) -> None:
        raise error

    code, said = ends(main, capsys)
    assert code == 2 and message in said and len(said.splitlines()) == 1


def test_other_errors_keep_their_traceback():
    def main(argv: Sequence[str] | None) -> None:
        raise RuntimeError("a loss of the user's own")

    with pytest.raises(RuntimeError, match="own"):
        run_command(main, [])


def test_the_nearest_flag_is_suggested(capsys: pytest.CaptureFixture[str]):
    parser = Parser(prog="x")
    parser.add_argument("--batch_size")
    for wrong in ("--batch-size", "--batchsize=8", "--bach_size"):
        with pytest.raises(SystemExit):
            parser.parse_args([wrong])
        assert f"unrecognized arguments: {wrong}; did you mean --batch_size?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parser.parse_args(["--zzz"])
    assert "did you mean" not in capsys.readouterr().err


def test_first_words_may_stand_without_their_flag(monkeypatch: pytest.MonkeyPatch):
    assert named_first(["a", "b", "--x", "1"], "--runs") == ["--runs", "a", "b", "--x", "1"]
    assert named_first(["--x", "1"], "--runs") == ["--x", "1"] and named_first([], "--runs") == []
    monkeypatch.setattr("sys.argv", ["program", "a"])
    assert named_first(None, "--run") == ["--run", "a"]
