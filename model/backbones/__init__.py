"""Backbones by the root of their weights' names in checkpoints, which is also a prefix of ``--pretrain_choice``."""

from model.backbones.architecture import PREFIX, architecture_of
from model.backbones.clip import CLIP
from model.backbones.siglip import SigLIP
from model.backbones.spec import Backbone, BackboneOptions

BACKBONES: dict[str, type[Backbone]] = {
    "clip": CLIP,
    "siglip": SigLIP,
}


def load_backbone(options: BackboneOptions) -> Backbone:
    """The towers that ``--pretrain_choice`` names.

    ``NAME:REST`` is for the backbone NAME, ``open_clip:...`` for the one that the configuration describes, anything
    else for CLIP.
    """
    choice = options.pretrain_choice
    name, _, rest = choice.partition(":")
    if name in BACKBONES and rest:
        return BACKBONES[name].load(rest, options)
    family = architecture_of(choice).family if choice.startswith(PREFIX) else CLIP.name
    return BACKBONES[family].load(choice, options)
