"""Maps of words on images: which tokens, which patches, and what is drawn."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import test as test_script
from analysis.attention import Word, chosen_words, framed, overlaid, patch_grid, word_maps
from model.backbones.clip_tokenizer import shared_tokenizer
from tests.helpers.random_run import random_run


@pytest.mark.parametrize(
    ("image_size", "grid"),
    [((384, 128), (24, 8)), ((384, 128), (31, 10)), ((96, 48), (6, 3)), ((224, 224), (14, 14)), ((32, 64), (2, 4))],
)
def test_the_grid_of_the_patches(image_size: tuple[int, int], grid: tuple[int, int]):
    assert patch_grid(grid[0] * grid[1], image_size) == grid


def test_words_and_the_places_of_their_tokens():
    caption = "A man, in a maroon long-sleeved shirt; he wears a maroon hat!"
    tokenizer = shared_tokenizer()
    ids, (length,) = tokenizer(caption)
    words = chosen_words(caption, tokenizer, int(length), 9)
    assert [word.text for word in words] == ["maroon", "long-sleeved", "shirt", "hat"]
    for word in words:
        assert tokenizer.decode(ids[0, word.first : word.end].tolist()).strip(" ;!").replace(" - ", "-") == word.text
    assert [word.text for word in chosen_words(caption, tokenizer, int(length), 2)] == ["maroon", "long-sleeved"]
    cut = tokenizer(caption, 8)
    assert [word.text for word in chosen_words(caption, tokenizer, int(cut.lengths), 9)] == ["maroon"], "what is left"
    assert [word.text for word in chosen_words("Hello, world.", tokenizer, 6, 9)] == ["hello", "world"]


def test_maps_are_cosines_with_the_mean_of_a_words_tokens():
    generator = torch.Generator().manual_seed(0)
    text, image = torch.randn(7, 5, generator=generator), torch.randn(7, 5, generator=generator)
    (one, two) = word_maps(text, image, [Word("a", 2, 3), Word("b", 3, 6)], (3, 2))
    for patch in range(6):
        place = divmod(patch, 2)
        expected = torch.cosine_similarity(text[2], image[patch + 1], dim=0)
        assert one[place] == pytest.approx(expected.item(), abs=1e-6)
        mean = sum(text[number] / text[number].norm() for number in (3, 4, 5))
        assert two[place] == pytest.approx(torch.cosine_similarity(mean, image[patch + 1], dim=0).item(), abs=1e-6)


def test_bright_is_where_the_similarity_is():
    picture = Image.new("RGB", (40, 80), (128, 128, 128))
    drawn = np.asarray(overlaid(picture, np.array([[0.1, 0.1], [0.1, 0.9]]))).sum(axis=2, dtype=int)
    assert drawn.shape == (80, 40)
    assert np.unravel_index(drawn.argmax(), drawn.shape) > (40, 20) and drawn[70, 35] > 2 * drawn[10, 5]
    assert overlaid(picture, np.zeros((2, 2))).size == (40, 80), "equal everywhere"
    edges = np.asarray(framed(picture, [3], (2, 2)))
    assert (edges[40, 20:] != 128).all() and (edges[:39] == 128).all() and (edges[:, :19] == 128).all()


def test_the_report_of_rde_marks_what_it_selects(data_root: Path, tmp_path: Path):
    run = random_run(tmp_path / "run", select_ratio=0.3, dataset_name="CUHK-PEDES", root_dir=str(data_root))
    config = ["--config_file", str(run / "configs.yaml"), "--device", "cpu", "--num_workers", "0"]
    test_script.main([*config, "--report", "--report_queries", "3", "0", "--report_dir", str(tmp_path / "page")])
    text = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    assert ">Words and patches</h2>" in text and "of the words with a dot" in text and " •" in text
    names = {path.name.split("_")[1].removesuffix(".png") for path in (tmp_path / "page" / "words").iterdir()}
    assert names == {"0", "3"}
