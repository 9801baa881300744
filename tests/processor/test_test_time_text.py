"""Texts that are mixed in at test time: the formula against a loop, files, and texts of nothing that is there."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import test as test_script
from processor.test_time_text import match_paths, mix, read_texts
from tests.helpers.runs import table
from utils import UserError


def encode(texts: Sequence[str]) -> torch.Tensor:
    """A feature that depends on the text alone, of any length."""
    return torch.stack([torch.randn(6, generator=torch.Generator().manual_seed(sum(map(ord, text)))) for text in texts])


def test_the_formula_against_a_loop():
    features = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)) * 3
    texts = [["a", "b"], [], ["b"], ["c", "a", "a"]]
    found = mix(features, texts, 0.75, encode)
    for row, each in enumerate(texts):
        expected = F.normalize(features[row], dim=0)
        for text in each:
            expected = expected + 0.75 / len(each) * F.normalize(encode([text])[0], dim=0)
        torch.testing.assert_close(found[row], expected)


def test_the_other_published_form_ranks_alike():
    """(1 - b) g + b f has the direction of g + b / (1 - b) f."""
    features = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    found = F.normalize(mix(features, [["a"]] * 3, 0.3 / 0.7, encode), dim=1)
    expected = F.normalize(0.7 * F.normalize(features, dim=1) + 0.3 * F.normalize(encode(["a"]), dim=1), dim=1)
    torch.testing.assert_close(found, expected)


def test_images_are_known_by_the_end_of_their_path():
    paths = [Path("/data/X/imgs/train/a.jpg"), Path("/data/X/imgs/test/a.jpg"), Path("/data/X/imgs/b.jpg")]
    keys = ["test/a.jpg", "imgs/train/a.jpg", "/data/X/imgs/b.jpg"]
    assert match_paths(Path("d.json"), keys, paths) == dict(zip(paths, (keys[1], keys[0], keys[2]), strict=True))
    with pytest.raises(UserError, match=r"'a.jpg' fits /data/X/imgs/train/a.jpg and /data/X/imgs/test/a.jpg"):
        match_paths(Path("d.json"), ["a.jpg"], paths)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "a JSON list; expected"),
        ({}, "nothing in it; expected"),
        ({"a": "b"}, "entry 'a' is no list of texts"),
        ({"a": []}, "entry 'a' is no list of texts"),
        ({"a": ["b"], "c": ["d", " "]}, "entry 'c' is no list of texts"),
        ({"a": [1]}, "entry 'a' is no list of texts"),
    ],
)
def test_files_of_another_form(content: object, message: str, tmp_path: Path):
    path = tmp_path / "p.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=re.escape(f"--paraphrases {path}: {message}")):
        read_texts(path, "--paraphrases")


@pytest.fixture
def records(data_root: Path) -> list[dict]:
    return json.loads((data_root / "CUHK-PEDES" / "reid_raw.json").read_text())


def test_rows_with_and_without(trained: Path, records: list[dict], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tests = [record for record in records if record["split"] == "test"]
    same = {caption: [caption] for record in records for caption in record["captions"]}
    (tmp_path / "p.json").write_text(json.dumps(same))
    told = {record["file_path"]: record["captions"] for record in tests[:-1]}
    (tmp_path / "d.json").write_text(json.dumps(told))
    config = ["--config_file", str(trained / "configs.yaml"), "--intervals"]
    files = ["--paraphrases", str(tmp_path / "p.json"), "--descriptions", str(tmp_path / "d.json")]
    test_script.main([*config, *files])
    printed = capsys.readouterr().out
    assert "--paraphrases: for 20 of 20 queries, 1.0 each\n" in printed
    assert "--descriptions: for 9 of 10 images, 2.0 each; the others stay as they are" in printed
    plain = table(printed)
    assert table(printed, "t2i, paraphrases") == plain, "a query that is its own paraphrase keeps its direction"
    assert table(printed, "t2i, both") == table(printed, "t2i, descriptions") != plain
    assert table(printed, "t2i, both, 95 % from")
    test_script.main([*config, *files[2:], "--mix_gallery", "1000"])
    printed = capsys.readouterr().out
    assert table(printed, "t2i, descriptions")[0] > 80, "captions find their own image by the same words"
    assert "paraphrases" not in printed


def test_texts_of_nothing_that_is_there(trained: Path, records: list[dict], tmp_path: Path, fails: Callable[..., str]):
    config, path = ["--config_file", trained / "configs.yaml"], tmp_path / "p.json"
    train = next(record for record in records if record["split"] == "train")
    path.write_text(json.dumps({train["captions"][0]: ["x"], "Nobody wrote this.": ["x"]}))
    message = fails("test", *config, "--paraphrases", path)
    assert "1 of 2 entries are of queries that the data set does not have: 'Nobody wrote this.'" in message
    path.write_text(json.dumps({train["captions"][0]: ["x"]}))
    assert "nothing in it is of the queries of this split; see --test_split" in fails(
        "test", *config, "--paraphrases", path
    )
    path.write_text(json.dumps({"nowhere.jpg": ["x"]}))
    assert "1 of 1 entries are of images that" in fails("test", *config, "--descriptions", path)
    missing = tmp_path / "missing.json"
    assert f"{missing}: cannot be read" in fails("test", *config, "--descriptions", missing)
    assert "--mix_query: has no effect without --paraphrases" in fails("test", *config, "--mix_query", "0.5")
    assert "--mix_gallery: has no effect without" in fails("test", *config, "--mix_gallery", "1", "--paraphrases", path)
    assert "--mix_query -1.0: expected at least 0" in fails("test", *config, "--paraphrases", path, "--mix_query", "-1")
    message = fails("test", "--cross_domain", trained, "--paraphrases", path)
    assert "--paraphrases: cannot be combined with --cross_domain" in message
