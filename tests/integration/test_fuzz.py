"""Whatever stands in a file, reading it ends in success or in one clear error; nothing in it is run, nothing hangs.

The cases are drawn from fixed seeds, so every run sees the same.
"""

import copy
import io
import json
import os
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import train as train_script
from datasets import custom
from datasets.annotations import DataError
from datasets.images.decode import MAX_PIXELS, ImageError, decode
from datasets.images.source import ImageOptions
from datasets.images.verify import prepare_images
from model.backbones.clip_tokenizer import shared_tokenizer
from model.checkpoints.archives import read_torch_file
from model.checkpoints.torchscript import torchscript_weights
from tests.helpers.images import eps_bytes, jpeg_bytes, photo, png_header
from tests.helpers.runs import SMALL
from utils.options import Options, flags_of, load_train_configs, read_config

pytestmark = [
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:::torch", "ignore:::PIL"),
]

JUNK = (
    *(None, True, 0, -1, 2**63, 10**30, 1.5, float("inf"), float("nan"), "", " ", "\0", "\ud800", "../../etc/passwd"),
    *("a" * 300, "a/" * 3000, "\u202e\u0000", "1", [], {}, [[]], [None], ["a"] * 1000, {"a": {"b": [1]}}, "/dev/zero"),
)


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Code in a file would leave a file behind."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.rglob("*was_here*"))


def damaged(content: bytes, dice: random.Random) -> bytes:
    """Bytes after one to four accidents: bits flipped, a piece cut out, zeroed, repeated, or the end lost."""
    for _ in range(dice.randint(1, 4)):
        start = dice.randrange(len(content) or 1)
        stop = min(len(content), start + dice.choice((1, 1, 8, 100, 4096)))
        piece = content[start:stop]
        new = {
            "flip": bytes(byte ^ (1 << dice.randrange(8)) for byte in piece[:1]) + piece[1:],
            "cut": b"",
            "zero": bytes(len(piece)),
            "repeat": piece * 2,
            "noise": dice.randbytes(len(piece)),
        }[dice.choice(("flip", "cut", "zero", "repeat", "noise"))]
        content = content[:start] + new + content[stop:]
        if dice.random() < 0.2:
            content = content[:start]
    return content


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a tree of lists and dicts."""
    keys = range(len(tree)) if isinstance(tree, list) else list(tree) if isinstance(tree, dict) else ()
    return [(tree, key) for key in keys] + [place for key in keys for place in places(tree[key])]


def annotation(dice: random.Random) -> bytes:
    """An annotation file with some of its values changed, or its bytes."""
    records = [
        {"id": n // 2, "captions": ["A man.", "He\nwalks. 女"], "split": split, "file_path": f"{n}.jpg"}
        for n, split in enumerate(("train",) * 4 + ("val",) * 2 + ("test",) * 2)
    ]
    for _ in range(dice.randint(0, 3)):
        container, key = dice.choice(places(records))
        if dice.random() < 0.2:
            del container[key]
        else:
            container[key] = copy.deepcopy(dice.choice(JUNK))
    content = json.dumps(records, ensure_ascii=dice.random() < 0.5).encode(errors="surrogatepass")
    return damaged(content, dice) if dice.random() < 0.5 else content


def test_annotations(tmp_path: Path):
    outcomes = {"read": 0, "refused": 0, "left out": 0}
    for number in range(400):
        dice = random.Random(number)
        path = tmp_path / "reid_raw.json"
        path.write_bytes(annotation(dice))
        try:
            dataset = custom.load(tmp_path, dict().get)
        except DataError as error:
            assert str(path) in str(error) and len(str(error)) < 2000 and "\n" not in str(error)
            outcomes["refused"] += 1
            continue
        assert sorted({record.pid for record in dataset.train}) == list(range(dataset.num_train_ids))
        records = (*dataset.train, *dataset.val, *dataset.test)
        captions = [caption for record in records for caption in record.captions]
        assert all(captions) and shared_tokenizer()(captions, 77).ids.shape == (len(captions), 77)
        outcomes["read"] += 1
        try:
            options = ImageOptions(bad_images=dice.choice(("skip", "error")))
            prepare_images(dataset, (8, 4), options, tmp_path, workers=1)
        except DataError as error:  # there are no images
            assert "no such file" in str(error) or "not a file" in str(error)
            outcomes["left out"] += 1
    assert min(outcomes.values()) > 50, outcomes


NESTED = list(zip("abcdefghi", "bcdefghij", strict=True))
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{inner}'] * 10)}]\n" for inner, name in NESTED
)
MERGES = "a: &a {x: 1, y: 2}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{inner}'] * 10)}]}}\n" for inner, name in NESTED
)
YAML_VALUES = (
    *("!!python/object/apply:os.system ['touch was_here']", "!!python/name:os.system", "!!python/module:os"),
    *("!!python/object/new:os.system ['touch was_here']", "!!python/object/apply:builtins.open [was_here, w]"),
    *(
        "!!python/tuple [1, 2]",
        "!!binary aGVsbG8=",
        "!!binary '?'",
        "!!timestamp 2020-13-45",
        "2020-13-45",
        "!!set {a}",
    ),
    *(
        "!!float x",
        "!!int x",
        "!!bool x",
        "!!omap [1]",
        "!!pairs 3",
        "!unknown 1",
        "!!null 3",
        "!!int ''",
        "!!float ''",
    ),
    *(".nan", ".inf", "-.inf", "1e400", "9" * 5000, "0x", "0b2", "1:30", "1_000", "~", "", "''", "[]", "{}", "{a: b}"),
    *("&x [*x]", "*gone", "[" * 1200, "{" * 1200, "? ", "- 1", "|\n  a\n  b", "\t", "@", "%", "`", "\x07", "\ufeff"),
    *("-1", "0", "1e-5", "true", "yes", "'1, 2'", "[1, [2]]", "[1, 2, 3]", "a b", "../x", "é", "\U0001f600", "no"),
)


def config(saved: str, dice: random.Random) -> bytes:
    """A saved configs.yaml with some of its values changed, or its bytes."""
    lines = dice.sample(saved.splitlines(), 8)
    for _ in range(dice.randint(0, 2)):
        at = dice.randrange(len(lines))
        key = lines[at].split(":")[0]
        lines[at] = dice.choice((f"{key}: {dice.choice(YAML_VALUES)}", dice.choice(YAML_VALUES), f"{key}{lines[at]}"))
    text = "\n".join(lines) + "\n" + dice.choice(("", "", "", BOMB, MERGES, "<<: {lr: 3}\n"))
    return damaged(text.encode(), dice) if dice.random() < 0.3 else text.encode()


def test_configs(trained: Path, tmp_path: Path):
    saved = (trained / "configs.yaml").read_text()
    path, read = tmp_path / "configs.yaml", 0
    groups = tuple(dict.fromkeys(group for members in train_script.GROUPS.values() for group in members))
    flags = flags_of(*groups)
    for number in range(400):
        dice = random.Random(number)
        path.write_bytes(config(saved, dice))
        try:
            options = Options(groups, read_config(path, flags, (), lenient=dice.random() < 0.5), {}, path)
        except ValueError as error:
            assert len(str(error)) < 2000 and "\n" not in str(error)
            assert str(path) in str(error) or str(error).startswith("--")
        else:
            assert yaml.safe_load(yaml.safe_dump(options.flat())) == options.flat()
            read += 1
    assert 30 < read < 300


@pytest.mark.parametrize("bomb", [BOMB, MERGES, BOMB + "lr: *j\n", BOMB + "img_size: *j\n", "img_size: &x [*x]\n"])
def test_yaml_bombs_do_not_go_off(tmp_path: Path, bomb: str, fails):
    path = tmp_path / "bomb.yaml"
    path.write_text(bomb)
    message = fails("train", "--config_file", path)
    assert "bomb.yaml" in message and len(message) < 2000


def test_numbers_that_are_none(fails):
    for value in ("nan", "inf", "1e999"):
        assert f"--lr {value!r}: expected a number" in fails("train", "--lr", value)


def test_checkpoints(tmp_path: Path):
    path = tmp_path / "last.pth"
    content = {"model": {"w": torch.randn(40, 7)}, "progress": {"epoch": 3}}
    forms = []
    for zipped in (True, False):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        forms.append(path.read_bytes())
    refused = [0, 0]
    for number in range(600):
        dice = random.Random(number)
        path.write_bytes(damaged(forms[number % 2], dice))
        try:
            read = read_torch_file(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ") and len(str(error)) < 1000
            refused[number % 2] += 1
        else:
            if number % 2 == 0:  # the format that carries checksums
                assert torch.equal(read["model"]["w"], content["model"]["w"]) and read["progress"] == {"epoch": 3}
    assert refused[0] > 280, "what was not refused has lost nothing but padding"


class _Runs:
    def __reduce__(self) -> tuple:
        return os.system, ("touch was_here",)


def rezipped(source: Path, path: Path, change: Callable[[str, bytes], bytes], how: int = zipfile.ZIP_STORED) -> Path:
    """A zip file with its parts changed, all checksums right."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", how) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return path


def test_checkpoints_that_somebody_made(trained: Path, tmp_path: Path, fails):
    config, path = ["--config_file", trained / "configs.yaml"], tmp_path / "made.pth"
    good = torch.load(trained / "best.pth")["model"]
    first = "clip.visual.proj"

    def refused(content: object) -> str:
        torch.save(content, path)
        message = fails("test", *config, "--checkpoint", path)
        assert "made.pth" in message or "features" in message
        return message

    for content in (_Runs(), {"model": _Runs()}, {"model": {**good, "extra": _Runs()}}, torch.nn.Linear(2, 2)):
        assert "not a checkpoint of plain tensors" in refused(content)
    for content in (None, [], 3, "x", {}, {"model": None}, {"model": {}}, {"model": {first: 3}}, {3: torch.zeros(1)}):
        assert "holds no weights" in refused(content)
    value = good[first]
    for changed in (
        *(torch.zeros(()), torch.zeros(3), torch.zeros(0, 64), torch.zeros(64, 64, 64)),
        *(value.to(torch.complex64), value.to(torch.int8), value.bool()),
    ):
        assert "does not fit the model" in refused({"model": {**good, first: changed}})
    for size in ((64, 64), (1, 2**40)):
        assert "holds no weights" in refused({"model": {**good, first: torch.empty(size, device="meta")}})
    assert "not finite" in refused({"model": {**good, first: torch.full_like(good[first], torch.nan)}})
    for name in ("clip.visual.conv1.weight", "clip.text.token_embedding.weight", "clip.visual.positional_embedding"):
        for changed in (torch.zeros(()), torch.zeros(0), torch.zeros(2, 3)):
            refused({"model": {**good, name: changed}})


def test_files_that_are_no_checkpoints(trained: Path, tmp_path: Path):
    made = tmp_path / "made.pth"
    made.write_bytes(pickle.dumps(_Runs()))
    refused = [made, tmp_path, tmp_path / "pipe", tmp_path / "gone"]
    os.mkfifo(tmp_path / "pipe")
    packed = rezipped(trained / "best.pth", tmp_path / "packed.pth", lambda name, part: part, zipfile.ZIP_DEFLATED)
    evil = rezipped(
        trained / "best.pth",
        tmp_path / "evil.pth",
        lambda name, part: pickle.dumps(_Runs(), 2) if name.endswith("data.pkl") else part,
    )
    for path in (*refused, packed, evil):
        with pytest.raises(ValueError, match=path.name):
            read_torch_file(path)


class _Restores(torch.nn.Module):
    """A TorchScript module with code that runs when it is loaded the usual way."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(3))

    @torch.jit.export
    def __getstate__(self):  # noqa: ANN204
        return (self.w, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):  # noqa: ANN204
        print("code was here")
        self.w = state[0]
        self.training = state[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class _Plain(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn(3))
        self.register_buffer("b", torch.zeros(2, 2, dtype=torch.long))
        self.mask, self.sizes = torch.ones(4), [1, 2]  # attributes that are no weights
        layers = [torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU()) for _ in range(3)]
        self.blocks = torch.nn.Sequential(*layers)
        self.attention = torch.nn.MultiheadAttention(4, 2).half()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks[0](x).sum() + self.mask.sum()


@pytest.mark.parametrize("make", [torch.jit.script, lambda module: torch.jit.trace(module, torch.ones(3))])
def test_torchscript_is_read_without_running_it(tmp_path: Path, make: Callable, capfd):
    path = tmp_path / "archive.pt"
    torch.jit.save(make(_Plain()), path)
    expected, found = torch.jit.load(path).state_dict(), torchscript_weights(path)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert value.dtype == found[key].dtype and torch.equal(value, found[key]), key
    good = path.read_bytes()
    for number in range(100):
        path.write_bytes(damaged(good, random.Random(number)))
        try:
            torchscript_weights(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
    torch.jit.save(torch.jit.script(_Restores()), path)
    capfd.readouterr()
    torch.jit.load(path)
    assert "code was here" in capfd.readouterr().out
    with pytest.raises(ValueError, match="restores itself by code"):
        torchscript_weights(path)
    assert "code was here" not in capfd.readouterr().out
    rezipped(path, tmp_path / "evil.pt", lambda name, part: pickle.dumps(_Runs(), 2) if "data.pkl" in name else part)
    with pytest.raises(ValueError, match="it asks for posix.system"):
        torchscript_weights(tmp_path / "evil.pt")


def encoded(image: Image.Image, kind: str, **more: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(photo(), "JPEG", exif=exif)


def deep() -> Image.Image:
    return Image.fromarray(np.linspace(0, 65535, 64 * 32).astype(np.uint16).reshape(64, 32))


frames = {"save_all": True, "append_images": [photo(seed=1), photo(seed=2)]}
READABLE = {
    "CMYK": lambda: encoded(photo().convert("CMYK"), "JPEG"),
    "16 bits": lambda: encoded(deep(), "PNG"),
    "palette with transparency": lambda: encoded(photo().quantize(8), "PNG", transparency=bytes(range(8))),
    "rotated": rotated,
    "animated GIF": lambda: encoded(photo(), "GIF", **frames),
    "animated WebP": lambda: encoded(photo(), "WEBP", **frames),
    "alpha": lambda: encoded(photo().convert("RGBA"), "PNG"),
    "one bit": lambda: encoded(photo().convert("1"), "TIFF"),
    "one row": lambda: encoded(Image.new("RGB", (20000, 1)), "PNG"),
    "one column": lambda: encoded(Image.new("L", (1, 20000)), "PNG"),
    "one pixel": lambda: encoded(Image.new("RGB", (1, 1)), "BMP"),
}
UNREADABLE = {
    "nothing": lambda: b"",
    "truncated": lambda: jpeg_bytes()[:-200],
    "a page": lambda: b"<html>404</html>",
    "runs a program": eps_bytes,
    "a bomb": lambda: png_header(2**13, MAX_PIXELS // 2**13 + 1),
    "a large bomb": lambda: png_header(2**31 - 1, 2**31 - 1),
    "no width": lambda: png_header(0, 10),
    "no pixels": lambda: png_header(40, 60),
}


def test_every_kind_of_image_is_used_or_counted(data_root: Path, tmp_path: Path, fails, capsys):
    root = tmp_path / "data"
    shutil.copytree(data_root / "CUHK-PEDES", root / "CUHK-PEDES")
    records = json.loads((root / "CUHK-PEDES" / "reid_raw.json").read_text())
    files = [root / "CUHK-PEDES" / "imgs" / r["file_path"] for r in records if r["split"] == "train"]
    kinds = {**UNREADABLE, **READABLE}
    assert len(kinds) <= len(files)
    for path, make in zip(files, kinds.values(), strict=False):
        path.write_bytes(make())
    flags = [*SMALL, "--loss_names", "itc", "--root_dir", root, "--num_epoch", "1"]
    message = fails("train", *flags, "--run_dir", tmp_path / "strict", "--cache")
    assert f"{len(UNREADABLE)} images missing or undecodable" in message and str(files[0]) in message
    message = fails("train", *flags, "--run_dir", tmp_path / "late")
    assert any(str(path) in message for path in files[: len(UNREADABLE)]), "found when it is loaded"
    capsys.readouterr()
    train_script.main([str(flag) for flag in (*flags, "--run_dir", tmp_path / "skipping", "--bad_images", "skip")])
    assert f"train: left out {len(UNREADABLE)} of {len(files)} images" in capsys.readouterr().err


def test_damaged_images(tmp_path: Path):
    kinds = [make() for make in READABLE.values()]
    path = tmp_path / "a"
    for number in range(300):
        dice = random.Random(number)
        path.write_bytes(damaged(dice.choice(kinds), dice))
        try:
            assert decode(path).mode == "RGB"
        except ImageError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)


def test_a_config_for_scripts_runs_nothing_either(tmp_path: Path):
    path = tmp_path / "configs.yaml"
    for value in YAML_VALUES:
        path.write_text(f"lr: {value}\n")
        try:
            load_train_configs(path)
        except ValueError as error:
            assert str(path) in str(error)
    path.write_text(yaml.safe_dump({"lr": 1.0}))
    assert load_train_configs(path).lr == 1.0
