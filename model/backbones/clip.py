"""CLIP (Radford et al., ICML 2021), in every size that OpenAI's names fit: sizes are read off the weights."""

import re
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from model.backbones.architecture import OPENAI, Architecture
from model.backbones.clip_tokenizer import shared_tokenizer
from model.backbones.file_tokenizer import tokenizer_of
from model.backbones.pretrained import read_pretrained
from model.backbones.sizes import ClipSizes
from model.backbones.spec import Backbone, BackboneOptions, Encoded
from model.backbones.towers import ImageTower, TextTower
from model.backbones.weights import at_resolution, at_text_length, spec_of, towers_for, towers_from
from utils.inputs import Tokenizer

VIT_B_16 = ClipSizes(512, (224, 224), 16, 16, 768, 12, 512, 12, 49408, 77)
"""the sizes that OpenAI published for ViT-B/16"""

RANDOM = {
    "tiny": ClipSizes(64, (224, 224), 16, 16, 64, 2, 64, 2, 49408, 77),
    "small": ClipSizes(192, (224, 224), 16, 16, 192, 4, 128, 2, 49408, 77),
    "random-ViT-B/16": VIT_B_16,
}
"""architectures with random weights: ``tiny`` for tests, ``small`` for the demo, ``random-ViT-B/16`` for timing"""


class CLIP(Backbone):
    """Both towers with CLIP's random initialisation, to be filled with trained weights."""

    name = "clip"
    gives_attention = gives_early = True

    def __init__(
        self, sizes: ClipSizes, architecture: Architecture = OPENAI, tokenizer: Tokenizer | None = None
    ) -> None:
        """``tokenizer``: CLIP's own without one."""
        super().__init__()
        self.sizes, self._tokenizer = sizes, tokenizer
        self.spec = spec_of(
            sizes, architecture, text_is_causal=True, prompt_blocks=min(sizes.vision_layers, sizes.text_layers)
        )
        self.visual = ImageTower(sizes, architecture.image)
        self.text = TextTower(sizes, architecture.text)
        self.visual.transformer.init()
        self.text.transformer.init()

    @property
    def tokenizer(self) -> Tokenizer:
        """CLIP's byte-pair tokenizer, but for models that were trained with another one."""
        return self._tokenizer or shared_tokenizer()

    @classmethod
    def load(cls, choice: str, options: BackboneOptions) -> "CLIP":
        """See the base class; ``choice``: a published name, a file, or an architecture with random weights."""
        if choice in RANDOM:
            sizes = at_text_length(at_resolution(RANDOM[choice], options), options)
            form = OPENAI.with_pixels(options)
            return cls(sizes, form, tokenizer_of(OPENAI, options, sizes.vocab_size))
        given = read_pretrained(choice, RANDOM)
        return towers_from(cls, given, clip_names(given.state), options)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], options: BackboneOptions, source: str) -> "CLIP":
        """See the base class."""
        return towers_for(cls, state, options, source)

    def encode_image(self, images_BCHW: Tensor) -> Encoded:
        """Normalised pixels to tokens and pooled features, with the prompts if there are any."""
        prompts = () if self.prompts is None else self.prompts.image()
        return self.visual(images_BCHW, prompts, self.with_attention, self.early_blocks)

    def encode_text(self, ids_BL: Tensor, lengths_B: Tensor) -> Encoded:
        """Token ids to tokens and pooled features, with the prompts if there are any."""
        prompts = () if self.prompts is None else self.prompts.text()
        return self.text(ids_BL, lengths_B, prompts, self.with_attention)

    def early_text(self, ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """See the base class."""
        prompts = () if self.prompts is None else self.prompts.text()
        return self.text(ids_BL, lengths_B, prompts, skip=self.early_blocks).tokens

    def blocks(self) -> Iterator[nn.Module]:
        """Those of the image tower, then those of the text tower."""
        for tower in (self.visual, self.text):
            yield from tower.transformer.resblocks

    def text_blocks(self) -> Iterator[nn.Module]:
        """Those of the text tower."""
        yield from self.text.transformer.resblocks

    def pixel_layer(self) -> nn.Module:
        """The convolution over patches."""
        return self.visual.conv1


_TEXT_PARTS = ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection")
_EXTRAS = ("input_resolution", "context_length", "vocab_size", "logit_scale", "logit_bias", "attn_mask")
"""last parts of keys beside the weights of the towers"""


def clip_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's and open_clip's key names to ours (the text tower's move under ``text.``), half precision to float32.

    The wrapper that distributed training puts before every name (``module.``) is dropped.
    """
    ours = {}
    for key, value in state.items():
        parts = key.removeprefix("module.").split(".")
        if parts[-1] in _EXTRAS:
            continue
        name = ".".join(["text", *parts] if parts[0] in _TEXT_PARTS else parts)
        name = re.sub(r"\.in_proj_(weight|bias)$", r".in_proj.\1", name)
        ours[name] = value.float() if value.is_floating_point() else value
    return ours
