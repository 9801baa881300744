"""The instance memory's loss against a plain loop."""

import torch

from model.losses.instance_memory import multi_positive_loss


def test_every_row_of_the_identity_counts():
    torch.manual_seed(0)
    logits, own, rows = torch.randn(3, 5), torch.tensor([0, 2, 1]), torch.tensor([0, 1, 2, 0, 1])
    terms = [
        -torch.log(sum(logits[b, r].exp() for r in range(5) if rows[r] == own[b]) / logits[b].exp().sum() + 1e-8)
        for b in range(3)
    ]
    torch.testing.assert_close(multi_positive_loss(logits, own, rows), torch.stack(terms).mean())
