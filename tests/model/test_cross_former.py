"""What the cross former leaves out where only some positions are asked for changes none of them."""

import pytest
import torch

from model.cross_former import CrossFormer, CrossOptions


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("keep_input_only", [False, True])
def test_first_and_at_are_positions_of_forward(depth: int, keep_input_only: bool):
    torch.manual_seed(0)
    cross = CrossFormer(CrossOptions(cmt_depth=depth), 128)
    assert len(list(cross.blocks())) == depth
    for block in cross.blocks():
        block.keep_input_only = keep_input_only
    text, image = torch.randn(3, 7, 128), torch.randn(3, 5, 128)
    positions = torch.tensor([0, 6, 7, 20])
    whole = cross(text, image)
    chosen = {
        "first": (cross.first(text, image), whole[:, 0]),
        "at": (cross.at(text, image, positions), whole.flatten(0, 1)[positions]),
    }
    for name, (ours, expected) in chosen.items():
        torch.testing.assert_close(ours, expected, msg=name)
        grads = [
            torch.autograd.grad(x.square().sum(), [*cross.parameters()], retain_graph=True) for x in (ours, expected)
        ]
        torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["first", "at"])
def test_the_last_block_keeps_its_input_only_too(method: str):
    cross, kept = CrossFormer(CrossOptions(cmt_depth=1), 128), []
    (block,) = cross.blocks()
    inputs = [torch.randn(3, 7, 128), torch.randn(3, 5, 128), *([torch.arange(21)] if method == "at" else [])]
    for block.keep_input_only in (False, True):
        sizes = {}

        def pack(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = getattr(cross, method)(*inputs)
        kept.append(sum(sizes.values()))
        out.sum().backward()
    assert kept[1] < kept[0]
