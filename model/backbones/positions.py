"""Position tables for other inputs than they were trained with: another grid of patches, longer texts.

Shape letters: L positions, W width, R rows, C columns.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.backbones.spec import BackboneOptions
from utils import UserError

KEPT = 20
"""positions that ``keep20`` leaves alone"""


def resize_positions(positions_LW: Tensor, grid: tuple[int, int], has_class: bool = True) -> Tensor:
    """Position embeddings of a square image resized to a grid of (rows, columns), bilinear.

    With a class position, the first of the L, that one is kept.
    """
    first = int(has_class)
    if positions_LW.shape[0] == grid[0] * grid[1] + first and grid[0] == grid[1]:
        return positions_LW
    side = round((positions_LW.shape[0] - first) ** 0.5)
    if side * side + first != positions_LW.shape[0]:
        others = " and a class position" if has_class else ""
        raise UserError(f"{positions_LW.shape[0]} image positions are not a square grid{others}")
    grid_1WRC = positions_LW[first:].T.reshape(1, -1, side, side)
    resized_1WRC = F.interpolate(grid_1WRC, size=grid, mode="bilinear", align_corners=False)
    return torch.cat([positions_LW[:first], resized_1WRC.flatten(2)[0].T])


def text_positions(own: int, options: BackboneOptions) -> int:
    """How many positions a text tower with ``own`` ones gets for ``--text_length``.

    Raises:
        UserError: it needs more, and no ``--text_stretch`` or one that does not reach so far.
    """
    length, rule = options.text_length or own, options.text_stretch
    if length <= own:
        return own
    if rule is None:
        raise UserError(
            f"--text_length {length}: the text tower takes at most {own} tokens; --text_stretch linear or keep20 "
            "stretches its table of positions"
        )
    most = KEPT + 4 * (own - KEPT)
    if rule == "keep20" and length > most:
        raise UserError(
            f"--text_length {length}: --text_stretch keep20 makes at most {max(most, own)} of the text tower's {own} "
            "positions; use --text_stretch linear"
        )
    return length


def stretch_positions(positions_LW: Tensor, length: int, rule: str | None) -> Tensor:
    """A text tower's position embeddings, stretched to ``length`` of them; the same where there are as many.

    ``linear``: the first and the last are kept, those between interpolated (Cao et al., AAAI 2024, TBPS-CLIP).
    ``keep20``: the first 20 are kept, because most were trained on them; the others are stretched 4 times and as many
    as needed are taken (Zhang et al., ECCV 2024, Long-CLIP, section 3.1). Beyond the last it extrapolates.
    """
    if length == len(positions_LW):
        return positions_LW
    if rule == "linear":
        inner_1WL = positions_LW[1:-1].T[None]
        inner_1WL = F.interpolate(inner_1WL, size=length - 2, mode="linear", align_corners=False)
        return torch.cat([positions_LW[:1], inner_1WL[0].T, positions_LW[-1:]])
    place_L = torch.arange(length, dtype=positions_LW.dtype)
    place_L = torch.where(place_L < KEPT, place_L, KEPT + (place_L - KEPT) / 4)
    before_L = place_L.long().clamp(max=len(positions_LW) - 2)
    return torch.lerp(positions_LW[before_L], positions_LW[before_L + 1], (place_L - before_L)[:, None])
