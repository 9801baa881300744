"""Masked language modelling through the cross former: IRRA's implicit relation reasoning.

Shape letters: B batch, L text positions, D embedding, M masked positions of this process's share, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from model.backbones.activations import QuickGELU
from model.batch_views import BatchViews
from model.losses.base import LossHead, LossTerm, Sizes, mean_classification
from utils.options import opt


@dataclass(frozen=True)
class MLMOptions:
    """Flags of the mlm loss."""

    mlm_loss_weight: float | None = opt(None, "weight of the mlm loss [1; 0.5 with the loss aux]")


class MLM(LossHead):
    """Predict masked words from the image and the rest of the sentence (Jiang & Ye, CVPR 2023, eq. 8).

    The head runs on masked positions only; the loss does not look at the others.
    """

    Options = MLMOptions
    needs = ("images", "mlm_ids", "mlm_labels", "mlm_positions")
    padded = ("mlm_ids",)
    parts = ("cross_former",)
    roles = {"": "head"}
    weight_flag = "mlm_loss_weight"

    def __init__(self, options: MLMOptions, sizes: Sizes) -> None:
        super().__init__(options, sizes)
        width = sizes.embed_dim
        self.dense = nn.Linear(width, width)
        self.gelu = QuickGELU()
        self.ln = nn.LayerNorm(width)
        self.fc = nn.Linear(width, sizes.vocab_size)
        nn.init.normal_(self.dense.weight, std=(2 * width) ** -0.5)

    def start_from(self, parts: Mapping[str, nn.Module]) -> None:
        """Initialise what depends on the depth of the cross former."""
        nn.init.normal_(self.fc.weight, std=parts["cross_former"].residual_std)

    def forward(self, views: BatchViews) -> LossTerm:
        """Mean cross-entropy over masked positions, in nats, with the share of words guessed right; 0 without any."""
        positions_M = views.share("mlm_positions")
        target_M = views.share("mlm_labels").flatten()[positions_M]
        with views.precision():
            tokens = views.text("mlm_ids").tokens, views.image().tokens
            hidden_MD = views.parts["cross_former"].at(*tokens, positions_M)
            logits_MV = self.fc(self.ln(self.gelu(self.dense(hidden_MD))))
        loss, accuracy = mean_classification(views, logits_MV.float(), target_M)
        return LossTerm(loss, {"acc": accuracy})
