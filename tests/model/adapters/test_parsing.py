"""PHP's parsing: gradients, errors, counters, rebuilding from a checkpoint."""

import dataclasses

import pytest
import torch

import train
from model.adapters.experts import load_balance
from model.adapters.parsing import Parsing, ParsingOptions
from model.backbones import load_backbone
from model.backbones.spec import BackboneOptions, Encoded
from model.build import build_retriever
from model.checkpoints.restore import restore_encoder
from model.retriever import Retriever
from utils import UserError

SMALL = ParsingOptions(cnum=3, num_experts=5, topk=2, reduction=4, moe_layers=2, moe_heads=4)


def test_every_parameter_of_the_full_model_gets_a_gradient():
    parsing = Parsing(dataclasses.replace(SMALL, topk=5), 16).train()
    tokens = torch.randn(4, 9, 16)
    encoded = parsing(Encoded(tokens, tokens[:, 0], torch.zeros(())), "text")
    (encoded.pooled.square().sum() + load_balance(encoded.routing)).backward()
    assert [name for name, parameter in parsing.named_parameters() if parameter.grad is None] == []


def build(*flags: str) -> Retriever:
    options = train.read_flags(["--pretrain_choice", "tiny", "--img_size", "32", "32", *flags])
    return build_retriever(load_backbone(options.get(BackboneOptions)), options.get, ids=5, images=6, pairs=8)


def test_wrong_flags_are_named():
    with pytest.raises(UserError, match="--php_variant crfm: has no experts for the loss aux"):
        build("--loss_names", "aux", "--php_variant", "crfm")
    with pytest.raises(UserError, match="--moe_heads 7: does not divide the embedding width 64"):
        build("--loss_names", "aux", "--moe_heads", "7")
    with pytest.raises(UserError, match="--reduction 65: above the embedding width 64"):
        build("--loss_names", "aux", "--reduction", "65")
    with pytest.raises(UserError, match="--topk 5: there are only --num_experts 4"):
        build("--loss_names", "aux", "--topk", "5")


def restore(model: Retriever, options: ParsingOptions) -> Retriever:
    backbone = BackboneOptions(img_size=(32, 32))
    return restore_encoder(model.state_dict(), backbone, "best.pth", parsing_options=options)[0].eval()


@pytest.mark.parametrize("variant", ["crfm", "efp", "full"])
def test_a_checkpoint_rebuilds_its_variant_and_sizes(variant: str):
    sizes = ("--cnum", "3", "--num_experts", "5", "--reduction", "3", "--moe_layers", "2")
    trained = build("--loss_names", "itc", "--php_variant", variant, *sizes).eval()
    images, ids, lengths = torch.randn(2, 3, 32, 32), torch.randint(1, 99, (2, 77)), torch.tensor([77, 12])
    restored = restore(trained, ParsingOptions())
    with torch.no_grad():
        torch.testing.assert_close(restored.encode_image(images).pooled, trained.encode_image(images).pooled)
        torch.testing.assert_close(restored.encode_text(ids, lengths).pooled, trained.encode_text(ids, lengths).pooled)


def test_a_variant_that_was_not_trained_is_refused():
    trained = build("--loss_names", "itc", "--php_variant", "crfm")
    with pytest.raises(UserError, match="--php_variant full: no efp weights in best.pth; choose from base, crfm"):
        restore(trained, ParsingOptions(php_variant="full"))


def test_expert_use_is_counted_per_modality():
    model = build("--loss_names", "itc+aux", "--moe_layers", "2").eval()
    with torch.no_grad():
        model.encode_image(torch.randn(3, 3, 32, 32))
        model.encode_text(torch.randint(1, 99, (5, 77)), torch.full((5,), 77))
    use = model.expert_use()
    assert {name: counts.sum(dim=1).tolist() for name, counts in use.items()} == {
        "image": [3 * 9 * 2] * 2,
        "text": [5 * 9 * 2] * 2,
    }
    model.train()(
        {
            "images": torch.randn(3, 3, 32, 32),
            "caption_ids": torch.randint(1, 99, (3, 77)),
            "caption_ids_lengths": torch.tensor([77, 12, 5]),
            "pids": torch.arange(3),
        }
    )
    assert model.expert_use()["training"].sum(dim=1).tolist() == [2 * 3 * 9 * 2] * 2
    assert torch.equal(model.expert_use()["image"], use["image"])
