"""IRRA's full training step (sdm+id+mlm, optimiser included) against its plain form and against a CLIP step.

``plain`` is the step of ``plain_irra.py``: clean and masked captions encoded one after the other at full length, the
mlm head on every position, one optimiser group per tensor. ``open_clip`` is a step of its ViT-B-16-quickgelu with
ClipLoss and AdamW, which neither masks nor classifies. Captions have the benchmarks' lengths: 29 tokens in the mean,
95 % below 48, padded to 77. All forms are timed in turn in this process, after as many steps to warm up: memory that is
touched for the first time makes the first steps up to twice as long. Before that, ours and the plain form have to agree
on the loss.
"""

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from prettytable import PrettyTable
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import train
from benchmarks.itm import LENGTH
from benchmarks.models import IDS, NO_BANKS, random_model, read_flags
from benchmarks.plain_irra import PlainIRRA, plain_optimizer, plain_state
from datasets.batches.train_loader import Place
from datasets.captions import AugmentOptions, mask_tokens, words_in
from model.backbones.clip_tokenizer import END_ID, MASK_ID, START_ID, shared_tokenizer
from model.retriever import Retriever
from processor.run_dir.record import RunRecord
from processor.run_dir.run_dir import RunDir
from processor.trainer import LoopOptions, Trainer
from solver import build_solver
from utils.device import Precision
from utils.options import GetOptions, Options

LOSSES = "sdm+id+mlm"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "4090": 165.0, "3090": 71.0}
"""dense bfloat16 products of a GPU whose name holds the key, by its data sheet"""

Step = Callable[[], float]
"""one training step; returns its loss"""


def caption_lengths(pairs: int, rng: np.random.Generator) -> np.ndarray:
    """Tokens of captions, start and end included: mean 29, 95 % below 48."""
    return np.clip(np.round(rng.gamma(shape=7.9, scale=29 / 7.9, size=pairs)), 5, LENGTH).astype(int)


def draw_batch(pairs: int, size: tuple[int, ...], device: torch.device) -> dict[str, Tensor]:
    """Random images and captions; the masked captions feed every loss, as published."""
    rng = np.random.default_rng(0)
    ids, labels = np.zeros((2, pairs, LENGTH), np.int64)
    lengths = caption_lengths(pairs, rng)
    for row, length in enumerate(lengths):
        ids[row, :length] = rng.integers(1, MASK_ID, length)
        ids[row, 0], ids[row, length - 1] = START_ID, END_ID
        words = words_in(ids[row], length, shared_tokenizer())
        ids[row], labels[row] = mask_tokens(ids[row], words, shared_tokenizer(), rng, AugmentOptions())
    batch = {
        "images": torch.from_numpy(rng.standard_normal((pairs, 3, *size), np.float32)),
        "mlm_ids": torch.from_numpy(ids),
        "mlm_ids_lengths": torch.from_numpy(lengths),
        "mlm_labels": torch.from_numpy(labels),
        "mlm_positions": torch.from_numpy(labels.reshape(-1).nonzero()[0]),
        "pids": torch.arange(pairs) // 2,
    }
    batch = {name: value.to(device) for name, value in batch.items()}
    return batch | {"caption_ids": batch["mlm_ids"], "caption_ids_lengths": batch["mlm_ids_lengths"]}


class FirstStep:
    """In place of the loader: always in the first step of the first epoch."""

    place = Place(1, 1, 1)
    epoch_steps = 1

    def end_after(self, num_steps: int) -> None:
        """There is no end."""


def step_of(model: Retriever, get: GetOptions, batch: dict[str, Tensor], run_dir: Path) -> Step:
    """The training loop's own step of any model, always on the same batch."""
    optimizer, schedule = build_solver(model.train().parameter_roles(), get)
    record = RunDir(run_dir, RunRecord(run_dir, {"weights_sha256": None}, resumed=False))
    trainer = Trainer(model, optimizer, schedule, FirstStep(), None, record, LoopOptions())
    return lambda: trainer.step(batch)


def random_step(options: Options, batch: dict[str, Tensor], precision: Precision) -> Step:
    """The same with random weights, in a folder that is gone by the time the step is taken."""
    with tempfile.TemporaryDirectory() as folder:
        return step_of(random_model(options, precision), options.get, batch, Path(folder))


def arithmetic(recipe: Options, irra: Options, batch: dict[str, Tensor]) -> dict[int, float]:
    """By batch size, how many operations a step of a recipe takes for one of IRRA's.

    Counted at the size of the batch: what encodes pairs grows with it, and an optimiser's own products do not.
    """
    model, pairs = random_model(recipe, Precision(batch["images"].device, torch.float32)), len(batch["images"])
    optimizer, _ = build_solver(model.parameter_roles(), recipe.get)
    per_pair = flops(model, batch) / pairs
    with FlopCounterMode(display=False) as once:
        optimizer.step()
    reference = flops(random_model(irra, model.precision, NO_BANKS), batch) / pairs
    return {size: (per_pair + once.get_total_flops() / size) / reference for size in (16, 64, 128, 512)}


def plain_of(model: Retriever) -> PlainIRRA:
    """The plain form of our model, with its weights."""
    reference = PlainIRRA(model.backbone.sizes, IDS)
    reference.load_state_dict(plain_state(model.state_dict()))
    return reference


def plain(options: Options, batch: dict[str, Tensor], precision: Precision) -> Step:
    """The reference."""
    model = plain_of(random_model(options, precision, NO_BANKS)).to(precision.device)
    optimizer = plain_optimizer(model)
    scaler = torch.amp.GradScaler(precision.device.type, enabled=precision.needs_scaler)

    def step() -> float:
        with precision():
            loss = model(batch)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.item()  # published loops read their meters in every step

    return step


def open_clip_step(size: tuple[int, ...], batch: dict[str, Tensor], precision: Precision) -> Step:
    """A contrastive step of open_clip on the same images and captions."""
    import open_clip

    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-16-quickgelu", device=precision.device, force_image_size=size).train()
    loss_of = open_clip.ClipLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2)
    scaler = torch.amp.GradScaler(precision.device.type, enabled=precision.needs_scaler)

    def step() -> float:
        with precision():
            image_BD, text_BD, scale = model(batch["images"], batch["caption_ids"])
            loss = loss_of(image_BD, text_BD, scale)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.item()

    return step


def first_losses_agree(model: Retriever, batch: dict[str, Tensor]) -> None:
    """Ours and the plain form are the same function, or the comparison means nothing."""
    reference = plain_of(model).to(batch["images"].device)
    with torch.no_grad():
        loss, expected = model(batch)[0].loss.item(), reference(batch).item()
    assert abs(loss - expected) < 1e-3 * abs(expected), f"loss {loss}, plain form {expected}"


def flops(model: Retriever, batch: dict[str, Tensor]) -> float:
    """Floating point operations of matrix products and attention, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        model(batch)[0].loss.backward()
    return float(counter.get_total_flops())


def compare(
    steps: dict[str, Callable[[], Step]], warm_up: int, rounds: int, inner: int, device: torch.device
) -> dict[str, tuple[float, int | None]]:
    """Median seconds per step of each form, called in turn, and its peak memory in bytes (on a GPU)."""
    made, peaks = {}, {}
    for name, build in steps.items():
        made[name] = build()
        if device.type == "cuda":
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            made[name]()
            peaks[name] = torch.cuda.max_memory_allocated() - before
        gc.collect()
    times: dict[str, list[float]] = {name: [] for name in made}
    for number in range(warm_up + rounds):
        for name, step in made.items():
            start = time.perf_counter()
            for _ in range(inner):
                step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number >= warm_up:
                times[name].append((time.perf_counter() - start) / inner)
    return {name: (statistics.median(spent), peaks.get(name)) for name, spent in times.items()}


def peak_tflops(given: float | None) -> float | None:
    """What the GPU can do, for the utilisation; None where it is not known."""
    if given is not None or not torch.cuda.is_available():
        return given
    name = torch.cuda.get_device_name()
    return next((value for key, value in PEAK_TFLOPS.items() if key in name), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cuda = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if cuda else "cpu", help="cpu or cuda")
    parser.add_argument("--model", default="random-ViT-B/16", help="architecture of ours and the plain form")
    parser.add_argument("--img_size", type=int, nargs=2, default=(384, 128), help="height and width")
    parser.add_argument("--pairs", type=int, default=128 if cuda else 16, help="batch size")
    parser.add_argument("--rounds", type=int, default=5, help="timed turns of each form, the median counts")
    parser.add_argument("--warm_up", type=int, default=2, help="turns before that")
    parser.add_argument("--inner", type=int, default=10 if cuda else 1, help="steps in a turn")
    parser.add_argument("--peak_tflops", type=float, help="what the GPU can do in bfloat16, for the utilisation")
    parser.add_argument("--recipe", type=Path, help="file in configs/ whose step is timed as well, in bf16")
    parser.add_argument("--forms", nargs="+", help="those to time, by the names in the table [all]")
    parser.add_argument("--only_count", action="store_true", help="count the operations of --recipe; time nothing")
    args = parser.parse_args()

    if args.only_count and not args.recipe:
        parser.error("--only_count counts the operations of --recipe; name a file in configs/")
    device, size = torch.device(args.device), tuple(args.img_size)
    irra = read_flags(LOSSES, args.model, size)
    batch = draw_batch(args.pairs, size, device) | {"index": torch.arange(args.pairs, device=device)}
    if args.recipe:
        shape = ["--pretrain_choice", args.model, "--img_size", *map(str, size)]
        recipe = train.read_flags(["--config_file", str(args.recipe), *shape])
        for pairs, ratio in arithmetic(recipe, irra, batch).items():
            print(f"operations of a step for one of IRRA's, {args.recipe.stem}, {pairs} pairs: {ratio:.2f}")
    if args.only_count:
        return
    exact = random_model(irra, Precision(device, torch.float32), NO_BANKS)
    first_losses_agree(exact, batch)
    tera = flops(exact, batch) / 1e12
    del exact  # it would lie beside the models that are timed
    precisions = ("fp32", "bf16", "fp16") if device.type == "cuda" else ("fp32", "bf16")
    forms: dict[str, Callable[[], Step]] = {}
    for name in precisions:
        precision = Precision(device, DTYPES[name])
        forms[f"irra_{name}"] = partial(random_step, irra, batch, precision)
        if name != "bf16":
            forms[f"plain_{name}"] = partial(plain, irra, batch, precision)
        if name == "bf16" and args.model.endswith("ViT-B/16"):
            forms["open_clip_bf16"] = partial(open_clip_step, size, batch, precision)
    if args.recipe:
        forms[f"{args.recipe.stem}_bf16"] = partial(random_step, recipe, batch, Precision(device, DTYPES["bf16"]))
    forms = {name: form for name, form in forms.items() if not args.forms or name in args.forms}
    results = compare(forms, args.warm_up, args.rounds, args.inner, device)

    peak = peak_tflops(args.peak_tflops)
    table = PrettyTable(["step", "seconds", "pairs/s", "peak memory, GiB", "MFU"])
    for name, (spent, memory) in results.items():
        used = f"{100 * tera / spent / peak:.1f} %" if peak and name.startswith("irra") else ""
        shown = f"{memory / 2**30:.1f}" if memory is not None else ""
        table.add_row([name, f"{spent:.4f}", f"{args.pairs / spent:.1f}", shown, used])
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{args.device} ({where}), {args.model} at {size}, {args.pairs} pairs, {tera:.2f} TFLOP in a step of ours")
    print(table)
    pairs = [("irra_fp32", "plain_fp32"), ("irra_bf16", "plain_fp32"), ("irra_bf16", "open_clip_bf16")]
    if args.recipe:
        pairs.append((f"{args.recipe.stem}_bf16", "irra_bf16"))
    for fast, slow in [*pairs, ("irra_fp16", "plain_fp16")]:
        if fast in results and slow in results:
            print(f"ratio {fast}_vs_{slow} {results[slow][0] / results[fast][0]:.2f}")


if __name__ == "__main__":
    main()
