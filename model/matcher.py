"""The cross encoder of a trained run, for testing: tells how well a caption and an image belong together.

Shape letters: P pairs of caption and image, L text positions, M image tokens, D embedding.
"""

from torch import Tensor, nn

from model.checkpoints.archives import layers_in, load_strict
from model.checkpoints.restore import RestoredRun
from model.cross_former import CrossFormer, CrossOptions
from model.losses.base import Sizes
from model.losses.itm import ITM, ITMOptions
from utils import UserError


class Matcher(nn.Module):
    """Cross former and matching head."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.cross_former = CrossFormer(CrossOptions(cmt_depth=depth), width)
        self.itm = ITM(ITMOptions(), Sizes(width, 0, 0, 0, 0))

    def forward(self, text_PLD: Tensor, image_PMD: Tensor) -> Tensor:
        """Tokens of captions (with their padding, as in training) and images to matching scores (P,), float32.

        The score is the log odds of "belongs together": in the order of the probability, but without its ties near 1.
        """
        logits_P2 = self.itm.match(self.cross_former, text_PLD, image_PMD)
        return logits_P2[:, 1] - logits_P2[:, 0]

    @property
    def temperature(self) -> float:
        """By which cosines were divided when the negatives of training were drawn."""
        return self.itm.temperature().item()


def restore_matcher(run: RestoredRun) -> tuple[Matcher, set[str]]:
    """The matcher in a run's checkpoint, on the model's device, and the keys that it uses.

    Raises:
        UserError: the run has no matching head, or its weights do not fit.
    """
    source = str(run.checkpoint)
    if not any(key.startswith("heads.itm.") for key in run.state):
        raise UserError(
            f"{source}: has no matching head to rerank with; only runs with itm among their --loss_names have one. "
            "Test it without --rerank"
        )
    used = [key for key in run.state if key.startswith(("parts.cross_former.", "heads.itm."))]
    weights = {key.partition(".")[2]: run.state[key] for key in used}
    depth = layers_in(weights, "cross_former.transformer.resblocks.")
    matcher = Matcher(run.model.backbone.spec.embed_dim, max(depth, 1))
    load_strict(matcher, weights, source)
    return matcher.to(run.model.precision.device).eval(), set(used)
