"""What goes wrong around a run: damaged checkpoints, a full disk, dead workers, signals, growing memory."""

import multiprocessing
import os
import resource
import select
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import processor.trainer
import train as train_script
from model.checkpoints.archives import read_torch_file
from processor.evaluator import Evaluator
from processor.run_dir import checkpoint
from processor.run_dir.checkpoint import read_last, write_checkpoint
from tests.helpers.children import flags_of, resume, start
from tests.helpers.runs import SMALL, fresh_started, same_tensors
from utils.log import log_to, setup_logger


@pytest.fixture(scope="module")
def whole(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose last.previous.pth stands in the middle of its last epoch."""
    run_dir = tmp_path_factory.mktemp("faults") / "run"
    flags = [*SMALL, "--root_dir", str(data_root), "--loss_names", "itc", "--save_every", "3", "--lora_r", "2"]
    train_script.main([*flags, "--run_dir", str(run_dir)])
    return run_dir


def flip(path: Path) -> None:
    """Change one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("fault", ["flipped", "torn", "empty", "missing"])
def test_a_bad_last_checkpoint_gives_way_to_the_one_before(whole: Path, tmp_path: Path, fault: str, capsys):
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    last = cut / "last.pth"
    if fault == "flipped":
        flip(last)
    elif fault == "missing":
        last.unlink()
    else:
        last.write_bytes(last.read_bytes()[: 5_000_000 if fault == "torn" else 0])
    train_script.main(["--resume", "--resume_ckpt_file", str(last)])
    said = capsys.readouterr().err
    assert f"{last}: " in said and f"resuming from the one before it, {cut / 'last.previous.pth'}" in said
    assert (cut / "last.damaged.pth").exists() == (fault != "missing")
    for name in ("last.pth", "best.pth", "last.previous.pth"):
        same_tensors(whole / name, cut / name)


def test_two_bad_checkpoints_are_both_named(whole: Path, tmp_path: Path, fails):
    shutil.copytree(whole, tmp_path / "cut")
    for name in ("last.pth", "last.previous.pth"):
        flip(tmp_path / "cut" / name)
    message = fails("train", *resume(tmp_path / "cut"))
    assert f"{tmp_path / 'cut' / 'last.pth'}: damaged" in message
    assert f"{tmp_path / 'cut' / 'last.previous.pth'}: damaged" in message
    (tmp_path / "cut" / "last.pth").unlink()
    (tmp_path / "cut" / "last.previous.pth").unlink()
    assert "last.pth: no such checkpoint" in fails("train", *resume(tmp_path / "cut")), "best.pth shows that it began"


def test_a_flipped_bit_anywhere_is_noticed_or_harmless(tmp_path: Path):
    content = {"weights": torch.randn(300), "step": 7, "name": "last"}
    path = tmp_path / "last.pth"
    write_checkpoint(path, content)
    good = path.read_bytes()
    noticed = 0
    for place in range(0, len(good), 5):
        path.write_bytes(good[:place] + bytes([good[place] ^ (1 << place % 8)]) + good[place + 1 :])
        try:
            read = read_torch_file(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
            noticed += 1
        else:  # padding between the parts, or a date
            assert torch.equal(read["weights"], content["weights"]) and read["step"] == 7 and read["name"] == "last"
    assert noticed > len(good) / 5 / 2


def test_a_resumed_run_that_is_killed_before_it_saves_keeps_the_good_checkpoint(tmp_path: Path):
    for number in (1, 2):
        write_checkpoint(tmp_path / "last.pth", {"number": number}, keep=True)
    flip(tmp_path / "last.pth")
    assert read_last(tmp_path / "last.pth") == {"number": 1}
    for _ in range(2):  # the damaged file must not become the previous one
        assert read_last(tmp_path / "last.pth") == {"number": 1}
    write_checkpoint(tmp_path / "last.pth", {"number": 3}, keep=True)
    flip(tmp_path / "last.pth")
    assert read_last(tmp_path / "last.pth") == {"number": 1}


def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refused)
    for number in (1, 2, 3):
        write_checkpoint(tmp_path / "last.pth", {"number": number}, keep=True)
    assert read_torch_file(tmp_path / "last.pth") == {"number": 3}
    assert read_torch_file(tmp_path / "last.previous.pth") == {"number": 2}


@pytest.fixture
def small_files():
    """No file can grow beyond a million bytes, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_checkpoints_there_are(whole: Path, tmp_path: Path, small_files, fails):
    cut = tmp_path / "cut"
    cut.mkdir()
    for path in whole.iterdir():
        if not path.name.startswith("events"):
            os.link(path, cut / path.name)
    before = {path.name: path.stat().st_ino for path in cut.glob("*.pth")}
    message = fails("train", *resume(cut), "--num_epoch", "3")
    assert f"{cut / 'last.pth'}: cannot be written (File too large)" in message
    assert {path.name: path.stat().st_ino for path in cut.glob("*.pth")} == before
    assert not list(cut.glob(".*"))


def test_a_log_that_cannot_be_written_says_so_once(tmp_path: Path, capsys):
    log = setup_logger()
    (tmp_path / "train_log.txt").symlink_to("/dev/full")
    log_to(tmp_path / "train_log.txt")
    for number in range(3):
        log.info("line %d", number)
    said = capsys.readouterr()
    assert said.err.count("lines are missing ([Errno 28] No space left on device)") == 1
    assert "Traceback" not in said.err and "line 2" in said.out
    setup_logger()


def test_a_dead_loader_process_is_named(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails):
    killed, real = [], processor.trainer.Trainer.step

    def step(trainer: object, batch: object) -> None:
        if trainer.progress.step == 2:
            killed.append(multiprocessing.active_children()[0].pid)
            os.kill(killed[0], signal.SIGKILL)
            time.sleep(0.2)
        real(trainer, batch)

    monkeypatch.setattr(processor.trainer.Trainer, "step", step)
    flags = [*SMALL, "--root_dir", data_root, "--loss_names", "itc", "--save_every", "1", "--run_dir", tmp_path / "run"]
    message = fails("train", *flags, "--num_workers", "2")
    assert f"a process that loads images died: pid {killed[0]} is killed by signal: Killed. " in message
    assert "--num_workers" in message
    assert read_torch_file(tmp_path / "run" / "last.pth")["progress"]["step"] == 2
    monkeypatch.undo()
    train_script.main(resume(tmp_path / "run"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_breaks_off_evaluation(
    whole: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
):
    def hours(*_: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(30)
        raise AssertionError

    monkeypatch.setattr(Evaluator, "evaluate", hours)
    flags = [*SMALL, "--root_dir", str(data_root), "--loss_names", "itc", "--save_every", "3", "--lora_r", "2"]
    with pytest.raises(SystemExit) as ended:
        train_script.main([*flags, "--run_dir", str(tmp_path / "run")])
    assert ended.value.code == code
    progress = read_torch_file(tmp_path / "run" / "last.pth")["progress"]
    assert (progress["epoch"], progress["step"], progress["best"]) == (1, 5, {})
    monkeypatch.undo()
    train_script.main(resume(tmp_path / "run"))
    for name in ("last.pth", "best.pth", "last.previous.pth"):
        same_tensors(whole / name, tmp_path / "run" / name)


def test_ctrl_c_while_the_program_is_still_being_imported():
    for script in ("train.py", "test.py", "search.py"):
        with fresh_started(script, "--loss_names", "itc") as process:
            time.sleep(0.4)
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait() in (-signal.SIGINT, 130)
            assert "Traceback" not in process.stdout.read()


def stop_once(there: Callable[[], bool], argv: list[str], said: Path, number: int, **more: object) -> tuple[int, str]:
    """Send a signal to a run and its processes, as a terminal or a cluster does, at a moment; its code and words."""
    process, _ = start(argv, said, **more)
    while not there():
        assert process.exitcode is None, said.read_text()
        time.sleep(0.02)
    os.killpg(process.pid, number)
    process.join(20)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert "Traceback" not in said.read_text()
    return process.exitcode, said.read_text()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_while_images_are_cached_or_drawn(data_root: Path, tmp_path: Path, number: int, code: int):
    def caching() -> bool:
        return any(path.stat().st_size for path in (tmp_path / "cache").glob("*/stamps"))

    argv = flags_of("IRRA", data_root, tmp_path / "run", "--cache", "--cache_dir", str(tmp_path / "cache"))
    argv += ["--num_workers", "2"]
    ended, words = stop_once(caching, argv, tmp_path / "cached.txt", number, slow_images=True)
    assert ended == code and "caching stopped: decoded images are kept" in words
    assert f"train.py: stopped by {number.name}" in words
    assert not (tmp_path / "run").exists()

    def drawing() -> bool:
        return any((tmp_path / "data").glob(".*.unfinished/imgs/train/*.jpg"))

    argv = flags_of("IRRA", tmp_path / "data", tmp_path / "run", "--dataset_name", "Mannequins")
    ended, words = stop_once(drawing, argv, tmp_path / "drawn.txt", number)
    assert ended == code and "drawing stopped: nothing is kept" in words
    assert not list((tmp_path / "data").iterdir()) and not (tmp_path / "run").exists()


def test_a_run_whose_terminal_is_closed_saves_and_ends(data_root: Path, tmp_path: Path):
    outside, inside = os.openpty()
    argv = flags_of("ICLF", data_root, tmp_path / "run", "--num_epoch", "500")
    process, stepping = start(argv, tmp_path / "said.txt", terminal=os.ttyname(inside))
    while not stepping.is_set() and process.exitcode is None:
        if select.select([outside], [], [], 0.1)[0]:
            os.read(outside, 4096)  # or it would fill up
    os.close(inside)
    os.close(outside)
    process.join(60)
    assert process.exitcode == 128 + signal.SIGHUP
    assert read_torch_file(tmp_path / "run" / "last.pth")["progress"]["epoch"] < 500
    last = (tmp_path / "run" / "train_log.txt").read_text().splitlines()[-1]
    assert "stopped " in last and last.endswith("; --resume continues")


def test_a_second_run_in_the_same_directory_is_refused(data_root: Path, tmp_path: Path, fails):
    run = tmp_path / "run"
    process, stepping = start(flags_of("ICLF", data_root, run, "--num_epoch", "500"), tmp_path / "said.txt")
    assert stepping.wait(60)
    holder = f"process {process.pid} on {socket.gethostname()} (since "
    for flags in (flags_of("ICLF", data_root, run), flags_of("ICLF", data_root, run, "--seeds", "1", "2"), resume(run)):
        said = fails("train", *flags)
        assert holder in said and f"is at work in {run}; " in said
    process.kill()
    process.join()
    train_script.main([*resume(run), "--num_epoch", "1"])


@pytest.mark.parametrize("limit", [100, 3000])
def test_a_disk_that_fills_while_images_are_cached(data_root: Path, tmp_path: Path, fails, limit: int):
    """A limit on the size of files stands in for the disk: it strikes when the file is made, or some images later."""
    argv = flags_of("IRRA", data_root, tmp_path / "run", "--cache", "--cache_dir", str(tmp_path / "cache"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        said = fails("train", *argv)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "image cache" in said and "choose another --cache_dir or leave --cache out" in said
    train_script.main([*argv, "--num_epoch", "1"])


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory of the process as Linux tells it")
def test_memory_does_not_grow_with_steps(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen, real = [], processor.trainer.Trainer.step

    def step(trainer: object, batch: object) -> None:
        real(trainer, batch)
        seen.append(resident_bytes())

    monkeypatch.setattr(processor.trainer.Trainer, "step", step)
    flags = [*SMALL, "--root_dir", str(data_root), "--loss_names", "itc", "--lora_r", "2", "--batch_size", "4"]
    flags += ["--precision", "fp32"]  # bfloat16 products keep a kernel for every shape that comes up
    train_script.main([*flags, "--num_epoch", "16", "--eval_period", "5", "--run_dir", str(tmp_path / "run")])
    assert len(seen) == 160
    first, second = (sum(seen[start + 10 : start + 20]) for start in (60, 140))
    assert second < 1.02 * first, f"{(second - first) / 1e7:.1f} MB more after 80 steps"


def test_the_same_seed_gives_the_same_run(data_root: Path, tmp_path: Path):
    flags = [*SMALL, "--root_dir", str(data_root), "--loss_names", "itc+mlm+itm+id", "--img_aug", "--num_epoch", "1"]
    for name in ("one", "two"):
        train_script.main([*flags, "--run_dir", str(tmp_path / name)])
    for name in ("last.pth", "best.pth"):
        same_tensors(tmp_path / "one" / name, tmp_path / "two" / name)
    with pytest.raises(AssertionError):
        train_script.main([*flags, "--run_dir", str(tmp_path / "three"), "--seed", "2"])
        same_tensors(tmp_path / "one" / "last.pth", tmp_path / "three" / "last.pth")


def test_what_a_resumed_run_cannot_use(whole: Path, tmp_path: Path, fails):
    shutil.copytree(whole, tmp_path / "run")
    content = checkpoint.read_torch_file(whole / "last.pth")

    def refused(**changes: object) -> str:
        torch.save({**content, **changes}, tmp_path / "run" / "last.pth")
        return fails("train", *resume(tmp_path / "run"), "--num_epoch", "3")

    progress, model = content["progress"], content["model"]
    assert "epoch 2 after step 99 of 5" in refused(progress={**progress, "epoch": 2, "step": 99})
    assert "unexpected keyword" in refused(progress={**progress, "gone": 1})
    assert "does not fit this run" in refused(progress=[1])
    assert "Missing key" in refused(model={})
    assert "size mismatch" in refused(model={**model, "clip.visual.proj": torch.zeros(1)})
    assert "weight clip.visual.proj is not finite" in refused(
        model={**model, "clip.visual.proj": torch.full_like(model["clip.visual.proj"], torch.nan)}
    )
    assert "does not fit this run" in refused(optimizer={"state": {}, "param_groups": []})
    wrong = {number: {**state, "exp_avg": torch.zeros(3)} for number, state in content["optimizer"]["state"].items()}
    assert "exp_avg of the optimiser" in refused(optimizer={**content["optimizer"], "state": wrong})
    assert "does not fit this run" in refused(random={"cpu": torch.zeros(3), "cuda": []})
