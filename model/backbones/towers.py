"""CLIP's two towers (Radford et al., ICML 2021), returning every token in the joint space and not only the pooled one.

Shape letters: B batch, L tokens, W tower width, D joint embedding, H heads, C head width, V vocabulary, P prompts.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.backbones.activations import ACTIVATIONS
from model.backbones.sizes import OPENAI_FORM, ClipSizes, TowerForm
from model.backbones.spec import Encoded, full_precision


class Attention(nn.Module):
    """Multi-head attention; queries from one sequence, keys and values from the same or another one."""

    dropout = 0.0
    """probability of dropping an attention probability in training"""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        assert width % heads == 0, f"width {width} is not divisible by {heads} heads"
        self.heads = heads
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x_BLW: Tensor, causal: bool = False) -> Tensor:
        """Self-attention over the second dimension: (B, L, W) to (B, L, W)."""
        return self.out_proj(self.mix(self.in_proj(x_BLW), causal))

    def mix(self, qkv_BLX: Tensor, causal: bool = False) -> Tensor:
        """Weighted values of queries, keys and values side by side: (B, L, 3 W) to (B, L, W), before ``out_proj``."""
        return self._mix(*qkv_BLX.chunk(3, dim=-1), causal)

    def cross(self, query_BLW: Tensor, other_BMW: Tensor) -> Tensor:
        """Attention of one sequence over another: (B, L, W), (B, M, W) to (B, L, W)."""
        width = query_BLW.shape[-1]
        weight, bias = self.in_proj.weight, self.in_proj.bias
        q = F.linear(query_BLW, weight[:width], bias[:width])
        k, v = F.linear(other_BMW, weight[width:], bias[width:]).chunk(2, dim=-1)
        return self.out_proj(self._mix(q, k, v, causal=False))

    @torch.no_grad()
    def weights(self, x_BLW: Tensor, row_B: Tensor, causal: bool = False) -> Tensor:
        """What one token of each sequence, at position ``row_B``, attends to: (B, L) float32, mean over the heads."""
        q_BLW, k_BLW, _ = self.in_proj(x_BLW).chunk(3, dim=-1)
        q_BHC = q_BLW[torch.arange(row_B.shape[0], device=row_B.device), row_B].unflatten(-1, (self.heads, -1))
        k_BLHC = k_BLW.unflatten(-1, (self.heads, -1))
        score_BHL = full_precision(torch.einsum("bhc,blhc->bhl", q_BHC, k_BLHC)) * q_BHC.shape[-1] ** -0.5
        if causal:
            behind_BL = torch.arange(x_BLW.shape[1], device=row_B.device) > row_B[:, None]
            score_BHL = score_BHL.masked_fill(behind_BL[:, None], -torch.inf)
        return score_BHL.softmax(dim=-1).mean(dim=1)

    def _mix(self, q_BLW: Tensor, k_BMW: Tensor, v_BMW: Tensor, causal: bool) -> Tensor:
        return attend(q_BLW, k_BMW, v_BMW, self.heads, causal, self.dropout if self.training else 0.0)


def attend(
    q_BLW: Tensor, k_BMW: Tensor, v_BMW: Tensor, heads: int, causal: bool = False, dropout: float = 0.0
) -> Tensor:
    """Multi-head attention of projected queries over keys and values: (B, L, W)."""
    # On a CPU PyTorch's bfloat16 kernels are 2.5 times slower than plain products at the lengths of this field.
    plain = q_BLW.device.type == "cpu" and q_BLW.dtype == torch.bfloat16
    attention = _plain_attention if plain else F.scaled_dot_product_attention
    by_head = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q_BLW, k_BMW, v_BMW))
    return attention(*by_head, is_causal=causal, dropout_p=dropout).transpose(1, 2).flatten(2)


def _plain_attention(q_BHLC: Tensor, k_BHMC: Tensor, v_BHMC: Tensor, is_causal: bool, dropout_p: float) -> Tensor:
    score_BHLM = (q_BHLC * q_BHLC.shape[-1] ** -0.5) @ k_BHMC.transpose(-1, -2)
    if is_causal:
        length = score_BHLM.shape[-1]
        score_BHLM = score_BHLM + score_BHLM.new_full((length, length), -torch.inf).triu(1)
    weight_BHLM = score_BHLM.softmax(dim=-1, dtype=score_BHLM.dtype)
    return (F.dropout(weight_BHLM, dropout_p) if dropout_p else weight_BHLM) @ v_BHMC


class MLP(nn.Module):
    """The two-layer perceptron of a CLIP block."""

    def __init__(self, width: int, hidden: int | None = None, activation: str = OPENAI_FORM.activation) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, hidden or 4 * width)
        self.gelu = ACTIVATIONS[activation]()
        self.c_proj = nn.Linear(hidden or 4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., W) to (..., W)."""
        return self.c_proj(self.gelu(self.c_fc(x)))


def recomputed(function: Callable[[Tensor], Tensor], x: Tensor, draws: bool = False) -> Tensor:
    """``function(x)``, keeping only x for the backward pass, which runs the function again up to its last kept tensor.

    A matrix product at the end of the function is therefore not repeated. ``draws``: whether it draws random numbers,
    which then are the same again.
    """
    return checkpoint(function, x, use_reentrant=False, preserve_rng_state=draws)


class Block(nn.Module):
    """Pre-norm residual block."""

    recompute = False
    """whether training recomputes normalised inputs and the perceptron instead of keeping them (6 instead of 16 values
    per token and channel, for a third of a forward pass)"""
    keep_input_only = False
    """whether training keeps nothing but the input (1 value per token and channel, for a forward pass)"""

    def __init__(self, width: int, heads: int, hidden: int | None = None, form: TowerForm = OPENAI_FORM) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, form.eps)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width, form.eps)
        self.mlp = MLP(width, hidden, form.activation)

    def forward(self, x_BLW: Tensor, causal: bool = False) -> Tensor:
        """(B, L, W) to (B, L, W)."""
        if self.recompute and not self.keep_input_only and torch.is_grad_enabled():
            return self._thrifty(x_BLW, causal)
        return self.saving(lambda x: self._whole(x, causal), x_BLW)

    def saving(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """``function(x)``, with its inner results kept or computed again as ``keep_input_only`` says."""
        if self.keep_input_only and torch.is_grad_enabled():
            return recomputed(function, x, draws=self.training and self.attn.dropout > 0)
        return function(x)

    def _whole(self, x_BLW: Tensor, causal: bool) -> Tensor:
        x_BLW = x_BLW + self.attn(self.ln_1(x_BLW), causal)
        return x_BLW + self.mlp(self.ln_2(x_BLW))

    def _thrifty(self, x_BLW: Tensor, causal: bool) -> Tensor:
        qkv_BLX = recomputed(lambda x: self.attn.in_proj(self.ln_1(x)), x_BLW)
        x_BLW = x_BLW + self.attn.out_proj(self.attn.mix(qkv_BLX, causal))
        return x_BLW + recomputed(lambda x: self.mlp(self.ln_2(x)), x_BLW)


class Transformer(nn.Module):
    """A stack of blocks."""

    def __init__(
        self,
        width: int,
        layers: int,
        causal: bool = False,
        hidden: int | None = None,
        form: TowerForm = OPENAI_FORM,
    ) -> None:
        super().__init__()
        self.causal = causal
        heads = form.heads or heads_of(width)
        self.resblocks = nn.ModuleList(Block(width, heads, hidden, form) for _ in range(layers))

    def forward(
        self,
        x_BLW: Tensor,
        prompts: Sequence[Tensor] = (),
        start: int = 0,
        row_B: Tensor | None = None,
        early: int = 0,
        skip: int = 0,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """(B, L, W) to (B, L, W), to (B, L) what the tokens at position ``row_B`` attend to in the last block, and to
        what they were before the last ``early`` blocks, without gradient. The last ``skip`` blocks are left out.

        Prompts, (P, W) for each of the first blocks, stand from position ``start`` on: those of the first block are in
        the input already, those of the others replace them.
        """
        attention_BL = early_BLW = None
        for layer, block in enumerate(self.resblocks[: max(len(self.resblocks) - skip, 0)]):
            if early and layer == max(len(self.resblocks) - early, 0):
                early_BLW = x_BLW.detach()
            if 0 < layer < len(prompts):
                after = start + len(prompts[layer])
                x_BLW = inserted(x_BLW[:, :start], prompts[layer], x_BLW[:, after:])
            if row_B is not None and layer == len(self.resblocks) - 1:
                attention_BL = block.attn.weights(block.ln_1(x_BLW.detach()), row_B, self.causal)
            x_BLW = block(x_BLW, self.causal)
        return x_BLW, attention_BL, early_BLW

    def init(self) -> None:
        """CLIP's initialisation: residual outputs shrink with the depth of the network."""
        for block in self.resblocks:
            width = block.mlp.c_fc.in_features
            out_std = width**-0.5 * (2 * len(self.resblocks)) ** -0.5
            nn.init.normal_(block.attn.in_proj.weight, std=width**-0.5)
            nn.init.zeros_(block.attn.in_proj.bias)
            nn.init.normal_(block.attn.out_proj.weight, std=out_std)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=out_std)


def inserted(before_BLW: Tensor, prompts_PW: Tensor, after_BMW: Tensor) -> Tensor:
    """The same prompts between two parts of every sequence of a batch: (B, L + P + M, W)."""
    prompts_BPW = prompts_PW.to(before_BLW.dtype).expand(before_BLW.shape[0], -1, -1)
    return torch.cat([before_BLW, prompts_BPW, after_BMW], dim=1)


def heads_of(width: int) -> int:
    """CLIP's rule: 64 channels per attention head."""
    return max(width // 64, 1)


class ImageTower(nn.Module):
    """Vision transformer over a non-square grid of (possibly overlapping) patches."""

    def __init__(self, sizes: ClipSizes, form: TowerForm = OPENAI_FORM) -> None:
        super().__init__()
        width, (rows, columns) = sizes.vision_width, sizes.grid
        self.conv1 = nn.Conv2d(3, width, sizes.patch_size, sizes.stride, bias=False)
        self.class_embedding = nn.Parameter(width**-0.5 * torch.randn(width))
        self.positional_embedding = nn.Parameter(width**-0.5 * torch.randn(rows * columns + 1, width))
        self.ln_pre = nn.LayerNorm(width, form.eps)
        self.transformer = Transformer(width, sizes.vision_layers, hidden=sizes.vision_hidden, form=form)
        self.ln_post = nn.LayerNorm(width, form.eps)
        self.proj = nn.Parameter(width**-0.5 * torch.randn(width, sizes.embed_dim))

    def forward(
        self, images_BCHW: Tensor, prompts: Sequence[Tensor] = (), with_attention: bool = False, early: int = 0
    ) -> Encoded:
        """(B, 3, height, width) normalised pixels to tokens (B, 1 + patches, D); the pooled feature is token 0.

        Prompts, (P, W) for each of the first blocks, stand after the patches and are not among the tokens returned.
        ``with_attention`` adds what token 0 attends to, ``early`` the patches before so many blocks from the end.
        """
        x_BLW = self.conv1(images_BCHW).flatten(2).transpose(1, 2)
        cls_B1W = self.class_embedding.to(x_BLW.dtype).expand(x_BLW.shape[0], 1, -1)
        x_BLW = torch.cat([cls_B1W, x_BLW], dim=1) + self.positional_embedding
        length = x_BLW.shape[1]
        if prompts:
            x_BLW = inserted(x_BLW, prompts[0], x_BLW[:, :0])
        row_B = torch.zeros(x_BLW.shape[0], dtype=torch.long, device=x_BLW.device) if with_attention else None
        x_BLW, attention_BL, early_BLW = self.transformer(self.ln_pre(x_BLW), prompts, length, row_B, early)
        tokens_BLD = self.ln_post(x_BLW[:, :length]) @ self.proj
        attention_BL = None if attention_BL is None else attention_BL[:, :length]
        early_BPD = None if early_BLW is None else (self.ln_post(early_BLW[:, 1:length]) @ self.proj).detach()
        return Encoded(tokens_BLD, tokens_BLD[:, 0], tokens_BLD.new_zeros(()), attention_BL, early=early_BPD)


class TextTower(nn.Module):
    """Transformer over tokens; the end token is pooled, or the last position where attention is not causal."""

    def __init__(
        self, sizes: ClipSizes, form: TowerForm = OPENAI_FORM, causal: bool = True, projection_bias: bool = False
    ) -> None:
        super().__init__()
        width = sizes.text_width
        self.token_embedding = nn.Embedding(sizes.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(sizes.context_length, width))
        self.transformer = Transformer(width, sizes.text_layers, causal, sizes.text_hidden, form)
        self.ln_final = nn.LayerNorm(width, form.eps)
        self.text_projection = nn.Parameter(width**-0.5 * torch.randn(width, sizes.embed_dim))
        self.projection_bias = nn.Parameter(torch.zeros(sizes.embed_dim)) if projection_bias else None
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)

    def forward(
        self,
        ids_BL: Tensor,
        lengths_B: Tensor,
        prompts: Sequence[Tensor] = (),
        with_attention: bool = False,
        skip: int = 0,
    ) -> Encoded:
        """Token ids (B, L), L up to the context length, to tokens (B, L, D) and the pooled one.

        Prompts, (P, W) for each of the first blocks, stand after the start token and are not among the tokens returned:
        token l belongs to id l. Ids for which they leave no room in the context are cut off (and so are their tokens).

        ``lengths_B``: tokens of each caption, start and end included. ``with_attention`` adds what the end token
        attends to; ``skip`` leaves out the last blocks.
        """
        if not self.transformer.causal:
            lengths_B = torch.full_like(lengths_B, ids_BL.shape[1])  # pools the last position, whatever stands there
        if prompts:
            ids_BL = ids_BL[:, : len(self.positional_embedding) - len(prompts[0])]
        end_B = lengths_B.clamp(max=ids_BL.shape[1]) - 1
        x_BLW = self.token_embedding(ids_BL)
        room = len(prompts[0]) if prompts else 0
        if prompts:
            x_BLW = inserted(x_BLW[:, :1], prompts[0], x_BLW[:, 1:])
        x_BLW = x_BLW + self.positional_embedding[: x_BLW.shape[1]]
        row_B = end_B + room if with_attention else None
        x_BLW, attention_BL, _ = self.transformer(x_BLW, prompts, 1, row_B, skip=skip)
        if prompts:
            x_BLW = torch.cat([x_BLW[:, :1], x_BLW[:, 1 + room :]], dim=1)
            if attention_BL is not None:
                attention_BL = torch.cat([attention_BL[:, :1], attention_BL[:, 1 + room :]], dim=1)
        tokens_BLD = self.ln_final(x_BLW) @ self.text_projection
        if self.projection_bias is not None:
            tokens_BLD = tokens_BLD + self.projection_bias
        pooled_BD = tokens_BLD[torch.arange(end_B.shape[0], device=end_B.device), end_B]
        return Encoded(tokens_BLD, pooled_BD, tokens_BLD.new_zeros(()), attention_BL)
