"""The loss cons: itc1 of other views (DGCMIA: Zhang et al., 2025)."""

from model.losses.itc1 import ITC1


class Cons(ITC1):
    """Consistency: the same on the augmented image and the half-masked caption."""

    needs = ("images_aug", "caption_ids_aug")
