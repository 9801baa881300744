"""PHP's parts: the mixture against a loop over tokens, weights, errors, counters, rebuilding from a checkpoint."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from model.checkpoints.restore_encoder import restore_encoder

import train
from analysis.method_sections import expert_table
from model.adapters.experts import MixtureOfExperts, load_balance
from model.adapters.parsing import Parsing, ParsingOptions
from model.backbones.clip import load_clip
from model.backbones.spec import BackboneOptions, Encoded
from model.build import LossOptions, TrainCounts, build_retriever
from model.retriever import Retriever

SMALL = ParsingOptions(cnum=3, num_experts=5, topk=2, reduction=4, moe_layers=2, moe_heads=4)


def mixture(topk: int = 2) -> MixtureOfExperts:
    torch.manual_seed(0)
    moe = MixtureOfExperts(width=16, reduction=4, experts=5, topk=topk)
    with torch.no_grad():
        for parameter in moe.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return moe.eval()


def one_by_one(moe: MixtureOfExperts, tokens: torch.Tensor, task: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The definition, token by token and expert by expert."""
    parts, counts = moe.experts, torch.zeros(len(moe.expert_count), dtype=torch.long)
    out = torch.empty_like(tokens)
    for row, x in enumerate(tokens):
        logits = (1 - moe.alpha) * moe.input_gate(x) + moe.alpha * moe.task_gate(task)
        chosen = logits.argsort(descending=True)[: moe.topk].tolist()
        weights = torch.tensor([logits[e] for e in chosen]).softmax(0)
        out[row] = 0
        for weight, e in zip(weights, chosen, strict=True):
            hidden = F.layer_norm(x, x.shape, parts.norm.weight[e], parts.norm.bias[e])
            hidden = F.gelu(F.linear(hidden, parts.down.weight[e], parts.down.bias[e]))
            out[row] += weight * (x + F.linear(hidden, parts.up.weight[e], parts.up.bias[e]))
            counts[e] += 1
    return out, counts


@pytest.mark.parametrize("topk", [1, 2, 5])
@torch.no_grad()
def test_the_dense_mixture_equals_its_definition(topk: int):
    moe, task = mixture(topk), torch.randn(16)
    tokens = torch.randn(3, 4, 16)
    routed = moe(tokens, task)
    expected, counts = one_by_one(moe, tokens.flatten(0, 1), task)
    torch.testing.assert_close(routed.out.flatten(0, 1), expected, atol=1e-6, rtol=1e-5)
    assert routed.routing_2E[1].tolist() == counts.tolist()


def test_load_balance_is_least_when_all_experts_are_used_alike():
    even, one = torch.full((4,), 2.0), torch.tensor([8.0, 0.0, 0.0, 0.0])
    assert load_balance(torch.stack([even, even])[None]).item() == pytest.approx(1 / 4)
    assert load_balance(torch.stack([one, one])[None]).item() == pytest.approx(1.0)
    assert load_balance(torch.stack([torch.stack([even, even]), torch.stack([one, one])])).item() == pytest.approx(1.25)


def test_a_fresh_mixture_is_the_identity():
    moe = MixtureOfExperts(width=16, reduction=4, experts=5, topk=2).eval()
    tokens = torch.randn(7, 16)
    torch.testing.assert_close(moe(tokens, torch.randn(16)).out, tokens)


def test_dropout_acts_in_training_only():
    moe, tokens, task = mixture(), torch.randn(7, 16), torch.randn(16)
    assert torch.equal(moe(tokens, task).out, moe(tokens, task).out)
    moe.train()
    assert not torch.equal(moe(tokens, task).out, moe(tokens, task).out)


def test_every_parameter_of_the_full_model_gets_a_gradient():
    parsing = Parsing(dataclasses.replace(SMALL, topk=5), 16).train()
    tokens = torch.randn(4, 9, 16)
    encoded = parsing(Encoded(tokens, tokens[:, 0], torch.zeros(())), "text")
    (encoded.pooled.square().sum() + load_balance(encoded.routing)).backward()
    assert [name for name, parameter in parsing.named_parameters() if parameter.grad is None] == []


def build(*flags: str) -> Retriever:
    options = train.read_flags(["--pretrain_choice", "tiny", "--img_size", "32", "32", *flags])
    loss_names = options.get(LossOptions).loss_names
    counts = TrainCounts(ids=5, pairs=8, images=6)
    return build_retriever(load_clip(options.get(BackboneOptions)), loss_names, options.get, counts)


def weights(model: Retriever) -> dict[str, float]:
    return {name: head.weight for name, head in model.heads.items()}


def test_php_brings_its_own_loss_weights_and_flags_win():
    assert weights(build("--loss_names", "itc+mlm+id")) == {"itc": 1.0, "mlm": 1.0, "id": 1.0}
    php = weights(build("--loss_names", "sdm+itc+mlm+id+aux"))
    assert php == {"sdm": 1.0, "itc": 5.0, "mlm": 0.5, "id": 1.0, "aux": 3.0}
    given = ("--itc_loss_weight", "2", "--mlm_loss_weight", "1", "--aux_factor", "0.5")
    assert weights(build("--loss_names", "itc+mlm+aux", *given)) == {"itc": 2.0, "mlm": 1.0, "aux": 0.5}
    assert weights(build("--loss_names", "itc", "--php_variant", "crfm")) == {"itc": 5.0}


def test_wrong_flags_are_named():
    with pytest.raises(ValueError, match="--php_variant crfm: has no experts for the loss aux"):
        build("--loss_names", "aux", "--php_variant", "crfm")
    with pytest.raises(ValueError, match="--moe_heads 7: does not divide the embedding width 64"):
        build("--loss_names", "aux", "--moe_heads", "7")
    with pytest.raises(ValueError, match="--reduction 65: above the embedding width 64"):
        build("--loss_names", "aux", "--reduction", "65")
    with pytest.raises(ValueError, match="--topk 5: there are only --num_experts 4"):
        build("--loss_names", "aux", "--topk", "5")
    with pytest.raises(ValueError, match="--cnum 0: expected at least 1"):
        ParsingOptions(cnum=0)


def restore(model: Retriever, options: ParsingOptions) -> Retriever:
    backbone = BackboneOptions(img_size=(32, 32))
    return restore_encoder(model.state_dict(), backbone, "best.pth", parsing_options=options)[0].eval()


@pytest.mark.parametrize("variant", ["crfm", "efp", "full"])
def test_a_checkpoint_rebuilds_its_variant_and_sizes(variant: str):
    sizes = ("--cnum", "3", "--num_experts", "5", "--reduction", "3", "--moe_layers", "2")
    trained = build("--loss_names", "itc", "--php_variant", variant, *sizes).eval()
    images, ids = torch.randn(2, 3, 32, 32), torch.randint(1, 99, (2, 77))
    restored = restore(trained, ParsingOptions())
    with torch.no_grad():
        torch.testing.assert_close(restored.encode_image(images).pooled, trained.encode_image(images).pooled)
        torch.testing.assert_close(restored.encode_text(ids).pooled, trained.encode_text(ids).pooled)


def test_a_variant_that_was_not_trained_is_refused():
    trained = build("--loss_names", "itc", "--php_variant", "crfm")
    with pytest.raises(ValueError, match="--php_variant full: no efp weights in best.pth; choose from base, crfm"):
        restore(trained, ParsingOptions(php_variant="full"))


def test_expert_use_is_counted_per_modality():
    model = build("--loss_names", "itc+aux", "--moe_layers", "2").eval()
    with torch.no_grad():
        model.encode_image(torch.randn(3, 3, 32, 32))
        model.encode_text(torch.randint(1, 99, (5, 77)))
    use = model.expert_use()
    assert {name: counts.sum(dim=1).tolist() for name, counts in use.items()} == {
        "image": [3 * 9 * 2] * 2,
        "text": [5 * 9 * 2] * 2,
    }
    model.train()(
        {
            "images": torch.randn(3, 3, 32, 32),
            "caption_ids": torch.randint(1, 99, (3, 77)),
            "pids": torch.arange(3),
        }
    )
    assert model.expert_use()["training"].sum(dim=1).tolist() == [2 * 3 * 9 * 2] * 2
    assert torch.equal(model.expert_use()["image"], use["image"])


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
