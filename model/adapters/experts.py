"""A sparse mixture of bottleneck experts.

Shape letters: T tokens of a batch, D embedding, E experts, K experts chosen per token, R width of an expert,
F = E * R.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils import UserError


class Routed(NamedTuple):
    """What a mixture returns."""

    out: Tensor
    """(..., D), the shape of the input"""
    routing_2E: Tensor
    """summed over tokens: the probability of each expert, and how often it was chosen"""


class Stacked(nn.Module):
    """Weight and bias of one layer, for all experts at once (experts first)."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)


class Experts(nn.Module):
    """E bottleneck adapters up(GELU(down(LN x))), of which each token takes K.

    An expert starts at zero, so that the mixture starts as the identity.
    """

    def __init__(self, width: int, hidden: int, experts: int, dropout: float) -> None:
        super().__init__()
        self.norm = Stacked(torch.ones(experts, width), torch.zeros(experts, width))
        down_ERD = torch.empty(experts, hidden, width).uniform_(-(width**-0.5), width**-0.5)
        self.down = Stacked(down_ERD, torch.zeros(experts, hidden))
        self.up = Stacked(torch.zeros(experts, width, hidden), torch.zeros(experts, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_TD: Tensor, gate_TE: Tensor) -> Tensor:
        """(T, D) what the experts add to each token, weighted by their gates (T, E): 0 where one was not chosen."""
        experts, hidden, width = self.down.weight.shape
        # An expert's own scale and shift of the normalised token are folded into its first layer: one product of
        # (T, D) with (D, E R) then serves all experts.
        down_ERD = self.down.weight * self.norm.weight[:, None]
        bias_ER = self.down.bias + torch.einsum("erd,ed->er", self.down.weight, self.norm.bias)
        normal_TD = F.layer_norm(x_TD, (width,))
        hidden_TER = F.linear(normal_TD, down_ERD.flatten(0, 1), bias_ER.flatten()).unflatten(1, (experts, hidden))
        # Gating before the second layer makes that one product as well, with (E R, D). Dropout then acts on the sum:
        # each expert's output is dropped with the published probability, but all of a token's experts share one mask.
        gated_TER = self.dropout(F.gelu(hidden_TER)) * gate_TE[:, :, None]
        up_FD = self.up.weight.transpose(1, 2).flatten(0, 1)
        return self.dropout(gated_TER.flatten(1) @ up_FD + gate_TE @ self.up.bias)


def load_balance(routing_N2E: Tensor) -> Tensor:
    """Load-balance penalty of N routing decisions (Fedus et al., JMLR 2022, eq. 4-6, for K choices per token).

    The sum over decisions and experts of mean probability times share of tokens; K / E for each decision that uses all
    experts alike. Not linear in the tokens: for a batch in several parts, add up :class:`Routed`'s sums first.
    """
    probability_NE, choices_NE = routing_N2E.unbind(dim=1)
    tokens_N1 = probability_NE.detach().sum(dim=1, keepdim=True)
    return (probability_NE / tokens_N1 * (choices_NE / tokens_N1)).sum()


class MixtureOfExperts(nn.Module):
    """Top-k mixture whose router sees the token and a learnable vector of the block.

    Dense: every token passes through all experts in one product and the gates choose. With 2 of 4 narrow experts that
    takes no longer on a CPU than gather/scatter (benchmarks.php), and a GPU need not wait for the router.
    """

    def __init__(self, width: int, reduction: int, experts: int, topk: int, dropout: float = 0.1) -> None:
        """``width``: D, ``reduction``: D / R, ``experts``: E, ``topk``: K; dropout is inside and after each expert."""
        super().__init__()
        if topk > experts:
            raise UserError(f"--topk {topk}: there are only --num_experts {experts} to choose from")
        self.topk = topk
        self.input_gate = nn.Linear(width, experts, bias=False)
        self.task_gate = nn.Linear(width, experts, bias=False)
        self.alpha = nn.Parameter(torch.tensor(0.5))
        self.experts = Experts(width, width // reduction, experts, dropout)
        self.register_buffer("expert_count", torch.zeros(experts, dtype=torch.long))
        """tokens that each expert has seen in training"""

    def forward(self, x: Tensor, task_D: Tensor) -> Routed:
        """Tokens (..., D) and the block's vector to tokens of the same shape."""
        x_TD = x.flatten(0, -2)
        logits_TE = self.route(x_TD, task_D)
        value_TK, expert_TK = logits_TE.topk(self.topk, dim=1)
        gate_TE = torch.zeros_like(logits_TE).scatter(1, expert_TK, value_TK.softmax(dim=1))
        chosen_TE = torch.zeros_like(logits_TE).scatter(1, expert_TK, 1.0)
        # the experts' residual connections add x once, because the gates of a token sum to 1
        out_TD = x_TD + self.experts(x_TD, gate_TE)
        return Routed(out_TD.view_as(x), torch.stack([logits_TE.softmax(dim=1).sum(dim=0), chosen_TE.sum(dim=0)]))

    def route(self, x_TD: Tensor, task_D: Tensor) -> Tensor:
        """Routing logits (T, E), outside autocast: half precision would make near ties depend on the batch."""
        with torch.autocast(x_TD.device.type, enabled=False):
            x_TD = x_TD.to(self.alpha.dtype)
            return (1 - self.alpha) * self.input_gate(x_TD) + self.alpha * self.task_gate(task_D)
