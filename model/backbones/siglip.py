"""SigLIP (Zhai et al., ICCV 2023) and SigLIP 2 (Tschannen et al., 2025): an image tower that pools by attention, and a
text tower without a causal mask that pools its last position, padding included.

Shape letters: B batch, L tokens, W tower width, D joint embedding, which is the width of the image tower.
"""

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from model.backbones.architecture import Architecture
from model.backbones.pretrained import read_pretrained
from model.backbones.sizes import ClipSizes, TowerForm
from model.backbones.spec import Backbone, BackboneOptions, Encoded
from model.backbones.towers import MLP, TextTower, Transformer, attend, heads_of, recomputed
from model.backbones.weights import spec_of, towers_for, towers_from
from utils.inputs import Tokenizer


class AttentionPool(nn.Module):
    """Attention of one learned query over the patches, and a perceptron: the pooled feature."""

    recompute = False
    """has no effect here: one block among many"""
    keep_input_only = False
    """whether training keeps nothing but the input"""

    def __init__(self, width: int, hidden: int | None, form: TowerForm) -> None:
        super().__init__()
        self.heads = form.heads or heads_of(width)
        self.query = nn.Parameter(width**-0.5 * torch.randn(1, width))
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.ln = nn.LayerNorm(width, form.eps)
        self.mlp = MLP(width, hidden, form.activation)

    def forward(self, x_BLW: Tensor) -> Tensor:
        """Patches (B, L, W) to (B, 1 + L, D): the pooled feature, then what each patch alone would be pooled to.

        So every token is in the joint space, and the pooled one is their mixture but for the perceptron.
        """
        kept = self.keep_input_only and torch.is_grad_enabled()
        return recomputed(self._pool, x_BLW) if kept else self._pool(x_BLW)

    def _pool(self, x_BLW: Tensor) -> Tensor:
        query_B1W = self.q_proj(self.query).expand(x_BLW.shape[0], 1, -1)
        value_BLW = self.v_proj(x_BLW)
        mixed_B1W = attend(query_B1W, self.k_proj(x_BLW), value_BLW, self.heads)
        out_BMW = self.out_proj(torch.cat([mixed_B1W, value_BLW], dim=1))
        return out_BMW + self.mlp(self.ln(out_BMW))


class SiglipImageTower(nn.Module):
    """Vision transformer over patches, without a class token."""

    def __init__(self, sizes: ClipSizes, form: TowerForm) -> None:
        super().__init__()
        width, (rows, columns) = sizes.vision_width, sizes.grid
        self.conv1 = nn.Conv2d(3, width, sizes.patch_size, sizes.stride)
        self.positional_embedding = nn.Parameter(width**-0.5 * torch.randn(rows * columns, width))
        self.transformer = Transformer(width, sizes.vision_layers, hidden=sizes.vision_hidden, form=form)
        self.ln_post = nn.LayerNorm(width, form.eps)
        self.pool = AttentionPool(width, sizes.vision_hidden, form)

    def forward(self, images_BCHW: Tensor, early: int = 0) -> Encoded:
        """(B, 3, height, width) normalised pixels to tokens (B, 1 + patches, D); the pooled feature is token 0.

        ``early`` adds the patches before so many blocks from the end.
        """
        x_BLW = self.conv1(images_BCHW).flatten(2).transpose(1, 2) + self.positional_embedding
        x_BLW, _, early_BLW = self.transformer(x_BLW, early=early)
        tokens_BLD = self.pool(self.ln_post(x_BLW))
        early_BPD = None if early_BLW is None else self.pool(self.ln_post(early_BLW))[:, 1:].detach()
        return Encoded(tokens_BLD, tokens_BLD[:, 0], tokens_BLD.new_zeros(()), early=early_BPD)


class SigLIP(Backbone):
    """Both towers, to be filled with trained weights."""

    name = "siglip"
    gives_early = True

    def __init__(self, sizes: ClipSizes, architecture: Architecture, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.sizes, self.tokenizer = sizes, tokenizer
        self.spec = spec_of(sizes, architecture, text_is_causal=False, prompt_blocks=0)
        self.visual = SiglipImageTower(sizes, architecture.image)
        self.text = TextTower(sizes, architecture.text, causal=False, projection_bias=True)

    @classmethod
    def load(cls, choice: str, options: BackboneOptions) -> "SigLIP":
        """See the base class; ``choice``: ``open_clip:NAME:FILE``."""
        given = read_pretrained(choice, ())
        return towers_from(cls, given, siglip_names(given.state), options, has_class=False)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], options: BackboneOptions, source: str) -> "SigLIP":
        """See the base class."""
        return towers_for(cls, state, options, source, has_class=False)

    def encode_image(self, images_BCHW: Tensor) -> Encoded:
        """Normalised pixels to tokens and pooled features."""
        return self.visual(images_BCHW, self.early_blocks)

    def encode_text(self, ids_BL: Tensor, lengths_B: Tensor) -> Encoded:
        """Token ids with all their padding to tokens and pooled features; the lengths are not read."""
        return self.text(ids_BL, lengths_B)

    def early_text(self, ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """See the base class."""
        return self.text(ids_BL, lengths_B, skip=self.early_blocks).tokens

    def blocks(self) -> Iterator[nn.Module]:
        """Those of the image tower, its pooling, then those of the text tower."""
        yield from self.visual.transformer.resblocks
        yield self.visual.pool
        yield from self.text.transformer.resblocks

    def text_blocks(self) -> Iterator[nn.Module]:
        """Those of the text tower."""
        yield from self.text.transformer.resblocks

    def pixel_layer(self) -> nn.Module:
        """The convolution over patches."""
        return self.visual.conv1


_RENAMED = {
    r"^visual\.trunk\.patch_embed\.proj\.": "visual.conv1.",
    r"^visual\.trunk\.pos_embed$": "visual.positional_embedding",
    r"^visual\.trunk\.blocks\.": "visual.transformer.resblocks.",
    r"^visual\.trunk\.norm\.": "visual.ln_post.",
    r"^visual\.trunk\.attn_pool\.latent$": "visual.pool.query",
    r"^visual\.trunk\.attn_pool\.(q|proj)\.": r"visual.pool.\1_proj.",
    r"^visual\.trunk\.attn_pool\.norm\.": "visual.pool.ln.",
    r"^visual\.trunk\.attn_pool\.": "visual.pool.",
    r"\.proj_proj\.": ".out_proj.",
    r"\.norm1\.": ".ln_1.",
    r"\.norm2\.": ".ln_2.",
    r"\.attn\.qkv\.": ".attn.in_proj.",
    r"\.attn\.proj\.": ".attn.out_proj.",
    r"\.mlp\.fc1\.": ".mlp.c_fc.",
    r"\.mlp\.fc2\.": ".mlp.c_proj.",
    r"\.in_proj_(weight|bias)$": r".in_proj.\1",
    r"^text\.text_projection\.weight$": "text.text_projection",
    r"^text\.text_projection\.bias$": "text.projection_bias",
}
"""pattern in the names of open_clip and timm to ours, in this order"""


def siglip_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of open_clip's model under our names, in our shapes, as float32; scale and bias of logits go."""
    ours: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key.removeprefix("module.")
        if name in ("logit_scale", "logit_bias"):
            continue
        for pattern, replacement in _RENAMED.items():
            name = re.sub(pattern, replacement, name)
        value = value.float() if value.is_floating_point() else value
        if name.startswith("visual.pool.kv.") and len(value) % 2 == 0:
            leaf = name.rpartition(".")[2]
            ours[f"visual.pool.k_proj.{leaf}"], ours[f"visual.pool.v_proj.{leaf}"] = value.chunk(2)
        elif name in ("visual.positional_embedding", "visual.pool.query") and value.dim() == 3:
            ours[name] = value[0]
        elif name == "text.text_projection" and value.dim() == 2:
            ours[name] = value.T.contiguous()
        else:
            ours[name] = value
    return ours
