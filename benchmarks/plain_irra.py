"""IRRA's training step in its plain form, the reference that the fast one is measured against.

Written from the formulas, with PyTorch's own layers: ``nn.MultiheadAttention``, every caption at full length, the clean
and the masked caption encoded one after the other, the mlm head on every position, everything in float32, one optimiser
group per tensor.

Shapes: B pairs, L = 77 text positions, W tower width, D embedding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.backbones.sizes import ClipSizes
from model.backbones.towers import heads_of
from solver.optimizer import SolverOptions, lr_and_decay


class PlainQuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class PlainMLP(nn.Sequential):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.add_module("c_fc", nn.Linear(width, 4 * width))
        self.add_module("gelu", PlainQuickGELU())
        self.add_module("c_proj", nn.Linear(4 * width, width))


class PlainBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads_of(width), batch_first=True)
        self.mlp = PlainMLP(width)

    def forward(self, x_BLW: Tensor, mask_LL: Tensor | None) -> Tensor:
        normed_BLW = self.ln_1(x_BLW)
        x_BLW = x_BLW + self.attn(normed_BLW, normed_BLW, normed_BLW, need_weights=False, attn_mask=mask_LL)[0]
        return x_BLW + self.mlp(self.ln_2(x_BLW))


class PlainTransformer(nn.Module):
    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(PlainBlock(width) for _ in range(layers))

    def forward(self, x_BLW: Tensor, mask_LL: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x_BLW = block(x_BLW, mask_LL)
        return x_BLW


class PlainImageTower(nn.Module):
    def __init__(self, sizes: ClipSizes) -> None:
        super().__init__()
        width, (rows, columns) = sizes.vision_width, sizes.grid
        self.conv1 = nn.Conv2d(3, width, sizes.patch_size, sizes.stride, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(rows * columns + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = PlainTransformer(width, sizes.vision_layers)
        self.proj = nn.Parameter(torch.empty(width, sizes.embed_dim))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        patches_BLW = self.conv1(images_BCHW).flatten(2).transpose(1, 2)
        class_B1W = self.class_embedding.expand(len(patches_BLW), 1, -1)
        x_BLW = torch.cat([class_B1W, patches_BLW], dim=1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x_BLW))) @ self.proj


class PlainTextTower(nn.Module):
    def __init__(self, sizes: ClipSizes) -> None:
        super().__init__()
        width, length = sizes.text_width, sizes.context_length
        self.token_embedding = nn.Embedding(sizes.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(length, width))
        self.transformer = PlainTransformer(width, sizes.text_layers)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, sizes.embed_dim))
        self.register_buffer("mask_LL", torch.full((length, length), -torch.inf).triu(1), persistent=False)

    def forward(self, ids_BL: Tensor) -> Tensor:
        x_BLW = self.token_embedding(ids_BL) + self.positional_embedding
        return self.ln_final(self.transformer(x_BLW, self.mask_LL)) @ self.text_projection


class PlainCrossFormer(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.ln_query, self.ln_other, self.ln_out = (nn.LayerNorm(width) for _ in range(3))
        self.attn = nn.MultiheadAttention(width, heads_of(width), batch_first=True)
        self.transformer = PlainTransformer(width, depth)

    def forward(self, query_BLD: Tensor, other_BMD: Tensor) -> Tensor:
        other_BMD = self.ln_other(other_BMD)
        x_BLD = self.attn(self.ln_query(query_BLD), other_BMD, other_BMD, need_weights=False)[0]
        return self.ln_out(self.transformer(x_BLD))


class PlainMLMHead(nn.Module):
    def __init__(self, width: int, vocab_size: int) -> None:
        super().__init__()
        self.dense, self.gelu, self.ln = nn.Linear(width, width), PlainQuickGELU(), nn.LayerNorm(width)
        self.fc = nn.Linear(width, vocab_size)

    def forward(self, x_BLD: Tensor) -> Tensor:
        return self.fc(self.ln(self.gelu(self.dense(x_BLD))))


class PlainIRRA(nn.Module):
    """Towers, cross former and the sdm, id and mlm losses."""

    def __init__(self, sizes: ClipSizes, num_ids: int, depth: int = 4, temperature: float = 0.02) -> None:
        super().__init__()
        self.visual, self.text = PlainImageTower(sizes), PlainTextTower(sizes)
        self.cross_former = PlainCrossFormer(sizes.embed_dim, depth)
        self.mlm = PlainMLMHead(sizes.embed_dim, sizes.vocab_size)
        self.classifier = nn.Linear(sizes.embed_dim, num_ids)
        self.temperature = temperature

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        image_BMD = self.visual(batch["images"])
        text_BLD = self.text(batch["caption_ids"])
        image_BD = image_BMD[:, 0]
        text_BD = text_BLD[torch.arange(len(text_BLD)), batch["caption_ids"].argmax(dim=1)]
        masked_BLD = self.text(batch["mlm_ids"])
        logits_BLV = self.mlm(self.cross_former(masked_BLD, image_BMD))
        mlm = F.cross_entropy(logits_BLV.flatten(0, 1), batch["mlm_labels"].flatten(), ignore_index=0)
        return self._sdm(image_BD, text_BD, batch["pids"]) + self._id(image_BD, text_BD, batch["pids"]) + mlm

    def _sdm(self, image_BD: Tensor, text_BD: Tensor, pids_B: Tensor) -> Tensor:
        logits_BB = F.normalize(image_BD) @ F.normalize(text_BD).T / self.temperature
        same_BB = (pids_B[:, None] == pids_B[None, :]).float()
        target_BB = torch.log(same_BB / same_BB.sum(dim=1, keepdim=True) + 1e-8)
        total = 0.0
        for one_way_BB in (logits_BB, logits_BB.T):
            difference_BB = F.log_softmax(one_way_BB, dim=1) - target_BB
            total = total + (F.softmax(one_way_BB, dim=1) * difference_BB).sum(dim=1).mean()
        return total

    def _id(self, image_BD: Tensor, text_BD: Tensor, pids_B: Tensor) -> Tensor:
        return sum(F.cross_entropy(self.classifier(feature), pids_B) for feature in (image_BD, text_BD)) / 2


_NAMES = {
    **{"clip.": "", "parts.": "", "heads.id.": "", "heads.": ""},
    **{"in_proj.weight": "in_proj_weight", "in_proj.bias": "in_proj_bias"},
}
"""parts of our names to those of the plain model"""


def plain_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of our model under the names of the plain one."""

    def renamed(key: str) -> str:
        for old, new in _NAMES.items():
            key = key.replace(old, new)
        return key

    return {renamed(key): value for key, value in state.items()}


def plain_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """Adam with a group of its own for every tensor."""
    groups = []
    for name, parameter in model.named_parameters():
        role = "cross" if "cross_former" in name else "head" if name.startswith(("classifier", "mlm")) else "plain"
        lr, decay = lr_and_decay(name, parameter.dim(), role, SolverOptions())
        groups.append({"params": [parameter], "lr": lr, "weight_decay": decay})
    return torch.optim.Adam(groups, betas=(0.9, 0.999), eps=1e-3)
