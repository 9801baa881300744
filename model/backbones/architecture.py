"""What the shapes of weights do not show: activation, attention heads, pixel statistics, tokenizer.

For OpenAI's CLIP this is fixed; for others it comes from open_clip's own model configurations. Those that the
open_clip_torch package ships are located, not imported (that takes seconds).
"""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from model.backbones.sizes import ClipSizes, TowerForm
from model.backbones.spec import BackboneOptions
from model.backbones.towers import heads_of
from utils import UserError

PREFIX = "open_clip:"
"""of a ``--pretrain_choice`` that names a configuration and a file: ``open_clip:NAME:FILE``"""
BESIDE = "open_clip_config.json"
"""the configuration that a download from a model hub brings along"""

_OPENAI_PIXELS = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
PIXELS = {"clip": _OPENAI_PIXELS, "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}
"""value of ``--pixel_statistics`` to mean and standard deviation of R, G and B"""
_SIGLIP_PIXELS = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
_IMAGE_HEADS = {"vit_base": 12, "vit_large": 16, "vit_so400m": 16, "vit_giantopt": 16}
"""attention heads by the start of the name that timm gives SigLIP's image towers"""
_UNDERSTOOD = {
    "": {"embed_dim", "quick_gelu", "custom_text", "init_logit_scale", "init_logit_bias", "vision_cfg", "text_cfg"},
    "vision_cfg": {
        *("image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio", "timm_model_name"),
        *("timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias"),
        *("output_tokens", "patch_dropout", "timm_drop", "timm_drop_path"),  # change nothing, or training there only
    },
    "text_cfg": {
        *("context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "hf_tokenizer_name"),
        *("tokenizer_kwargs", "no_causal_mask", "pool_type", "eos_id", "proj_bias", "norm_kwargs", "act_kwargs"),
        "output_tokens",
    },
}
"""keys of a configuration, by section, that are read here or change nothing"""
_DEFAULTS = {"pool_type": "tok", "pos_embed_type": "learnable", "proj_type": "linear"}


@dataclass(frozen=True)
class Architecture:
    """A family of towers with everything about them that weights do not show."""

    name: str
    """as ``--pretrain_choice`` has it"""
    family: str = "clip"
    """key in BACKBONES"""
    image: TowerForm = TowerForm()
    text: TowerForm = TowerForm()
    pixel_mean: tuple[float, ...] = _OPENAI_PIXELS[0]
    pixel_std: tuple[float, ...] = _OPENAI_PIXELS[1]
    eval_filter: str = "bilinear"
    """what images are resized with in evaluation"""
    sizes: Mapping[str, Any] | None = None
    """what the weights must show, by field of ClipSizes; None: anything"""
    tokenizer_name: str | None = None
    """where the tokenizer is published; None: CLIP's own"""
    canonical_text: bool = False
    """whether punctuation and capitals are removed before tokenising"""
    pads_with_end: bool = False
    """whether captions are padded with the end token"""

    def check(self, sizes: ClipSizes, source: str, trained: bool = False) -> None:
        """Refuse weights of another architecture.

        ``trained``: they come from a checkpoint, whose position tables may have been resized.

        Raises:
            UserError: names ``source`` and what differs.
        """
        resized = ("image_size", "context_length") if trained else ()
        wrong = [
            f"{name} is {getattr(sizes, name)} in the file, {value} in the configuration"
            for name, value in (self.sizes or {}).items()
            if getattr(sizes, name) != value and name not in resized
        ]
        for form, width in ((self.image, sizes.vision_width), (self.text, sizes.text_width)):
            if width % (heads := form.heads or heads_of(width)):
                wrong.append(f"a width of {width} cannot be divided among {heads} attention heads")
        if wrong:
            names = ", ".join(alike(sizes))
            known = f"\n  models of open_clip with these sizes: {names}" if names and not trained else ""
            details = "\n  ".join(wrong)
            raise UserError(f"{source}: weights of another architecture than {self.name}\n  {details}{known}")

    def with_pixels(self, options: BackboneOptions) -> "Architecture":
        """The same, but for images that are resized and normalised as the flags say."""
        mean, std = PIXELS.get(options.pixel_statistics, (self.pixel_mean, self.pixel_std))
        return replace(self, pixel_mean=mean, pixel_std=std, eval_filter=options.eval_filter)

    def same_function(self, other: "Architecture") -> bool:
        """Whether equal weights give equal features in both."""
        return all(
            getattr(self, field.name) == getattr(other, field.name)
            for field in fields(self)
            if field.name not in ("name", "sizes", "tokenizer_name")
        )


OPENAI = Architecture("OpenAI's CLIP")
"""QuickGELU, 64 channels per head"""


def split_choice(choice: str) -> tuple[str, str]:
    """Configuration and file of ``open_clip:NAME:FILE``. Raises UserError where one is missing."""
    name, _, file = choice.removeprefix(PREFIX).partition(":")
    if not name or not file:
        raise UserError(
            f"--pretrain_choice {choice}: expected open_clip:NAME:FILE, where NAME is one of open_clip's models "
            f"(ViT-B-16, ViT-L-14-quickgelu, ...) or an {BESIDE}, and FILE the weights"
        )
    return name, file


def architecture_of(choice: str) -> Architecture:
    """The architecture that ``--pretrain_choice`` names; OpenAI's without the prefix ``open_clip:``.

    Raises:
        UserError: there is no such configuration, or it asks for what is not built here.
    """
    return read_architecture(split_choice(choice)[0]) if choice.startswith(PREFIX) else OPENAI


def config_folder() -> Path:
    """Where the open_clip_torch package keeps its model configurations."""
    spec = find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise UserError(f"--pretrain_choice {PREFIX}NAME:FILE: needs the package open_clip_torch, which is missing")
    return Path(spec.origin).with_name("model_configs")


def read_architecture(name: str) -> Architecture:
    """A configuration of open_clip by its name, or from a file with one. Raises UserError."""
    source = f"--pretrain_choice {PREFIX}{name}:FILE"
    path = Path(name) if name.endswith(".json") else config_folder() / f"{name}.json"
    if not path.is_file():
        if name.endswith(".json"):
            raise UserError(f"{source}: {name} does not exist; it holds the model configuration")
        near = difflib.get_close_matches(name, _supported(), n=5, cutoff=0)
        raise UserError(f"{source}: open_clip has no model {name}; similar names are {', '.join(near)}")
    return _parsed(name, _read_json(path, source), source)


def alike(sizes: ClipSizes) -> list[str]:
    """Names of those of open_clip's models whose weights have these sizes."""
    found = []
    for name in _supported():
        wanted = read_architecture(name).sizes or {}
        if all(getattr(sizes, key) == value for key, value in wanted.items()):
            found.append(name)
    return found


@cache
def _supported() -> tuple[str, ...]:
    names = []
    for path in config_folder().glob("*.json"):
        try:
            read_architecture(path.stem)
        except UserError:
            continue
        names.append(path.stem)
    return tuple(sorted(names))


def _read_json(path: Path, source: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{source}: {path} cannot be read as json ({error})") from None
    model = content.get("model_cfg", content) if isinstance(content, dict) else None
    if not isinstance(model, dict) or not all(isinstance(model.get(key), dict) for key in ("vision_cfg", "text_cfg")):
        raise UserError(f"{source}: {path} is no model configuration of open_clip, which has vision_cfg and text_cfg")
    return {**model, "preprocess_cfg": content.get("preprocess_cfg") or {}}


def _parsed(name: str, config: Mapping[str, Any], source: str) -> Architecture:
    vision, text, pixels = config["vision_cfg"], config["text_cfg"], config["preprocess_cfg"]
    siglip = vision.get("timm_pool") == "map" and str(vision.get("timm_model_name")).startswith(tuple(_IMAGE_HEADS))
    if problem := _unsupported(config, siglip):
        raise UserError(f"{source}: {problem} is not supported; CLIP's vision transformers and SigLIP are")
    try:
        mean, std = _SIGLIP_PIXELS if siglip else _OPENAI_PIXELS
        published = text.get("hf_tokenizer_name")
        return Architecture(
            name=name,
            family="siglip" if siglip else "clip",
            image=_siglip_image(vision) if siglip else _clip_image(vision, config.get("quick_gelu", False)),
            text=_text(text, config.get("quick_gelu", False)),
            pixel_mean=tuple(pixels.get("mean", mean)),
            pixel_std=tuple(pixels.get("std", std)),
            sizes=_sizes(config, siglip),
            tokenizer_name=published,
            canonical_text=(text.get("tokenizer_kwargs") or {}).get("clean") == "canonicalize",
            pads_with_end=siglip and "SigLIP2" not in str(published),  # of the T5 vocabularies of the first SigLIP
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{source}: the model configuration lacks or misstates {error}") from None


def _unsupported(config: Mapping[str, Any], siglip: bool) -> str:
    """The first thing in a configuration that these towers do not do, or ""."""
    for section, known in _UNDERSTOOD.items():
        for key, value in (config[section] if section else config).items():
            ignored = key in known or key == "preprocess_cfg" or _DEFAULTS.get(key) == value
            if not ignored and value not in (None, False):
                return f"{section or 'the model'}'s {key} {value}"
    vision, text = config["vision_cfg"], config["text_cfg"]
    pool = text.get("pool_type", "argmax")
    kwargs = text.get("tokenizer_kwargs") or {}
    wrong = {
        f"vision_cfg's timm_model_name {vision.get('timm_model_name')}": not siglip and "timm_model_name" in vision,
        f"vision_cfg's timm_proj {vision.get('timm_proj')}": siglip and vision.get("timm_proj") != "none",
        f"vision_cfg's layers {vision.get('layers')}": isinstance(vision.get("layers"), list),
        f"text_cfg's pool_type {pool}": pool not in (("last",) if siglip else ("argmax", "eos")),
        "text_cfg's no_causal_mask": bool(text.get("no_causal_mask")) != siglip,
        "text_cfg's proj_bias": bool(text.get("proj_bias")) != siglip,
        f"text_cfg's tokenizer_kwargs {kwargs}": kwargs not in ({}, {"clean": "canonicalize"}),
    }
    return next((problem for problem, there in wrong.items() if there), "")


def _clip_image(vision: Mapping[str, Any], quick_gelu: bool) -> TowerForm:
    heads = vision["width"] // vision.get("head_width", 64)
    return TowerForm(heads=heads, activation="quick_gelu" if quick_gelu else "gelu")


def _siglip_image(vision: Mapping[str, Any]) -> TowerForm:
    size = vision["timm_model_name"].partition("_patch")[0]
    return TowerForm(_IMAGE_HEADS[size], "gelu_tanh" if size == "vit_giantopt" else "gelu", 1e-6)


def _text(text: Mapping[str, Any], quick_gelu: bool) -> TowerForm:
    tanh = (text.get("act_kwargs") or {}).get("approximate") == "tanh"
    activation = "quick_gelu" if quick_gelu else "gelu_tanh" if tanh else "gelu"
    return TowerForm(text.get("heads", 8), activation, (text.get("norm_kwargs") or {}).get("eps", 1e-5))


def _sizes(config: Mapping[str, Any], siglip: bool) -> dict[str, Any]:
    """What the configuration says about the weights, by field of ClipSizes."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    sizes = {
        "embed_dim": config["embed_dim"],
        "text_width": text.get("width", 512),
        "text_layers": text.get("layers", 12),
        "vocab_size": text.get("vocab_size", 49408),
        "context_length": text.get("context_length", 77),
    }
    if not siglip:  # whose image tower is described by timm
        keys = {"patch_size": ("patch_size", 16), "vision_width": ("width", 768), "vision_layers": ("layers", 12)}
        sizes |= {field: vision.get(key, default) for field, (key, default) in keys.items()}
        side = vision.get("image_size", 224) // sizes["patch_size"] * sizes["patch_size"]
        sizes["image_size"] = (side, side)
    return sizes
