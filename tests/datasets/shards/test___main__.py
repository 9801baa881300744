"""``python -m datasets.shards``: what it prints and writes."""

import json

import pytest
from PIL import Image

from datasets.shards.__main__ import main
from tests.helpers.annotations import write_images
from tests.helpers.runs import python
from utils import UserError


@pytest.mark.parametrize("command", ["", "import", "check", "info", "sample", "index"])
def test_help_fits_a_terminal(command, capsys):
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_from_import_to_sample(tmp_path, capsys):
    names = write_images(tmp_path / "images", 6)
    captions = {name: ["A man in a coat.", "He walks."] for name in names} | {"missing.jpg": ["x"], names[0]: ["", "y"]}
    (tmp_path / "caption.json").write_text(json.dumps(captions))
    line = ["--annotation", tmp_path / "caption.json", "--images", tmp_path / "images", "--output", tmp_path / "out"]
    main(["import", *map(str, line), "--workers", "1"])
    said = capsys.readouterr().out
    for words in (
        "images",
        "6",
        "11 (1.83 of an image)",
        "not known",
        "images that are missing",
        "captions that are empty",
    ):
        assert words in said
    assert said.splitlines()[-1] == f"what was left out, one by one: {tmp_path / 'out' / 'left_out.jsonl'}"
    main(["info", str(tmp_path / "out")])
    assert capsys.readouterr().out == "\n".join(said.splitlines()[:-1]) + "\n"
    main(["check", str(tmp_path / "out"), "--workers", "1"])
    assert capsys.readouterr().out == f"{tmp_path / 'out'}: all 6 images in 1 shards are as the index says\n"
    sheet = tmp_path / "new" / "sheet.png"
    main(["sample", str(tmp_path / "out"), "--output", str(sheet), "--count", "4"])
    assert capsys.readouterr().out == f"{sheet}\n"
    assert Image.open(sheet).width > 1000
    with pytest.raises(UserError, match="--output .*sheet.unknown: cannot be written"):
        main(["sample", str(tmp_path / "out"), "--output", str(tmp_path / "sheet.unknown")])
    main(["index", str(tmp_path / "out"), "--workers", "1"])
    assert "11 (1.83 of an image)" in capsys.readouterr().out


def test_faults_end_in_one_line(tmp_path):
    write_images(tmp_path, 3)
    (tmp_path / "caption.json").write_text('{"part0/0.jpg": ["a"], "part1/1.jpg": "b"}')
    line = ["--annotation", tmp_path / "caption.json", "--images", tmp_path, "--output", tmp_path / "out"]
    run = python("-m", "datasets.shards", "import", *line)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.splitlines() == [
        f"python -m datasets.shards: error: {tmp_path / 'caption.json'}: record 1 captions 'b' are not a list; mend "
        "it, or give --bad_records skip"
    ]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--form", "hamm"], "invalid choice: 'hamm'"),
        (["--resize", "0", "3"], "argument --resize: '0' is not a whole number of at least 1"),
        (["--shards", "3"], "unrecognized arguments: --shards"),
    ],
)
def test_wrong_flags(more, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["import", "--annotation", "a.json", "--output", str(tmp_path), *more])
    assert message in capsys.readouterr().err
