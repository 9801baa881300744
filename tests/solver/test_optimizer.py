"""Optimiser groups: every trained parameter in exactly one, few of them, fused."""

import pytest
import torch
from torch import nn

from model.backbones import load_backbone
from model.backbones.spec import BackboneOptions
from model.build import build_retriever, model_options
from solver.optimizer import SolverOptions, build_optimizer, lr_and_decay
from utils import UserError
from utils.command import parse


def retriever(losses: str):
    argv = ["--pretrain_choice", "tiny", "--img_size", "32", "32", "--loss_names", losses]
    options = parse(model_options(), argv, "test")
    return build_retriever(load_backbone(options.get(BackboneOptions)), options.get, ids=9, images=20, pairs=20)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
def test_groups_are_few_and_claim_every_parameter_once(name: str):
    model = retriever("itc+id+mlm")
    optimizer = build_optimizer(model.parameter_roles(), SolverOptions(optimizer=name))
    claimed = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(claimed) == len(set(claimed)) == sum(1 for _ in model.parameters())
    assert len(optimizer.param_groups) <= 5
    assert all(group["fused"] for group in optimizer.param_groups)


def test_frozen_parameters_are_left_out():
    model = retriever("itc")
    model.clip.text.requires_grad_(False)
    names = {name for name, _, _ in model.parameter_roles()}
    assert names and not any(name.startswith("clip.text") for name in names)
    model.requires_grad_(False)
    with pytest.raises(UserError, match="nothing to train"):
        build_optimizer(model.parameter_roles(), SolverOptions())


def test_unknown_role():
    with pytest.raises(ValueError, match="no optimiser rule for the role 'odd'"):
        lr_and_decay("x.weight", 2, "odd", SolverOptions())


def test_a_group_steps_as_single_tensors_would():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    options = SolverOptions(lr=0.1)
    one = build_optimizer(((n, p, "plain") for n, p in ours.named_parameters()), options)
    each = torch.optim.Adam(
        [
            {"params": [theirs.weight], "lr": 0.1, "weight_decay": 4e-5},
            {"params": [theirs.bias], "lr": 0.2, "weight_decay": 0.0},
        ],
        eps=1e-3,
    )
    for _ in range(5):
        for layer, optimizer in ((ours, one), (theirs, each)):
            optimizer.zero_grad()
            layer(torch.ones(4, 3)).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_decay_of_matrices_only():
    model = retriever("nitc+id")
    given = SolverOptions(lr=1.0, weight_decay=0.02, decay="matrices", bias_lr_factor=None, lr_factor=3.0)
    optimizer = build_optimizer(model.parameter_roles(), given)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert group["weight_decay"] == (0.02 if parameter.dim() > 1 else 0), name
            assert group["lr"] == (3.0 if name.startswith("heads.id") else 1.0), name


def test_the_learned_scale_never_decays():
    optimizer = build_optimizer(retriever("ritc").parameter_roles(), SolverOptions(weight_decay=0.5))
    (group,) = [group for group in optimizer.param_groups if any(p.dim() == 0 for p in group["params"])]
    assert group["weight_decay"] == 0


@pytest.mark.parametrize(("name", "eps"), [("Adam", 1e-3), ("AdamW", 1e-8)])
def test_eps(name: str, eps: float):
    roles = list(retriever("itc").parameter_roles())
    assert build_optimizer(roles, SolverOptions(optimizer=name)).defaults["eps"] == eps
    assert build_optimizer(roles, SolverOptions(optimizer=name, eps=0.5)).defaults["eps"] == 0.5


@pytest.mark.parametrize("losses", ["itc", "sdm+id+mlm"])
def test_muon_takes_matrices_between_hidden_features(losses: str):
    model = retriever(losses)
    optimizer = build_optimizer(model.parameter_roles(), SolverOptions(optimizer="Muon", lr=1e-2))
    claimed = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(claimed) == sorted(id(p) for p in model.parameters())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    (muon,) = [part for part in optimizer.parts if isinstance(part, torch.optim.Muon)]
    taken = {names[id(parameter)] for group in muon.param_groups for parameter in group["params"]}
    assert "clip.visual.transformer.resblocks.0.mlp.c_fc.weight" in taken and "clip.text_projection" not in taken
    assert "clip.text.text_projection" in taken
    others = ("embedding", "bias", "ln_", "conv1", "classifier", "fc.weight")
    assert not any(part in name for name in taken for part in others if "c_fc" not in name)


@pytest.mark.parametrize(
    ("role", "taken"), [("plain", True), ("cross", True), ("tse", True), ("head", False), ("lora", False)]
)
def test_muon_leaves_out_classifiers_and_low_rank_factors(role: str, taken: bool):
    layer = nn.Linear(6, 4)
    options = SolverOptions(optimizer="Muon", lr=1e-2, tse_lr=3e-2)
    parts = build_optimizer(((n, p, role) for n, p in layer.named_parameters()), options).parts
    muon = [p for part in parts if isinstance(part, torch.optim.Muon) for p in part.param_groups[0]["params"]]
    assert [p is layer.weight for p in muon] == [True] * taken


def naive_muon(weight: torch.Tensor, grads: list[torch.Tensor], lr: float, decay: float) -> torch.Tensor:
    """Jordan et al., 2024, step by step: Nesterov momentum, five Newton-Schulz iterations, AdamW's size of a step."""
    a, b, c = 3.4445, -4.775, 2.0315
    momentum = torch.zeros_like(weight)
    for grad in grads:
        momentum = 0.95 * momentum + 0.05 * grad
        x = 0.95 * momentum + 0.05 * grad
        x = x / x.norm()
        for _ in range(5):
            gram = x @ x.T
            x = a * x + (b * gram + c * gram @ gram) @ x
        weight = weight * (1 - lr * decay) - lr * 0.2 * max(weight.shape) ** 0.5 * x
    return weight


def test_muon_steps_as_the_formula_says():
    torch.manual_seed(0)
    layer = nn.Linear(6, 4)
    options = SolverOptions(optimizer="Muon", lr=0.1, weight_decay=0.05, bias_lr_factor=1.0)
    optimizer = build_optimizer(((n, p, "plain") for n, p in layer.named_parameters()), options)
    start, grads = layer.weight.detach().clone(), [torch.randn(4, 6) for _ in range(3)]
    bias = nn.Parameter(layer.bias.detach().clone())
    adamw = torch.optim.AdamW([bias], lr=0.1, weight_decay=0.0)
    for grad in grads:
        layer.weight.grad, layer.bias.grad, bias.grad = grad.clone(), grad[:, 0].clone(), grad[:, 0].clone()
        optimizer.step()
        adamw.step()
    # PyTorch's iterations are in bfloat16
    torch.testing.assert_close(layer.weight.detach(), naive_muon(start, grads, 0.1, 0.05), rtol=0.02, atol=0.01)
    torch.testing.assert_close(layer.bias, bias)


def test_muon_goes_on_where_it_was_saved():
    def trained(steps: int, state: dict | None = None, weight: dict | None = None):
        layer = nn.Linear(6, 4)
        torch.nn.init.constant_(layer.weight, 0.5)
        torch.nn.init.zeros_(layer.bias)
        if weight:
            layer.load_state_dict(weight)
        optimizer = build_optimizer(
            ((n, p, "plain") for n, p in layer.named_parameters()), SolverOptions(optimizer="Muon", lr=0.1)
        )
        if state:
            optimizer.load_state_dict(state)
        generator = torch.Generator().manual_seed(5)
        grads = [torch.randn(4, 6, generator=generator) for _ in range(4)]
        for grad in grads[-steps:] if state else grads[:steps]:
            layer.weight.grad, layer.bias.grad = grad, grad[:, 0]
            optimizer.step()
        return layer.state_dict(), optimizer

    whole, _ = trained(4)
    half, optimizer = trained(2)
    rest, resumed = trained(2, optimizer.state_dict(), half)
    assert len(resumed.state) == 2 and all(torch.equal(whole[name], rest[name]) for name in whole)
    with pytest.raises(KeyError):
        resumed.load_state_dict({})


def test_muon_under_a_gradient_scaler():
    def stepped(scale: float | None, grad: float = 1.0) -> torch.Tensor:
        layer = nn.Linear(6, 4)
        nn.init.constant_(layer.weight, 0.5)
        nn.init.zeros_(layer.bias)
        roles = [(name, parameter, "plain") for name, parameter in layer.named_parameters()]
        optimizer = build_optimizer(roles, SolverOptions(optimizer="Muon", lr=0.1))
        scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
        loss = grad * (layer(torch.eye(6)) * torch.arange(24.0).view(6, 4)).sum()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return layer.weight.detach()

    torch.testing.assert_close(stepped(1024.0), stepped(None), rtol=1e-2, atol=1e-3)
    assert (stepped(1024.0, grad=float("inf")) == 0.5).all(), "a step with infinite gradients is skipped"
