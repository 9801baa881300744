"""How the model is run: compiled, recomputed, in parts. None of it changes what is computed."""

import logging
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.backbones.spec import Encoded
from utils import UserError
from utils.options import opt

log = logging.getLogger("descry")


@dataclass(frozen=True)
class MemoryOptions:
    """Flags that trade memory, time and start-up against each other."""

    compile: bool = opt(False, "compile the model's blocks: the first steps take a minute or more, later ones less")
    grad_checkpointing: bool = opt(
        False, "keep only the input of each block of the model and recompute the block in the backward pass"
    )
    accumulate: int = opt(
        1,
        "encode the batch in this many parts, one after the other, and recompute each in the backward pass: the towers "
        "need the memory of batch_size / N, the losses still see the whole batch",
        least=1,
    )


def set_up_blocks(blocks: Iterable[nn.Module], options: MemoryOptions) -> None:
    """Compile and checkpoint blocks as the flags ask. Raises UserError for ``--compile`` without a C++ compiler."""
    if options.compile and not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        raise UserError(
            "--compile: needs a C++ compiler (g++ or clang++), and there is none; install one or leave the flag out"
        )
    for block in blocks:
        block.keep_input_only = options.grad_checkpointing
        if options.compile:
            block.compile()
    if options.compile:
        # Two towers, each with and without gradients, at full and last batches: more than the default allows for.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 32)
        log.info("--compile: the first steps and the first evaluation are slow")


def in_parts(encode: Callable[..., Encoded], parts: int, *inputs_B: Tensor) -> Encoded:
    """``encode(*inputs)``, of which each part keeps nothing but its input and its result for the backward pass.

    The losses see the whole batch, and their gradient goes through the parts one by one (gradient caching, Gao et al.,
    RepL4NLP 2021, with activation checkpointing as the means). ``encode`` is a tower, whose results do not depend on
    the other samples of a batch; a batch smaller than ``parts`` has fewer.
    """
    if parts == 1 or not torch.is_grad_enabled():
        return encode(*inputs_B)
    chunks = zip(*(value_B.chunk(parts) for value_B in inputs_B), strict=True)
    encoded = [checkpoint(encode, *chunk, use_reentrant=False) for chunk in chunks]
    tokens, pooled, routing, attention, _, early = zip(*encoded, strict=True)
    attention_BL, early_BPD = (None if parts[0] is None else torch.cat(parts) for parts in (attention, early))
    return Encoded(torch.cat(tokens), torch.cat(pooled), routing[0], attention_BL, early=early_BPD)
