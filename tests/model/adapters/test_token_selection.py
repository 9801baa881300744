"""RDE's second embedding against plain loops, and how it sits in the model."""

import pytest
import torch
import torch.nn.functional as F

import train
from model.adapters.token_selection import TokenNorm, TokenSelection, TokenSelectionOptions
from model.backbones import load_backbone
from model.backbones.spec import BackboneOptions, Encoded
from model.build import build_retriever
from model.checkpoints.finetune import start_from
from model.checkpoints.restore import restore_encoder
from model.retriever import Retriever
from utils import UserError

FLAGS = ["--pretrain_choice", "tiny", "--img_size", "64", "32", "--select_ratio", "0.3", "--loss_names", "TAL"]
GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(3, 3, 64, 32, generator=GENERATOR)
LENGTHS = torch.tensor([2, 6, 40])
IDS = torch.randint(1, 49405, (3, 77), generator=GENERATOR)
for row, end in enumerate(LENGTHS.tolist()):
    IDS[row, 0], IDS[row, end - 1], IDS[row, end:] = 49406, 49407, 0


def build(*flags: str) -> Retriever:
    torch.manual_seed(1)
    options = train.read_flags([*FLAGS, *flags])
    return build_retriever(load_backbone(options.get(BackboneOptions)), options.get, 5, 6, 12)


def side_by_loops(layers, tokens: list[torch.Tensor]) -> torch.Tensor:
    """The second embedding of one image or caption, token by token."""
    norm, values = layers.norm, []
    for token in tokens:
        unit = token / (token.norm() + 1e-8)
        hidden = layers.hidden(unit)
        hidden = (hidden - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
        values.append(layers.linear(unit) + layers.out(hidden.relu()))
    return torch.stack(values).max(dim=0).values


def randomised(model: Retriever) -> Retriever:
    for layers in (model.token_selection.image, model.token_selection.text):
        for value in (layers.norm.running_mean, layers.norm.weight.data, layers.norm.bias.data):
            value.normal_(generator=GENERATOR)
        layers.norm.running_var.uniform_(0.5, 2.0, generator=GENERATOR)
    return model


@torch.no_grad()
def test_image_against_loops():
    model = randomised(build()).eval()
    encoded = model.encode_image(IMAGES)
    for row in range(3):
        weights = encoded.attention[row].tolist()
        assert sum(weights) == pytest.approx(1.0, abs=1e-5)
        best = sorted(range(1, 9), key=lambda place: -weights[place])[: int(8 * 0.3)]
        expected = side_by_loops(model.token_selection.image, [encoded.tokens[row, place] for place in best])
        torch.testing.assert_close(encoded.selected[row], expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_text_against_loops():
    model = randomised(build()).eval()
    encoded = model.encode_text(IDS, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        weights = encoded.attention[row].tolist()
        words = sorted(range(1, length - 1), key=lambda place: -weights[place])[: int(75 * 0.3)]
        tokens = [encoded.tokens[row, place] for place in words or [length - 1]]  # without words: its end token
        expected = side_by_loops(model.token_selection.text, tokens)
        torch.testing.assert_close(encoded.selected[row], expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_attention_is_that_of_the_last_block():
    model = build().eval()
    seen = {}
    for name, tower in (("image", model.clip.visual), ("text", model.clip.text)):
        block = tower.transformer.resblocks[-1]
        block.ln_1.register_forward_hook(lambda module, inputs, out, name=name: seen.update({name: out}))
    encoded = {"image": model.encode_image(IMAGES), "text": model.encode_text(IDS, LENGTHS)}
    rows = {"image": [0, 0, 0], "text": (LENGTHS - 1).tolist()}
    for name, tower in (("image", model.clip.visual), ("text", model.clip.text)):
        attention = tower.transformer.resblocks[-1].attn
        q, k, _ = attention.in_proj(seen[name]).chunk(3, dim=-1)
        for sample, place in enumerate(rows[name]):
            keys = k[sample, : place + 1] if name == "text" else k[sample]
            expected = torch.zeros(k.shape[1])
            for q_head, k_head in zip(q[sample, place].split(64), keys.split(64, dim=-1), strict=True):
                expected[: len(keys)] += (k_head @ q_head / 8).softmax(dim=0) / attention.heads
            torch.testing.assert_close(encoded[name].attention[sample], expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_frozen_norm_needs_no_padding_and_no_neighbours():
    model = randomised(build()).train()
    assert not model.reads_padding
    whole = model.encode_text(IDS, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = model.encode_text(IDS[row : row + 1, :length], LENGTHS[row : row + 1])
        torch.testing.assert_close(alone.selected[0], whole.selected[row], atol=1e-5, rtol=1e-4)
    assert model.token_selection.text.norm.num_batches_tracked == 0


def test_a_norm_of_the_batch_is_batch_norm():
    torch.manual_seed(0)
    ours, theirs = TokenNorm(6), torch.nn.BatchNorm1d(6)
    ours.of_batch = True
    rows = torch.randn(40, 6, requires_grad=True)
    for norm in (ours.train(), theirs.train()):
        norm.weight.data.copy_(torch.arange(1.0, 7.0))
    torch.testing.assert_close(ours(rows), theirs(rows))
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), buffer)
    (mine,) = torch.autograd.grad((ours(rows) ** 3).sum(), rows)
    (other,) = torch.autograd.grad((theirs(rows) ** 3).sum(), rows)
    torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.eval()(rows), theirs.eval()(rows))


def test_norms_by_flag():
    frozen, batch = build(), build("--tse_norm", "batch")
    assert batch.reads_padding and not frozen.reads_padding
    for model, expected in ((frozen, 0), (batch, 1)):
        model.train().encode_image(IMAGES)
        model.train().encode_text(IDS, LENGTHS)
        assert model.token_selection.text.norm.num_batches_tracked == expected
        model.eval().encode_text(IDS, LENGTHS)
        assert model.token_selection.text.norm.num_batches_tracked == expected


@torch.no_grad()
def test_the_choice_has_no_gradient_and_padding_is_never_chosen_before_words():
    selection: TokenSelection = build().token_selection
    attention = torch.rand(3, 77, generator=GENERATOR)
    attention[1, 1:5] = 0.0  # words that nothing attends to
    rows, counts = selection.text_choice(attention, LENGTHS)
    assert counts.sum(dim=1).tolist() == [1, 4, 22]
    assert rows[0, 0] == 1 and sorted(rows[1, :4].tolist()) == [1, 2, 3, 4]
    assert set(rows[2].tolist()) <= set(range(1, 39))
    shorter, _ = selection.text_choice(attention[:2, :6], LENGTHS[:2])
    assert shorter.shape == (2, 6) and sorted(shorter[1, :4].tolist()) == [1, 2, 3, 4]


def test_gradients_reach_both_embeddings_in_parts_and_whole():
    batch = {"images": IMAGES, "caption_ids": IDS, "caption_ids_lengths": LENGTHS}
    batch |= {"pids": torch.arange(3), "index": torch.arange(3)}
    grads = []
    for flags in (["--accumulate", "1"], ["--accumulate", "2"], ["--grad_checkpointing"], ["--recompute"]):
        model = build(*flags).train()
        model(batch)[0].loss.backward()
        grads.append({name: value.grad for name, value in model.named_parameters()})
    assert all(value is not None and value.isfinite().all() for value in grads[0].values())
    assert grads[0]["token_selection.image.out.weight"].any() and grads[0]["clip.visual.conv1.weight"].any()
    for other in grads[1:]:
        for name, value in grads[0].items():
            torch.testing.assert_close(other[name], value, atol=1e-4, rtol=1e-3, msg=name)


def test_with_lora_and_prompts():
    model = build("--lora_r", "2", "--prompt_depth", "2", "--num_context", "3").eval()
    encoded = model.encode_text(IDS, LENGTHS)
    assert encoded.attention.shape == (3, 74) and encoded.selected.isfinite().all()
    assert model.encode_image(IMAGES).attention.shape == (3, 9)
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert any(name.startswith("token_selection.") for name in trained)


def test_roles_and_their_rates():
    roles = {name: role for name, _, role in build().parameter_roles()}
    for name, role in roles.items():
        assert (role == "tse") == name.startswith("token_selection."), name


def test_restored_and_finetuned():
    trained = randomised(build("--tse_norm", "batch")).eval()
    state = trained.state_dict()
    options = BackboneOptions(pretrain_choice="tiny", img_size=(64, 32))
    restored, unused = restore_encoder(state, options, "best.pth")  # flags of another system do not hide it
    assert not unused and restored.embeddings == {"BGE": 64, "TSE": 128}
    assert torch.equal(restored.eval().encode_image(IMAGES).feature, trained.encode_image(IMAGES).feature)
    other = build()
    used, left = start_from(other, state, "best.pth")
    assert "token_selection.text" in used and not left
    assert torch.equal(other.token_selection.text.norm.running_var, trained.token_selection.text.norm.running_var)
    torch.testing.assert_close(
        other.eval().encode_text(IDS, LENGTHS).feature, trained.encode_text(IDS, LENGTHS).feature
    )


def test_weights_without_the_embedding_are_refused_where_the_run_has_it():
    state = {key: value for key, value in build().state_dict().items() if key.startswith("clip.")}
    options = BackboneOptions(pretrain_choice="tiny", img_size=(64, 32))
    with pytest.raises(UserError, match=r"best.pth(.|\n)*missing token_selection"):
        restore_encoder(state, options, "best.pth", selection_options=TokenSelectionOptions(select_ratio=0.3))


def test_a_backbone_that_cannot_say_what_it_attends_to():
    backbone = load_backbone(BackboneOptions(pretrain_choice="tiny", img_size=(64, 32)))
    backbone.gives_attention = False
    with pytest.raises(UserError, match="--select_ratio 0.3: the towers of --pretrain_choice do not say"):
        TokenSelection(TokenSelectionOptions(select_ratio=0.3), backbone)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--loss_names", "id+mlm"], "--select_ratio: has an effect on the losses itc, sdm, TAL, TRL, nitc, ritc only"),
        (["--loss_names", "TAL+idd"], "no loss is called 'idd'; did you mean id"),
        (["--loss_names", "sr0.3"], "no loss is called 'sr0.3'"),
        (["--loss_names", "SDM+sdm"], "sdm is there twice"),
        (["--select_ratio", "0"], "--select_ratio 0.0: expected a number above 0 and at most 1"),
        (["--tse_norm", "group"], "--tse_norm 'group': choose one of frozen, batch"),
    ],
)
def test_bad_flags(flags, message, capsys):
    with pytest.raises((UserError, SystemExit)) as error:
        build(*flags)
    assert message in f"{error.value}{capsys.readouterr().err}"


def test_published_names_of_losses():
    for given, names, labels in (
        ("TAL+sr0.3_tau0.015_margin0.1_n0.0", ["TAL"], ("sr0.3_tau0.015_margin0.1_n0.0",)),
        ("SDM+short", ["sdm"], ("short",)),
        ("InfoNCE+id", ["itc", "id"], ()),
    ):
        options = train.read_flags([*FLAGS, "--loss_names", given])
        model = build("--loss_names", given)
        assert list(model.heads) == names
        assert options.get(train.LossOptions).labels == labels


def test_unit_length_of_a_token_of_zeros():
    encoded = Encoded(torch.zeros(2, 9, 64), torch.zeros(2, 64), torch.zeros(()), torch.full((2, 9), 1 / 9))
    out = build().token_selection.forward_image(encoded)
    assert out.selected.isfinite().all() and F.normalize(out.feature, dim=-1).isfinite().all()
