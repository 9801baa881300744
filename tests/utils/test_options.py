"""Flags from dataclasses, yaml and the command line."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from utils import UserError
from utils.command import parse
from utils.options import load_train_configs, opt


@dataclass(frozen=True)
class Some:
    """For the tests."""

    rate: float = opt(0.1, "a number", above=0)
    sides: tuple[int, ...] = opt((3, 4), "two numbers")
    active: bool = opt(False, "a switch")
    off: bool = opt(True, "a switch that is on")
    limit: int | None = opt(None, "a number or nothing", least=-1, most=9)
    kind: str = opt("a", "a word", choices=("a", "b"), aliases=("sort",))
    where: Path = opt(Path("x"), "a path")
    sets: str = opt("a", "words with + between", choices=("a", "b", "c"), joined="+")


GROUPS = {"some": [Some]}


def read(*argv: str, **kwargs: object) -> Some:
    return parse(GROUPS, argv, "test", **kwargs).get(Some)


def test_defaults():
    assert read() == Some()


@pytest.mark.parametrize("sides", [["5", "6"], ["5,6"], ["5, 6"], ["5,", "6"]])
def test_lists_in_every_spelling(sides: list[str]):
    assert read("--sides", *sides).sides == (5, 6)


def test_several_choices_in_one_text():
    assert read("--sets", "c+a").sets == "c+a"


@pytest.mark.parametrize("value", ["a+", "+", "a b", "ab", "a+x"])
def test_what_is_no_join_of_choices(value: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        read("--sets", value)
    assert f"--sets {value!r}: choose one of a, b, c, or several joined by +" in capsys.readouterr().err


def test_switches():
    some = read("--active", "--no_off")
    assert some.active and not some.off
    some = read("--active", "false", "--off", "true")
    assert not some.active and some.off


def test_yaml_is_typed_and_the_command_line_wins(tmp_path: Path):
    file = tmp_path / "some.yaml"
    file.write_text("rate: 1e-5\nsides: !!python/tuple [7, 8]\nlimit: null\nsort: b\nactive: true\n")
    some = read("--config_file", str(file), "--sides", "1", "2")
    assert some == Some(rate=1e-5, sides=(1, 2), active=True, kind="b")


def test_saved_flags_read_back(tmp_path: Path):
    options = parse(GROUPS, ["--rate", "2", "--where", "a/b", "--limit", "3"], "test")
    options.save(tmp_path / "configs.yaml")
    assert read("--config_file", str(tmp_path / "configs.yaml")) == options.get(Some)
    assert load_train_configs(tmp_path / "configs.yaml").where == "a/b"
    assert options.given("rate") and not options.given("kind")


def test_ignored_flags_are_accepted_in_both_spellings(tmp_path: Path):
    file = tmp_path / "some.yaml"
    file.write_text("local_rank: 0\nrate: 3\n")
    some = read("--local-rank", "1", "--local_rank=2", "--config_file", str(file), ignored={"local_rank": "no use"})
    assert some.rate == 3


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--rate", "x"], "--rate 'x': expected a number"),
        (["--kind", "c"], "--kind 'c': choose one of a, b"),
        (["--sides", "1.5"], "--sides '1.5': expected a whole number"),
        (["--active", "perhaps"], "expected true or false"),
        (["--rate", "0"], "--rate 0.0: expected a number above 0"),
        (["--limit", "-2"], "--limit -2: expected at least -1 and at most 9"),
        (["--limit", "10"], "--limit 10: expected at least -1 and at most 9"),
        (["--rat", "1"], "unrecognized arguments"),
    ],
)
def test_wrong_values(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        read(*argv)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_limits_themselves_are_allowed():
    assert [read("--limit", value).limit for value in ("-1", "9")] == [-1, 9]


def test_a_value_that_moves_to_another_flag_keeps_to_its_limits():
    options = parse(GROUPS, ["--rate", "12"], "test")
    with pytest.raises(UserError, match="--limit 12: expected at least -1 and at most 9"):
        options.renamed("rate", "limit")


def test_a_number_that_is_not_finite_in_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.yaml").write_text("sides: [1, {a: 2}]\n")
    with pytest.raises(SystemExit):
        read("--config_file", str(tmp_path / "a.yaml"))
    assert "--sides {'a': 2}: expected a whole number" in capsys.readouterr().err


def test_what_the_line_overrides_is_not_refused_in_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A fork's run directory may name a data set that is not ours."""
    file = tmp_path / "configs.yaml"
    file.write_text("kind: theirs\nRATE: 2\n")
    assert read("--config_file", str(file), "--kind", "b") == Some(rate=2.0, kind="b")
    with pytest.raises(SystemExit):
        read("--config_file", str(file))
    message = capsys.readouterr().err
    assert "--kind 'theirs': choose one of a, b, or give --kind on the command line, which wins" in message


def test_a_command_line_over_other_flags(tmp_path: Path):
    (tmp_path / "one.yaml").write_text("rate: 1\nlimit: 1\n")
    (tmp_path / "two.yaml").write_text("rate: 2\nkind: b\nold: 3\n")
    options = parse(GROUPS, ["--config_file", str(tmp_path / "one.yaml"), "--rate", "5"], "test")
    other = options.based_on(tmp_path / "two.yaml", {"old"})
    assert other.get(Some) == Some(rate=5.0, kind="b")
    assert other.config_file == tmp_path / "two.yaml"
    assert options.get(Some) == Some(rate=5.0, limit=1)
    with pytest.raises(UserError, match="two.yaml: unknown flag 'old'"):
        options.based_on(tmp_path / "two.yaml", ())
    assert options.replaced(rate=7.0).get(Some) == Some(rate=7.0, limit=1)
