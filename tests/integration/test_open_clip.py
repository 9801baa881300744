"""Our towers, tokenizer and file readers against open_clip itself, and a whole run on weights of SigLIP 2.

All models are small and random. The rest of them is as in open_clip's configurations.
"""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from open_clip.timm_model import timm
from open_clip.tokenizer import HFTokenizer
from safetensors.torch import save_file
from torch import Tensor, nn

import search as search_script
import test as test_script
import train as train_script
from model.backbones import load_backbone
from model.backbones.architecture import BESIDE, read_architecture
from model.backbones.file_tokenizer import FileTokenizer
from model.backbones.spec import Backbone, BackboneOptions
from model.checkpoints import archives
from tests.helpers.open_clip_models import CONFIGS, small_config, small_model, write_weights
from tests.helpers.runs import SMALL, table
from tests.helpers.tokenizer import VOCABULARY, write_tokenizer
from utils import UserError

NAMES = ("ViT-B-32", "ViT-B-16-quickgelu", "ViT-B-16", "ViT-L-14", "ViT-H-14", "ViT-bigG-14")
SIGLIPS = ("ViT-B-16-SigLIP2", "ViT-SO400M-14-SigLIP", "ViT-gopt-16-SigLIP2-256")


def ours(folder: Path, name: str, config: dict, state: dict[str, Tensor], size: tuple[int, int]) -> Backbone:
    choice = write_weights(folder, name, config, state)
    tokenizer = write_tokenizer(folder / "tokenizer.json") if "hf_tokenizer_name" in config["text_cfg"] else None
    return load_backbone(BackboneOptions(choice, size, tokenizer=tokenizer)).eval()


def captions(config: dict) -> tuple[Tensor, Tensor]:
    """Ids of different lengths, the end token the largest, padded with 0."""
    text = config["text_cfg"]
    lengths = torch.tensor([5, 12, text["context_length"]])
    ids = torch.randint(1, text["vocab_size"] - 1, (3, text["context_length"]))
    for row, length in enumerate(lengths.tolist()):
        ids[row, length - 1], ids[row, length:] = text["vocab_size"] - 1, 0
    return ids, lengths


def assert_equal(backbone: Backbone, theirs: nn.Module, images: Tensor, ids: Tensor, lengths: Tensor) -> None:
    with torch.no_grad():
        image, text = backbone.encode_image(images), backbone.encode_text(ids, lengths)
        torch.testing.assert_close(image.pooled, theirs.encode_image(images), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(text.pooled, theirs.encode_text(ids), atol=1e-5, rtol=1e-5)
    assert image.tokens.shape[2] == text.tokens.shape[2] == backbone.spec.embed_dim
    torch.testing.assert_close(image.pooled, image.tokens[:, 0])


@pytest.mark.parametrize("name", [*NAMES, *SIGLIPS])
def test_pooled_features_at_the_native_size(tmp_path: Path, name: str):
    config = small_config(name)
    theirs = small_model(config)
    side = config["vision_cfg"]["image_size"]
    backbone = ours(tmp_path, name, config, theirs.state_dict(), (side, side))
    assert_equal(backbone, theirs, torch.randn(2, 3, side, side), *captions(config))
    assert backbone.spec.pixel_mean == ((0.5, 0.5, 0.5) if name in SIGLIPS else (0.48145466, 0.4578275, 0.40821073))


@pytest.mark.parametrize("name", ["ViT-B-16", "ViT-L-14", "ViT-B-16-SigLIP2"])
def test_pooled_features_of_person_sized_images(tmp_path: Path, name: str):
    config = small_config(name)
    state = small_model(config).state_dict()
    theirs = small_model(config, image_size=(384, 128))
    wide = theirs.state_dict()
    key = "visual.trunk.pos_embed" if name in SIGLIPS else "visual.positional_embedding"
    positions = state[key].squeeze(0)
    first = 0 if name in SIGLIPS else 1
    patch = 14 if name == "ViT-L-14" else 16
    side = math.isqrt(len(positions) - first)
    square = positions[first:].T.reshape(1, -1, side, side)
    grid = F.interpolate(square, (384 // patch, 128 // patch), mode="bilinear", align_corners=False)
    wide |= state | {key: torch.cat([positions[:first], grid.flatten(2)[0].T]).view_as(wide[key])}
    theirs.load_state_dict(wide)
    backbone = ours(tmp_path, name, config, state, (384, 128))
    assert_equal(backbone, theirs, torch.randn(2, 3, 384, 128), *captions(config))


def test_every_form_of_file(tmp_path: Path):
    config = small_config("ViT-B-16")
    theirs = small_model(config)
    state = theirs.state_dict()
    config_file = write_weights(tmp_path, "ViT-B-16", config, state).split(":")[1]
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "a.bin")
    torch.save({key: value.half() for key, value in state.items()}, tmp_path / "half.pt")
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "a.safetensors")
    torch.jit.save(torch.jit.script(theirs), tmp_path / "scripted.pt")
    assert "attn_mask" in torch.jit.load(tmp_path / "scripted.pt").state_dict()
    images, (ids, lengths) = torch.randn(2, 3, 224, 224), captions(config)
    for file in ("a.bin", "a.safetensors", "scripted.pt"):
        choice = f"open_clip:{config_file}:{tmp_path / file}"
        backbone = load_backbone(BackboneOptions(choice, (224, 224))).eval()
        assert backbone.weights_file == tmp_path / file
        assert_equal(backbone, theirs, images, ids, lengths)
    half = load_backbone(BackboneOptions(f"open_clip:{config_file}:{tmp_path / 'half.pt'}", (224, 224)))
    torch.testing.assert_close(half.visual.proj, theirs.visual.proj, atol=1e-3, rtol=1e-3)
    assert half.visual.proj.dtype == torch.float32


def test_weights_that_do_not_say_what_they_are_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = small_config("ViT-B-16")
    theirs = small_model(config)
    for name in ("ViT-B-16", "ViT-B-16-quickgelu"):
        write_weights(tmp_path, name, config | {"quick_gelu": name.endswith("quickgelu")}, theirs.state_dict())
    monkeypatch.setattr("model.backbones.architecture.config_folder", lambda: tmp_path)
    file, scripted = tmp_path / "ViT-B-16.pt", tmp_path / "scripted.pt"
    torch.jit.save(torch.jit.script(theirs), scripted)
    from model.backbones.architecture import _supported

    _supported.cache_clear()
    try:
        for path in (file, scripted):
            with pytest.raises(UserError, match=r"more than one model.*ViT-B-16, ViT-B-16-quickgelu have these sizes"):
                load_backbone(BackboneOptions(str(path)))
    finally:
        _supported.cache_clear()
    assert load_backbone(BackboneOptions(f"openai:{file}")).visual.transformer.resblocks[0].attn.heads == 2
    with pytest.raises(UserError, match="the archive computes with GELU, ViT-B-16-quickgelu with quick_gelu"):
        load_backbone(BackboneOptions(f"open_clip:ViT-B-16-quickgelu:{scripted}"))
    with pytest.raises(UserError, match="the archive computes with GELU, OpenAI's CLIP with quick_gelu"):
        load_backbone(BackboneOptions(f"openai:{scripted}"))
    load_backbone(BackboneOptions(f"open_clip:ViT-B-16:{scripted}"))
    (tmp_path / BESIDE).write_text(json.dumps({"model_cfg": config | {"quick_gelu": True}}))
    with pytest.raises(UserError, match=f"{BESIDE} says otherwise .quick_gelu, 2 heads"):
        load_backbone(BackboneOptions(f"open_clip:ViT-B-16:{file}"))
    statistics = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    (tmp_path / BESIDE).write_text(json.dumps({"model_cfg": config, "preprocess_cfg": statistics}))
    with pytest.raises(UserError, match="pixel mean 0.5 0.5 0.5, not gelu, 2 heads, pixel mean 0.481"):
        load_backbone(BackboneOptions(f"open_clip:ViT-B-16:{file}"))
    assert load_backbone(BackboneOptions(f"open_clip:{tmp_path / BESIDE}:{file}")).spec.pixel_std == (0.5, 0.5, 0.5)


def test_the_pinned_archive_is_opened_by_torch_where_our_reader_refuses_it(tmp_path: Path, monkeypatch):
    path = tmp_path / "ViT-B-16.pt"
    theirs = small_model(small_config("ViT-B-16-quickgelu"))
    torch.jit.save(torch.jit.script(theirs), path)

    def refuse(path: Path) -> None:
        raise UserError(f"{path}: damaged TorchScript archive")

    monkeypatch.setattr(archives, "torchscript_weights", refuse)
    with pytest.raises(UserError, match="damaged TorchScript archive"):
        load_backbone(BackboneOptions(str(path)))
    monkeypatch.setitem(archives.ARCHIVES, "Tiny", (path.name, archives.file_sha256(path)))
    clip = load_backbone(BackboneOptions(str(path), (224, 224)))
    torch.testing.assert_close(clip.text.text_projection, theirs.text_projection)


def test_heads_and_activations_of_siglips_image_towers():
    """They are not in open_clip's configurations but in timm."""
    checked = set()
    for path in sorted(CONFIGS.glob("*SigLIP*.json")):
        config = json.loads(path.read_text())
        if config["text_cfg"].get("proj_type") == "none":
            continue
        form, name = read_architecture(path.stem).image, config["vision_cfg"]["timm_model_name"]
        if (kind := name.partition("_patch")[0]) not in checked:
            with torch.device("meta"):
                block = timm.create_model(name, num_classes=0, depth=1).blocks[0]
            approximate = "tanh" if form.activation == "gelu_tanh" else "none"
            assert (form.heads, form.eps) == (block.attn.num_heads, block.norm1.eps), name
            assert getattr(block.mlp.act, "approximate", "tanh") == approximate, name
            checked.add(kind)
    assert len(checked) == 4


@pytest.mark.parametrize("canonical", [True, False])
def test_tokens_equal_those_of_open_clip(tmp_path: Path, canonical: bool):
    path = write_tokenizer(tmp_path / "tokenizer.json")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "<eos>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    theirs = HFTokenizer(str(tmp_path), context_length=12, clean="canonicalize" if canonical else "whitespace")
    tokenizer = FileTokenizer(path, canonical)
    texts = ["A man, in a red_coat!", "a woman wears   long jeans &amp; shoes", "", "the " * 30, "café ☂", "."]
    tokens = tokenizer(texts, 12)
    assert torch.equal(tokens.ids, theirs(texts))
    assert [row[length - 1] for row, length in zip(tokens.ids.tolist(), tokens.lengths, strict=True)] == [1] * 6
    for text in texts:
        assert [id_ for word in tokenizer.words(text) for id_ in word] == tokenizer.encode(text)
        if canonical and "é" not in text:  # the small vocabulary has no other letters
            letters = [tokenizer.decode(word).replace("\u2581", "").replace(" ", "") for word in tokenizer.words(text)]
            assert letters == tokenizer.clean(text).split()


def test_a_run_on_siglip(data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fails):
    config = small_config("ViT-B-16-SigLIP2")
    config["text_cfg"]["context_length"] = 16
    choice = write_weights(tmp_path, "siglip", config, small_model(config).state_dict())
    tokenizer = write_tokenizer(tmp_path / "tokenizer.json", mask=False)
    assert config["text_cfg"]["vocab_size"] == VOCABULARY
    run = tmp_path / "run"
    flags = [*SMALL, "--pretrain_choice", choice, "--root_dir", str(data_root), "--run_dir", str(run)]
    flags += ["--num_epoch", "1", "--loss_names", "itc+id", "--word_deletion", "0.2", "--lora_r", "2"]
    assert "--tokenizer: " in fails("train", *flags)
    flags += ["--tokenizer", str(tokenizer)]
    assert "this backbone's tokenizer has no mask token" in fails("train", *flags, "--loss_names", "mlm")
    assert "--prompt_depth 2: this backbone takes no prompts" in fails("train", *flags, "--prompt_depth", "2")
    assert "the text tower takes at most 16 tokens; --text_stretch" in fails("train", *flags, "--text_length", "24")
    train_script.main([*flags, "--text_length", "24", "--text_stretch", "linear"])
    trained = table(capsys.readouterr().out)
    weights = torch.load(run / "best.pth", weights_only=True)["model"]
    assert weights["siglip.text.positional_embedding"].shape[0] == 24
    assert "siglip.visual.pool.v_proj.lora_A" in weights
    (tmp_path / "siglip.pt").unlink()  # only its configuration is needed to test
    test_script.main(["--config_file", str(run / "configs.yaml"), "--device", "cpu"])
    assert table(capsys.readouterr().out) == trained
    gallery = data_root / "CUHK-PEDES" / "imgs"
    search_script.main(["--config_file", str(run / "configs.yaml"), "--gallery", str(gallery), "--query", "a red coat"])
    assert "contact sheets" in capsys.readouterr().out
    assert "holds towers of siglip, not of clip" in fails(
        "test", "--config_file", run / "configs.yaml", "--pretrain_choice", "tiny"
    )
