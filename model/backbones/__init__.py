"""Backbones by the prefix that ``--pretrain_choice`` gives them, which is also the root of their weights' names."""

from model.backbones.clip import CLIP
from model.backbones.spec import Backbone, BackboneOptions

BACKBONES: dict[str, type[Backbone]] = {
    "clip": CLIP,
}


def load_backbone(options: BackboneOptions) -> Backbone:
    """The towers that ``--pretrain_choice`` names: ``NAME:REST`` for the backbone NAME, anything else for CLIP."""
    name, _, rest = options.pretrain_choice.partition(":")
    if name in BACKBONES and rest:
        return BACKBONES[name].load(rest, options)
    return CLIP.load(options.pretrain_choice, options)
