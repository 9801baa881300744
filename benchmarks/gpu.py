"""Everything that a GPU has to show, in one command: tests, parity, every system, speed; a table and ``gpu.json``.

    bash run.sh python -m benchmarks.gpu

Each part writes its results to ``gpu.json`` as soon as it has them, and a part that fails is named with its error while
the others go on. What does not fit into ``--minutes`` is left out and named. Without a card the same code runs on the
CPU at tiny size, which shows only that it runs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, partialmethod
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from prettytable import PrettyTable
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import train
from benchmarks import evaluate
from benchmarks.models import IDS, random_model
from benchmarks.train_step import DTYPES, compare, draw_batch, flops, open_clip_step, peak_tflops, plain, step_of
from datasets.augmentation import IMAGE_FIELDS, view_named
from model.adapters.prompts import PromptOptions
from model.losses.base import PairFeatures, TrainingPass
from model.retriever import Retriever
from utils import UserError
from utils.command import run_command
from utils.device import Precision
from utils.options import Options

ROOT = Path(__file__).parents[1]
RECIPES = ("irra", "rde", "tbps_clip", "sdm", "descry")
"""of which steps are timed: files in configs/, and sdm alone as for pre-training"""
PARITY_TESTS = "(gradients or trajectory or optimizer)"
HALF_TOLERANCES = {"bf16": 5e-2, "fp16": 1e-2}
"""largest relative difference of a recorded total loss in half precision"""
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")
"""calls in which the host waits for the GPU"""

Result = dict[str, Any]


class Bench:
    """Sizes, device and results of one run."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.device = torch.device(args.device)
        self.on_gpu, self.quick = self.device.type == "cuda", args.quick
        self.model = "random-ViT-B/16" if self.on_gpu else "tiny"
        self.size = (384, 128) if self.on_gpu else (32, 32)
        self.batches = ((128,) if args.quick else (64, 128, 256, 512)) if self.on_gpu else (8,)
        self.first = 128 if self.on_gpu else 8
        """the batch that goals are set for, and everything is measured with"""
        self.rounds, self.inner = (3, 5) if self.on_gpu else (1, 1)
        self.precisions = tuple(DTYPES) if self.on_gpu else ("fp32", "bf16")
        self.until, self.out = time.monotonic() + 60 * args.minutes, args.out
        self.results: dict[str, Any] = {}

    def precision(self, name: str) -> Precision:
        """fp32, bf16 or fp16 on the device."""
        return Precision(self.device, DTYPES[name])

    def options(self, recipe: str, *more: str) -> Options:
        """The flags of a file in configs/, or of one loss."""
        source = ["--config_file", f"{ROOT}/configs/{recipe}.yaml"]
        source = source if Path(source[1]).exists() else ["--loss_names", recipe]
        shape = ["--img_size", *map(str, self.size), "--pretrain_choice", self.model]
        return train.read_flags([*source, *shape, "--finetune", "", *more])

    def retriever(self, options: Options, precision: Precision, pairs: int) -> Retriever:
        """A model with random weights and filled memories."""
        model = random_model(options, precision, (IDS, pairs, pairs))
        features = torch.randn(2, pairs, model.backbone.spec.embed_dim, device=self.device)
        index = torch.arange(pairs, device=self.device)
        for head in model.heads.values():
            head.before_epoch(TrainingPass(1, lambda: PairFeatures(*features, index // 2, index)))
        return model

    def batch(self, pairs: int) -> dict[str, Tensor]:
        """Every field that some system reads."""
        batch = draw_batch(pairs, self.size, self.device)
        index = torch.arange(pairs, device=self.device)
        views = {name: batch["images"].clone() for name in IMAGE_FIELDS if name not in batch}
        second = {"caption_ids_aug": batch["mlm_ids"].clone(), "caption_ids_aug_lengths": batch["mlm_ids_lengths"]}
        ids = batch["mlm_ids"]
        masking = {"mask_draws": torch.rand(ids.shape, device=self.device), "mask_hidden": ids, "mask_words": ids > 0}
        return {**batch, **views, **second, **masking, "index": index, "image_ids": index}

    def left(self) -> float:
        """Seconds."""
        return self.until - time.monotonic()

    def attempt(self, work: Callable[[], Result]) -> Result:
        """Its results, or the error that it ends with."""
        try:
            return work()
        except Exception as error:
            if self.on_gpu:
                torch.cuda.empty_cache()
            return {"failed": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}

    def run(self, name: str, part: Callable[[], Any]) -> None:
        """One part; its results, or why there are none, are in the file afterwards."""
        started = time.monotonic()
        if self.left() < 0:
            self.results[name] = {"left out": "no time was left"}
        else:
            self.results[name] = self.attempt(part)
        shown = self.results[name]
        state = next((f"{key}: {shown[key]}" for key in ("failed", "left out") if key in shown), "done")
        print(f"{name}: {state} ({time.monotonic() - started:.0f} s)", flush=True)
        self.out.write_text(json.dumps(self.results, indent=2) + "\n")


def machine(bench: Bench) -> Result:
    """What runs here, and how fast its matrix products are."""
    side = 8192 if bench.on_gpu else 256
    result: Result = {"torch": torch.__version__, "python": sys.version.split()[0], "cores": os.cpu_count()}
    result["device"] = torch.cuda.get_device_name() if bench.on_gpu else "cpu"
    for name in bench.precisions:
        a, b = torch.randn(2, side, side, device=bench.device, dtype=DTYPES[name])
        spent = compare({"": lambda a=a, b=b: lambda: a @ b}, 2, 3, 5, bench.device)[""][0]
        result[f"TFLOP/s {name}"] = 2 * side**3 / spent / 1e12
    return result


def _pytest(bench: Bench, *arguments: str, **environment: str) -> Result:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, **environment}
    limit = max(bench.left(), 1)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit)
    if done.returncode:
        raise RuntimeError("\n".join(done.stdout.splitlines()[-30:]) + done.stderr[-2000:])
    return {"pytest": done.stdout.strip().splitlines()[-1]}


def gpu_tests(bench: Bench) -> Result:
    """Tests that need a card; without one they are skipped."""
    files = [str(path) for path in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.gpu" in path.read_text()]
    return _pytest(bench, *files, "-m", "gpu")


def parity(bench: Bench) -> Result:
    """Recorded losses, gradients, memories, features and trajectories on the device, in float32."""
    selected = PARITY_TESTS if bench.on_gpu else f"{PARITY_TESTS} and tbps"
    exact = {"GOLDEN_DEVICE": str(bench.device), "NVIDIA_TF32_OVERRIDE": "0"}
    return _pytest(bench, "tests/integration/test_golden.py", "-k", selected, **exact)


def half_parity(bench: Bench) -> Result:
    """Total losses of the recorded batches in half precision, against the tolerances."""
    from tests.helpers.golden import cases  # which needs pytest, as nothing else here

    worst: Result = {}
    likeliest = mock.patch.object(torch, "multinomial", lambda weights, _: weights.argmax(dim=1, keepdim=True))
    for name in (name for name in bench.precisions if name != "fp32"):
        differences = {}
        for case in cases():
            moment, totals = case.moments[-1], []
            for each in (case.at(bench.precision(name)), case.at(bench.precision("fp32"))):
                with torch.no_grad(), likeliest:  # as recorded
                    model = each.retriever(moment.before).train()
                    totals.append(model(each.batch(moment.batch), moment.epoch, each.epoch_share)[0].loss.item())
            differences[case.name] = abs(totals[0] - totals[1]) / abs(totals[1])
        found = max(differences.values())
        worst[name] = {"largest relative difference": found, "by case": differences}
        if found > HALF_TOLERANCES[name]:
            raise RuntimeError(f"{name}: a loss differs by more than {HALF_TOLERANCES[name]}: {differences}")
    return worst


def systems(bench: Bench) -> Result:
    """One step of every system in configs/, in every precision: finite losses and weights."""
    rows: Result = {}
    batch = bench.batch(8)
    recipes = [path.stem for path in sorted((ROOT / "configs").glob("*.yaml")) if path.stem != "demo"]
    with tempfile.TemporaryDirectory() as folder:
        for recipe in recipes:
            for name in bench.precisions:
                tiny = ["--pretrain_choice", "tiny", "--cmt_depth", "1"]
                prompted = bench.options(recipe, *tiny).get(PromptOptions).depth > 0
                options = bench.options(recipe, *tiny, *(["--prompt_depth", "1"] if prompted else []))
                model = bench.retriever(options, bench.precision(name), 8)
                step_of(model, options.get, batch, Path(folder))()
                bad = [key for key, value in model.named_parameters() if not torch.isfinite(value).all()]
                if bad:
                    raise RuntimeError(f"{recipe} in {name}: {bad[0]} is not finite after a step")
                rows[f"{recipe} {name}"] = "finite"
    return rows


def host_waits(step: Callable[[], Any]) -> int:
    """Calls of one step in which the host waits."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        step()
    return sum(event.count for event in found.key_averages() if event.key in WAITS)


def in_cuda_graphs(build: Callable[[], Callable[[], Any]]) -> Callable[[], Any]:
    """The step of a model whose compiled blocks replay CUDA graphs, forward and backward."""
    with mock.patch.object(nn.Module, "compile", partialmethod(nn.Module.compile, mode="reduce-overhead")):
        step = build()

    def replayed() -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return step()

    return replayed


def steps(bench: Bench, recipe: str, pairs: int) -> Result:
    """A recipe's step in bf16, eager and compiled; IRRA's also in CUDA graphs, in plain form, and beside open_clip's.

    A form that fails says so in its row, and the others go on.
    """
    batch, half = bench.batch(pairs), bench.precision("bf16")
    options, rows = bench.options(recipe), {}
    with tempfile.TemporaryDirectory() as folder:

        def ours(*more: str) -> Callable[[], Any]:
            flags = bench.options(recipe, *more)
            return step_of(bench.retriever(flags, half, pairs), flags.get, batch, Path(folder))

        forms: dict[str, Callable[[], Callable[[], Any]]] = {"eager": ours}
        if bench.on_gpu and pairs == bench.first:
            forms["compiled"] = partial(ours, "--compile")
        if recipe == "irra" and pairs == bench.first:
            if bench.on_gpu:
                forms["CUDA graphs"] = partial(in_cuda_graphs, forms["compiled"])
            forms["plain"] = lambda: plain(options, batch, half)
            if bench.on_gpu and find_spec("timm"):  # which open_clip needs; its merges of words alone do not
                forms["open_clip"] = lambda: open_clip_step(bench.size, batch, half)
        tera, peak = flops(bench.retriever(options, half, pairs), batch) / 1e12, peak_tflops(None)

        def timed(name: str, step: Callable[[], Any]) -> Result:
            spent, memory = compare({name: lambda: step}, 3, bench.rounds, bench.inner, bench.device)[name]
            row: Result = {"pairs/s": pairs / spent, "ms": 1e3 * spent}
            if name not in ("plain", "open_clip"):
                row |= {"TFLOP": tera, "MFU": tera / spent / peak if peak else None}
                row["host waits"] = host_waits(step) if bench.on_gpu else None
            if memory is not None:
                row["peak GiB"] = torch.cuda.max_memory_allocated() / 2**30
            return row

        for name, form in forms.items():  # one after the other: together they would not fit at 512 pairs
            rows[name] = bench.attempt(lambda name=name, form=form: timed(name, form()))
    return rows


def metrics(bench: Bench) -> Result:
    """Ranking at the size of ICFG-PEDES and of 100,000 captions and images."""
    sizes = ("icfg", "large") if bench.on_gpu and not bench.quick else ("icfg",) if bench.on_gpu else ("cuhk",)
    return {size: evaluate.compare(size, "trained", ["ours"], 2, str(bench.device))["ours"] for size in sizes}


def encoding(bench: Bench) -> Result:
    """Images and captions per second through both towers of ViT-B/16."""
    if not bench.on_gpu:
        return {"left out": "takes a card"}
    table, lines = evaluate.encoding(str(bench.device), 4096, 2)
    return {"table": table.get_string(), "ratios": lines}


def views(bench: Bench) -> Result:
    """Views per second from pixels on the host to normalised views on the device."""
    pairs = bench.batches[0]
    pixels = torch.randint(0, 256, (pairs, 3, *bench.size), dtype=torch.uint8)
    pixels = pixels.pin_memory() if bench.on_gpu else pixels
    rates, plain_colours = {}, ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    for name in ("irra", "pool", "simclr"):
        view, rng = view_named(name), np.random.default_rng(0)
        numbers = torch.from_numpy(np.stack([view.draw(rng, bench.size, bench.size) for _ in range(pairs)]))

        def made(view=view, numbers=numbers) -> Tensor:
            return view.apply(pixels.to(bench.device, non_blocking=True), numbers, *plain_colours)

        spent = compare({name: lambda made=made: made}, 2, bench.rounds, bench.inner, bench.device)[name][0]
        rates[name] = pairs / spent
    return rates


def table_of(results: dict[str, Any]) -> PrettyTable:
    """The steps, one row each."""
    table = PrettyTable(["step", "pairs", "form", "pairs/s", "MFU", "peak GiB", "waits"], align="r")
    for name, rows in results.items():
        if name.startswith("step ") and "left out" not in rows and "failed" not in rows:
            _, recipe, pairs = name.split()
            for form, row in rows.items():
                if "failed" in row:
                    table.add_row([recipe, pairs, form, "failed", "", "", ""])
                    continue
                mfu = f"{100 * row['MFU']:.1f} %" if row.get("MFU") else ""
                memory = f"{row['peak GiB']:.1f}" if "peak GiB" in row else ""
                waits = "" if row.get("host waits") is None else row["host waits"]
                table.add_row([recipe, pairs, form, f"{row['pairs/s']:.0f}", mfu, memory, waits])
    return table


def failures(results: dict[str, Any]) -> list[str]:
    """Names of the parts, and of the forms of a step, that ended with an error."""
    found = [name for name, result in results.items() if "failed" in result]
    for name, rows in results.items():
        if name.startswith("step "):
            found += [f"{name} ({form})" for form, row in rows.items() if isinstance(row, dict) and "failed" in row]
    return found


@contextmanager
def _exact() -> Iterator[None]:
    """Without TF32, which float32 parity does not survive."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def main(argv: list[str] | None = None) -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda or cpu")
    parser.add_argument("--quick", action="store_true", help="one batch size, without the largest metrics: 4 minutes")
    parser.add_argument("--minutes", type=float, default=8.5, help="no part is begun after this")
    parser.add_argument("--parts", nargs="+", metavar="NAME", help="only these, by their names in gpu.json")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    args = parser.parse_args(argv)
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"--device {args.device}: there is no CUDA device; leave the flag out to try the CPU")
    bench = Bench(args)
    parts: dict[str, Callable[[], Any]] = {
        "machine": partial(machine, bench),
        "GPU tests": partial(gpu_tests, bench),
        "parity fp32": partial(parity, bench),
        "parity half": partial(half_parity, bench),
        "systems": partial(systems, bench),
    }
    for pairs in sorted(bench.batches, key=lambda pairs: pairs != bench.first):
        for recipe in RECIPES if pairs == bench.first else RECIPES[:1]:
            parts[f"step {recipe} {pairs}"] = partial(steps, bench, recipe, pairs)
    parts |= {name: partial(part, bench) for name, part in (("views", views), ("metrics", metrics))}
    parts["encoding"] = partial(encoding, bench)
    with _exact():
        for name, part in parts.items():
            if not args.parts or name in args.parts:
                bench.run(name, part)
    print(table_of(bench.results))
    for name in ("machine", "parity fp32", "views", "metrics"):
        if name in bench.results:
            print(name, json.dumps({key: value for key, value in bench.results[name].items() if key != "traceback"}))
    if failed := failures(bench.results):
        sys.exit(f"failed: {', '.join(failed)}; see {args.out}")


if __name__ == "__main__":
    run_command(main)
