"""What the rest of the program knows about a backbone: its interface, its sizes, and the flags that choose one.

Shape letters: B batch, L tokens, D joint embedding, N blocks, E experts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils import UserError
from utils.inputs import Tokenizer
from utils.options import opt

MOST_PIXELS = 4096


@dataclass(frozen=True)
class BackboneOptions:
    """Which towers to start from."""

    pretrain_choice: str = opt(
        "ViT-B/16",
        "weights: of OpenAI (ViT-B/16, ViT-B/32, ViT-L/14, ViT-L/14@336px, an archive of theirs as FILE, a state "
        "dict as openai:FILE), of any of open_clip's CLIP or SigLIP models as open_clip:NAME:FILE, or none: tiny (2 "
        "layers of 64, for tests), small (4 layers of 192 and 2 of 128, for the demo), random-ViT-B/16",
    )
    img_size: tuple[int, ...] = opt((384, 128), "input height and width in pixels")
    stride_size: int | None = opt(
        None, "pixels between patches; smaller than the patch makes them overlap [patch]", least=1
    )

    tokenizer: Path | None = opt(None, "tokenizer.json of a model that does not use CLIP's tokenizer (SigLIP)")
    text_length: int | None = opt(
        None,
        "tokens of a caption, with start and end; longer captions are truncated [as many as the text tower takes: 77 "
        "for CLIP]",
        least=3,
    )
    text_stretch: str | None = opt(
        None,
        "how training stretches the text tower's positions to a --text_length above its own: all of them (linear), or "
        "all but the first 20 (keep20)",
        choices=("linear", "keep20"),
    )

    pixel_statistics: str | None = opt(
        None,
        "mean and standard deviation that pixels are normalised with: CLIP's or ImageNet's (as TBPS-CLIP was "
        "published) [those that the weights were trained with]",
        choices=("clip", "imagenet"),
    )
    eval_filter: str = opt(
        "bilinear",
        "what images are resized with in evaluation; training is always bilinear (TBPS-CLIP: bicubic)",
        choices=("bilinear", "bicubic"),
    )
    clean_text: bool = opt(
        False,
        'before tokenising, in training and testing: lower case, . ! " ( ) * # : ; ~ become blanks, at most 77 words '
        "(TBPS-CLIP)",
    )

    def __post_init__(self) -> None:
        shown = " ".join(str(side) for side in self.img_size)
        if len(self.img_size) == 2 and max(self.img_size) > MOST_PIXELS:
            raise UserError(f"--img_size {shown}: expected at most {MOST_PIXELS} pixels on a side")
        if len(self.img_size) != 2 or min(self.img_size) < 1:
            raise UserError(f"--img_size {shown}: expected height and width in pixels, as in --img_size 384 128")


class Encoded(NamedTuple):
    """What a tower returns, and what adapters make of it."""

    tokens: Tensor
    """(B, L, D) every token in the joint space"""
    pooled: Tensor
    """(B, D) the embedding of the whole image or caption, not normalised"""
    routing: Tensor
    """(N, 2, E) of the N blocks with E experts: summed over tokens, the probability of each expert and how often it was
    chosen; 0 without experts"""
    attention: Tensor | None = None
    """(B, L) how much the pooled token attends to each token in the last block, mean over its heads, without gradient;
    only where :attr:`Backbone.with_attention` asks for it"""
    selected: Tensor | None = None
    """(B, E) a second embedding, made of the tokens that matter most, not normalised; only with token selection"""
    early: Tensor | None = None
    """(B, P, D) an image's patches before the last :attr:`Backbone.early_blocks` blocks, in the joint space, without
    gradient; only where that is not 0"""

    @property
    def embeddings(self) -> tuple[Tensor, ...]:
        """The pooled embedding and, if there is one, the second."""
        return (self.pooled,) if self.selected is None else (self.pooled, self.selected)

    @property
    def feature(self) -> Tensor:
        """(B, D) or (B, D + E) the feature to rank by, in float32; its cosine is the mean of the embeddings'."""
        if self.selected is None:
            return full_precision(self.pooled)
        return torch.cat([F.normalize(full_precision(each_BD), dim=-1) for each_BD in self.embeddings], dim=-1)


def full_precision(values: Tensor) -> Tensor:
    """The same in float32, unless it is more precise already."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


@dataclass(frozen=True)
class BackboneSpec:
    """Everything about a backbone that losses, adapters and data depend on."""

    embed_dim: int
    vocab_size: int
    image_size: tuple[int, int]
    """(height, width) in pixels"""
    context_length: int
    """most tokens that the text tower takes, prompts included"""
    text_is_causal: bool
    """whether no text token depends on those behind it, so that padding may be cut off"""
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    text_width: int
    image_width: int
    prompt_blocks: int
    """the first blocks of both towers into which learned prompts can be put; 0 where that is not possible"""
    eval_filter: str = "bilinear"
    """what images are resized with in evaluation"""
    log_scale: float | None = None
    """logarithm of the factor of cosines that the towers were trained with; None where the weights do not say it"""


class Backbone(nn.Module):
    """Two towers and what belongs to them. A new backbone is a subclass and a line in BACKBONES."""

    name: ClassVar[str]
    """its key in BACKBONES"""
    spec: BackboneSpec
    tokenizer: Tokenizer
    weights_file: Path | None = None
    """the file that its weights were read from"""
    gives_attention: ClassVar[bool] = False
    """whether the towers can say what their pooled token attends to"""
    with_attention = False
    """whether they do: :attr:`Encoded.attention`"""
    gives_early: ClassVar[bool] = False
    """whether the towers can say what their tokens were some blocks before the end"""
    early_blocks = 0
    """how many blocks before the end: :attr:`Encoded.early`, and :meth:`early_text`; 0: nowhere"""
    text_dropout = 0.0
    """probability of dropping an attention probability of the text tower in training"""

    def __init__(self) -> None:
        super().__init__()
        self.prompts: nn.Module | None = None
        """learned prompts of both towers, put there by :mod:`model.adapters.prompts`"""

    @classmethod
    def load(cls, choice: str, options: BackboneOptions) -> "Backbone":
        """The towers that a run starts from. Raises UserError where there are no such weights or they do not fit.

        ``choice`` is the value of ``--pretrain_choice`` without the prefix.
        """
        raise NotImplementedError

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], options: BackboneOptions, source: str) -> "Backbone":
        """Towers of the sizes that a checkpoint's weights (without the prefix ``NAME.``) show, to be filled with them.

        Raises UserError where weights are missing or not this backbone's, which names the checkpoint as ``source``.
        """
        raise NotImplementedError

    def encode_image(self, images_BCHW: Tensor) -> Encoded:
        """Normalised pixels to tokens and pooled features."""
        raise NotImplementedError

    def encode_text(self, ids_BL: Tensor, lengths_B: Tensor) -> Encoded:
        """Token ids to tokens and pooled features; ``lengths_B``: tokens of each caption, start and end included."""
        raise NotImplementedError

    def early_text(self, ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """(B, L, D) the tokens of captions before the last :attr:`early_blocks` blocks, in the joint space."""
        raise NotImplementedError

    def blocks(self) -> Iterator[nn.Module]:
        """The blocks of both towers, for LoRA, recomputation and compilation."""
        raise NotImplementedError

    def text_blocks(self) -> Iterator[nn.Module]:
        """Those of the text tower; only ``--text_dropout`` asks for them."""
        raise UserError(
            f"--text_dropout: the backbone {self.name} does not say which blocks are those of its text tower"
        )

    def pixel_layer(self) -> nn.Module:
        """The layer from pixels to tokens; only ``--freeze_patch_embedding`` asks for it."""
        raise UserError(f"--freeze_patch_embedding: the backbone {self.name} does not say which layer it is")

    def drop_text(self, probability: float) -> None:
        """Let the attention of the text tower drop probabilities in training."""
        self.text_dropout = probability
        for block in self.text_blocks():
            block.attn.dropout = probability
