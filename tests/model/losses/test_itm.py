"""The itm loss against a loop that takes one pair after the other, and its edges."""

import math

import pytest
import torch
import torch.nn.functional as F

import model.losses.itm as itm
from model.backbones.clip import CLIP
from model.backbones.sizes import ClipSizes
from model.build import build_retriever
from model.cross_former import CrossFormer
from solver.optimizer import SolverOptions, build_optimizer

SIZES = ClipSizes(32, (32, 16), 8, 8, 16, 1, 16, 1, 60, 12)
PIDS = torch.tensor([0, 0, 1, 2, 3, 3, 4])


def make_batch(pids=PIDS):
    count = len(pids)
    ids = torch.zeros(count, 12, dtype=torch.int64)
    for row in range(count):
        words = torch.randint(1, 56, (4 + row % 5,))
        ids[row, : len(words) + 2] = torch.cat([torch.tensor([58]), words, torch.tensor([59])])
    lengths = 6 + torch.arange(count) % 5
    return {"images": torch.randn(count, 3, 32, 16), "caption_ids": ids, "caption_ids_lengths": lengths, "pids": pids}


def make_model(**options):
    def get(kind):
        flags = {"loss_names": "itm", **options}
        return kind(**{name: value for name, value in flags.items() if name in kind.__dataclass_fields__})

    return build_retriever(CLIP(SIZES), get, ids=5, images=7, pairs=7)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def likeliest_negative(monkeypatch):
    monkeypatch.setattr(torch, "multinomial", lambda weights, samples: weights.argmax(dim=1, keepdim=True))


def naive_itm(model, batch, share):
    """The definition, word for word, in plain loops."""
    image = model.encode_image(batch["images"])
    text = model.encode_text(batch["caption_ids"], batch["caption_ids_lengths"])
    pids, temp, cross, head = (
        batch["pids"],
        model.heads["itm"].temp,
        model.parts["cross_former"],
        model.heads["itm"].head,
    )
    count = len(pids)
    others = [[j for j in range(count) if pids[j] != pids[i]] for i in range(count)]

    def cos(a, b):
        return a @ b / (a.norm() * b.norm())

    def hardest(row_feature, column_features, i):
        return max(others[i], key=lambda j: cos(row_feature, column_features[j]).item())

    def match(text_tokens, image_tokens, belongs):
        logits = head(cross(text_tokens[None], image_tokens[None])[0, 0])
        return -F.log_softmax(logits, dim=0)[int(belongs)]

    terms = []
    for i in range(count):
        terms.append(match(text.tokens[i], image.tokens[i], True))
        terms.append(match(text.tokens[i], image.tokens[hardest(text.pooled[i], image.pooled, i)], False))
        terms.append(match(text.tokens[hardest(image.pooled[i], text.pooled, i)], image.tokens[i], False))
    intra = []
    for features in (image.pooled, text.pooled):
        rows = []
        for i in range(count):
            logits = torch.stack([cos(features[i], features[j]) / temp for j in range(count)])
            same = torch.tensor([float(pids[i] == pids[j]) for j in range(count)])
            target = 0.4 * logits.detach().exp() / logits.detach().exp().sum() + 0.6 * same / same.sum()
            rows.append(-sum(target[j] * (logits[j] - logits.exp().sum().log()) for j in range(count)))
        intra.append(sum(rows) / count)
    return share * sum(terms) / len(terms) + (1 - share) * (intra[0] + intra[1]) / 2


@pytest.mark.parametrize(("share", "depth"), [(0.9, 2), (0.0, 1), (1.0, 1)])
def test_itm_equals_a_naive_loop_with_its_gradients(likeliest_negative, share, depth):
    model, batch = make_model(weight=share, cmt_depth=depth), make_batch()
    step, _ = model(batch)
    step.loss.backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    expected = naive_itm(model, batch, share)
    expected.backward()
    assert step.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    theirs = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, atol=1e-5, rtol=1e-3, msg=name)
    extra = {name for name in set(ours) - set(theirs) if ours[name].abs().max() > 1e-7}
    assert not extra


def test_three_passes_are_one_call(monkeypatch):
    model, calls = make_model(), []
    first = CrossFormer.first
    monkeypatch.setattr(
        CrossFormer, "first", lambda self, text, image: calls.append(len(text)) or first(self, text, image)
    )
    model(make_batch())
    assert calls == [3 * len(PIDS)]


def test_weights_follow_the_definition_and_never_choose_the_same_identity():
    logits, same = torch.randn(7, 7) * 3, itm.same_identity(PIDS)
    weights = itm.hard_negative_weights(logits, same)
    for i in range(7):
        for j in range(7):
            expected = 0.0 if PIDS[i] == PIDS[j] else (logits[i, j].exp() / logits[i].exp().sum() + 1e-5).item()
            assert weights[i, j].item() == pytest.approx(expected, rel=1e-4)
    drawn = torch.stack([itm.draw_negatives(weights) for _ in range(4000)])
    assert not (PIDS[drawn] == PIDS).any()
    shares = F.one_hot(drawn, 7).float().mean(dim=0)
    torch.testing.assert_close(shares, weights / weights.sum(dim=1, keepdim=True), atol=0.04, rtol=0)


@pytest.mark.parametrize("pids", [[9, 9, 9], [4]])
@pytest.mark.parametrize("share", [0.0, 0.9])
def test_a_batch_of_one_identity_gives_zero_and_is_counted(pids, share):
    model = make_model(weight=share)
    for number in (1, 2):
        model.zero_grad()
        step, _ = model(make_batch(torch.tensor(pids)))
        step.loss.backward()
        assert step.loss == 0
        grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert grads and not any(grad.any() for grad in grads), "NaN would count as something"
        assert model.heads["itm"].unusable == number
    model(make_batch())
    assert model.heads["itm"].unusable == 2
    assert "heads.itm.unusable" not in model.state_dict()


def test_where_a_run_diverged_the_loss_is_nan_and_the_draw_valid():
    """On a GPU an invalid draw would end the process before anybody could say why."""
    model, batch = make_model(), make_batch()
    model.clip.visual.proj.data.fill_(math.nan)
    assert model(batch)[0].loss.isnan()
    drawn = itm.draw_negatives(torch.full((7, 7), torch.nan))
    assert ((drawn >= 0) & (drawn < 7)).all()
    drawn = itm.draw_negatives(torch.zeros(7, 7))
    assert ((drawn >= 0) & (drawn < 7)).all()


@pytest.mark.parametrize("start", [0.0, -3.0, 1e-9])
def test_the_temperature_stays_positive_and_can_rise_again(start):
    model, batch = make_model(weight=0.5), make_batch()
    model.heads["itm"].temp.data.fill_(start)
    step, _ = model(batch)
    step.loss.backward()
    assert step.loss.isfinite()
    assert step.report["itm_temp"].item() == pytest.approx(itm.LEAST_TEMPERATURE)
    assert model.heads["itm"].temp.item() == pytest.approx(itm.LEAST_TEMPERATURE)
    assert model.heads["itm"].temp.grad.abs() > 0


def test_the_temperature_survives_an_absurd_learning_rate():
    model, batch = make_model(weight=0.5), make_batch()
    optimizer = build_optimizer(model.parameter_roles(), SolverOptions(optimizer="SGD", lr=1e-8))
    seen = []
    for _ in range(6):
        step, _ = model(batch)
        seen.append(step.report["itm_temp"])
        optimizer.zero_grad()
        step.loss.backward()
        model.heads["itm"].temp.grad.fill_(2e7)
        optimizer.step()
    assert [value.item() for value in seen] == pytest.approx([0.07, *[itm.LEAST_TEMPERATURE] * 5])


def test_two_forward_passes_before_one_backward_add_their_gradients(likeliest_negative):
    model, batches = make_model(), (make_batch(), make_batch())
    for batch in batches:
        model(batch)[0].loss.backward()
    apart = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    sum(model(batch)[0].loss for batch in batches).backward()
    assert apart
    for name, gradient in apart.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient, msg=name)


def test_fields():
    batch, model = make_batch(), make_model(weight=1.0)
    assert model.needed_fields == ("images", "caption_ids", "pids")
    assert set(model.padded_fields) == {"caption_ids", "mlm_ids"}
    longest = int(batch["caption_ids_lengths"].max())
    assert longest < batch["caption_ids"].shape[1]
    torch.manual_seed(5)
    whole = model(batch)[0].loss
    torch.manual_seed(5)
    cut = model({**batch, "caption_ids": batch["caption_ids"][:, :longest]})[0].loss
    assert not torch.isclose(whole, cut, rtol=1e-6), "padding has no influence any more: it could be trimmed"
