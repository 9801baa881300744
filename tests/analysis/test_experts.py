"""How the log shows PHP's experts."""

import torch

from analysis.experts import expert_table


def test_expert_table_shows_counts_and_entropy():
    text = expert_table({"image": torch.tensor([[2, 2], [4, 0]]), "text": torch.tensor([[0, 0], [1000, 1000]])})
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.pretty().get_string().splitlines()[3:-1]
    ]
    assert rows == [
        ["0", "image", "2", "2", "0.693"],
        ["0", "text", "0", "0", "0.000"],
        ["1", "image", "4", "0", "0.000"],
        ["1", "text", "1,000", "1,000", "0.693"],
    ]
