"""Model configurations: what is read off them, and what is refused."""

import json
from pathlib import Path

import pytest

from model.backbones.architecture import OPENAI, architecture_of, config_folder, read_architecture
from model.backbones.sizes import TowerForm
from utils import UserError

HALF = (0.5, 0.5, 0.5)


def test_what_shapes_do_not_show():
    huge = read_architecture("ViT-H-14")
    assert (huge.image, huge.text) == (TowerForm(16, "gelu"), TowerForm(16, "gelu"))  # 80 channels each, not 64
    quick = read_architecture("ViT-L-14-quickgelu")
    assert quick.image == TowerForm(16, "quick_gelu") and quick.pixel_mean == OPENAI.pixel_mean
    siglip = read_architecture("ViT-B-16-SigLIP2")
    assert siglip.family == "siglip" and siglip.canonical_text and not siglip.pads_with_end
    assert siglip.text == TowerForm(12, "gelu_tanh", 1e-6) and siglip.image == TowerForm(12, "gelu", 1e-6)
    assert siglip.pixel_mean == siglip.pixel_std == HALF
    first = read_architecture("ViT-B-16-SigLIP")
    assert first.pads_with_end and first.text.activation == "gelu"
    assert read_architecture("ViT-H-14-worldwide").tokenizer_name == "facebook/xlm-v-base"
    assert architecture_of("ViT-B/16") == architecture_of("openai:x.pt") == architecture_of("tiny") == OPENAI


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("RN50", "vision_cfg's layers"),
        ("coca_ViT-B-32", "multimodal_cfg"),
        ("ViT-L-14-CLIPA", "vision_cfg's no_ln_pre True"),
        ("EVA02-B-16", "vision_cfg's timm_model_name eva02"),
        ("xlm-roberta-base-ViT-B-32", "text_cfg's hf_model_name xlm-roberta-base"),
        ("ViT-M-16-alt", "vision_cfg's ls_init_value 0.0001"),
        ("PE-Core-B-16", "vision_cfg's timm_model_name vit_pe_core"),
    ],
)
def test_models_that_are_not_built_here(name: str, problem: str):
    with pytest.raises(UserError, match=f"--pretrain_choice open_clip:{name}:FILE: .*{problem}.* is not supported"):
        read_architecture(name)


def test_names_and_files_that_are_no_configuration(tmp_path: Path):
    with pytest.raises(UserError, match="open_clip has no model ViT-Z-16; similar names are ViT-.*ViT-B-16"):
        read_architecture("ViT-Z-16")
    path = tmp_path / "c.json"
    with pytest.raises(UserError, match="c.json does not exist; it holds the model configuration"):
        read_architecture(str(path))
    for content, problem in (("{", "cannot be read as json"), ("[]", "no model configuration"), ("{}", "vision_cfg")):
        path.write_text(content)
        with pytest.raises(UserError, match=problem):
            read_architecture(str(path))
    config = json.loads((config_folder() / "ViT-B-16.json").read_text())
    del config["vision_cfg"]["width"]
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match="lacks or misstates 'width'"):
        read_architecture(str(path))


@pytest.mark.parametrize("choice", ["open_clip:", "open_clip:ViT-B-16", "open_clip:ViT-B-16:", "open_clip::w.pt"])
def test_choices_that_lack_a_part(choice: str):
    with pytest.raises(UserError, match="expected open_clip:NAME:FILE"):
        architecture_of(choice)
