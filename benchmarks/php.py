"""What PHP costs: its mixture of experts dense against gather/scatter, and its training step against IRRA's.

``python -m benchmarks.php [--device cuda] [--arch random-ViT-B/16] [--batch 64] [--repeats 5]``
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
from prettytable import PrettyTable
from torch import Tensor

from benchmarks.models import random_model, read_flags
from model.adapters.experts import MixtureOfExperts
from model.backbones.clip_tokenizer import END_ID, MASK_ID, START_ID
from utils.device import DeviceOptions, Precision, pick_precision

SYSTEMS = {"irra": "sdm+id+mlm", "php": "sdm+itc+aux"}


def gather_scatter(moe: MixtureOfExperts, x_TD: Tensor, task_D: Tensor) -> Tensor:
    """The mixture's output with each expert on its own tokens only, in a loop over experts."""
    value_TK, expert_TK = moe.route(x_TD, task_D).topk(moe.topk, dim=1)
    weight_TK, parts = value_TK.softmax(dim=1), moe.experts
    out_TD = x_TD.clone()
    for e in range(len(moe.expert_count)):
        token_M, choice_M = (expert_TK == e).nonzero(as_tuple=True)
        normal_MD = F.layer_norm(x_TD[token_M], x_TD.shape[1:], parts.norm.weight[e], parts.norm.bias[e])
        hidden_MR = parts.dropout(F.gelu(F.linear(normal_MD, parts.down.weight[e], parts.down.bias[e])))
        added_MD = parts.dropout(F.linear(hidden_MR, parts.up.weight[e], parts.up.bias[e]))
        out_TD = out_TD.index_add(0, token_M, (weight_TK[token_M, choice_M, None] * added_MD).to(out_TD.dtype))
    return out_TD


def seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median time of one call, after two to warm up."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return median(times[2:])


def mixture_times(tokens: int, width: int, precision: Precision, repeats: int) -> tuple[float, float]:
    """Forward and backward of both forms on the same tokens, after a check that they agree."""
    device = precision.device
    moe = MixtureOfExperts(width, reduction=8, experts=4, topk=2).to(device)
    torch.nn.init.normal_(moe.experts.up.weight, std=0.05)
    x_TD, task_D = torch.randn(tokens, width, device=device, requires_grad=True), torch.randn(width, device=device)
    forms = {"dense": lambda: moe(x_TD, task_D).out, "gather/scatter": lambda: gather_scatter(moe, x_TD, task_D)}
    moe.eval()
    torch.testing.assert_close(forms["dense"](), forms["gather/scatter"](), atol=1e-4, rtol=1e-4)
    moe.train()

    def step(form: Callable[[], Tensor]) -> None:
        with precision():
            out = form()
        out.float().square().mean().backward()

    return tuple(seconds(partial(step, form), device, repeats) for form in forms.values())


def step_time(system: str, arguments: argparse.Namespace, precision: Precision) -> float:
    """One training step (forward, backward, no optimiser) of a system."""
    batch, device = arguments.batch, precision.device
    model = random_model(read_flags(SYSTEMS[system], arguments.arch, arguments.img_size), precision)
    ids = torch.zeros(batch, 77, dtype=torch.long)
    ids[:, :30] = torch.randint(1, MASK_ID, (batch, 30))
    ids[:, 0], ids[:, 29] = START_ID, END_ID
    labels = torch.where(torch.rand(batch, 77) < 0.15, ids, 0)
    fields = {"images": torch.randn(batch, 3, *arguments.img_size), "mlm_ids": ids, "mlm_labels": labels}
    fields |= {"pids": torch.arange(batch), "mlm_positions": labels.flatten().nonzero()[:, 0]}
    fields["mlm_ids_lengths"] = torch.full((batch,), 30)
    fields = {name: value.to(device) for name, value in fields.items()}
    fields["caption_ids"] = fields["mlm_ids"]  # as published; both systems read all 77 tokens
    fields["caption_ids_lengths"] = fields["mlm_ids_lengths"]

    def step() -> None:
        model.zero_grad(set_to_none=True)
        model(fields)[0].loss.backward()

    return seconds(step, device, arguments.repeats)


def main() -> None:
    """Print both comparisons, and each ratio on a line of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--arch", default="small", help="as --pretrain_choice of train.py")
    parser.add_argument("--img_size", type=int, nargs=2, default=(96, 48))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    precision = pick_precision(DeviceOptions(device=arguments.device, precision=arguments.precision))
    torch.manual_seed(0)
    table, ratios = PrettyTable(["what", "ms"]), {}
    for variant, tokens in (("full", 9 * arguments.batch), ("efp", 77 * arguments.batch)):
        dense, moved = mixture_times(tokens, arguments.width, precision, arguments.repeats)
        table.add_row([f"mixture, {variant}, {tokens} tokens, dense", f"{1e3 * dense:.2f}"])
        table.add_row([f"mixture, {variant}, {tokens} tokens, gather/scatter", f"{1e3 * moved:.2f}"])
        ratios[f"gather_scatter_over_dense_{variant}"] = moved / dense
    times = {system: step_time(system, arguments, precision) for system in SYSTEMS}
    for system, value in times.items():
        table.add_row([f"step, {system} ({SYSTEMS[system]}), batch {arguments.batch}", f"{1e3 * value:.1f}"])
    ratios["php_step_over_irra_step"] = times["php"] / times["irra"]
    print(f"{precision}, {torch.get_num_threads()} thread(s)")
    print(table)
    for name, ratio in ratios.items():
        print(f"ratio {name} {ratio:.3f}")


if __name__ == "__main__":
    main()
