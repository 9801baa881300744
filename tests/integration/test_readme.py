"""What README and docs show works as it stands, and stands once."""

import re
import shlex

import pytest

import export as export_script
import search as search_script
import test as test_script
import train as train_script
from tests.helpers.runs import ROOT
from utils.command import build_parser

PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    *sorted(f"docs/{p.name}" for p in (ROOT / "docs").iterdir()),
)
OF_OTHERS = {
    *("nproc_per_node", "nnodes", "node_rank", "master_addr", "max_restarts", "rdzv_id", "local_rank", "local"),
    *("help", "config_file", "csv", "latex", "markdown", "large", "encode", "pairs"),
}
"""flags of torchrun (taken, or passed on), of modules that are named in the text only, and of every script"""
PLACEHOLDER = re.compile(r"NAME|PACKAGE|FILE|triplet|pairs_tsv|reciprocal_rank|patches")
"""in a path or flag: stands for something of the reader's own"""


def text_of(page: str) -> str:
    """A page as it is written."""
    return (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page: str):
    folders = "|".join(path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] != ".")
    for path in re.findall(rf"(?<![\w/])(?:{folders})/[\w./-]+\.(?:yaml|py|md|in|sh)\b", text_of(page)):
        assert PLACEHOLDER.search(path) or (ROOT / path).exists(), path
    for module in re.findall(r"python -m ([\w.]+)", text_of(page)):
        path = ROOT / module.replace(".", "/")
        assert PLACEHOLDER.search(module) or path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str):
    for link in re.findall(r"\]\(([^)]+)\)", re.sub(r"```.*?```", "", text_of(page), flags=re.S)):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, link


@pytest.mark.parametrize("page", PAGES)
def test_named_flags_exist(page: str):
    scripts = (train_script, test_script, search_script, export_script)
    help_text = "".join(build_parser(script.GROUPS, "").format_help() for script in scripts)
    of_modules = re.compile(r"python -m ([\w.]+)([^`|\n]*)")
    sources = ""
    for module, flags in of_modules.findall(text_of(page)):
        source = ROOT / module.replace(".", "/")
        source = source / "__main__.py" if source.is_dir() else source.with_suffix(".py")
        sources += source.read_text(encoding="utf-8")
        for flag in set(re.findall(r"--\w+", flags)) - {"--help"}:
            assert f'"{flag}"' in source.read_text(encoding="utf-8"), f"{module} {flag}"
    of_tools = re.compile(r"uv pip [^`\n]*|conda [^`\n]*")
    text = of_tools.sub("", of_modules.sub("", text_of(page)))
    for flag in set(re.findall(r"(?<![\w-])--([a-z_A-Z0-9]{3,})", text)) - OF_OTHERS:
        assert PLACEHOLDER.search(flag) or f"--{flag}" in help_text or f'"--{flag}"' in sources, flag


def test_published_commands_are_understood():
    commands = re.findall(r"^python train\.py (.*)$", text_of("docs/methods.md"), re.M)
    assert len(commands) == 6
    for command in commands:
        options = train_script.read_flags(shlex.split(command))
        assert options.given("loss_names"), command


def test_the_readme_is_short():
    assert len(text_of("README.md").splitlines()) <= 220


def test_the_layout_names_every_package():
    (tree,) = re.findall(r"## Layout\n\n```\n(.*?)```", text_of("README.md"), re.S)
    parent, named = "", set()
    for indent, folder in re.findall(r"^( *)(\w+)/ ", tree, re.M):
        parent = parent if indent else folder
        named.add(f"{parent}/{folder}" if indent else folder)
    packages = {str(path.parent.relative_to(ROOT)) for path in ROOT.glob("*/**/__init__.py")}
    packages = {path for path in packages if path[0] != "." and not path.startswith("tests/") and path.count("/") < 2}
    assert packages <= named
    assert all((ROOT / folder).is_dir() for folder in named)


def sentences(page: str) -> list[str]:
    """Sentences, cells of tables and lines of commands of a page, each with at least eight words."""
    found = []
    for number, part in enumerate(text_of(page).split("```")):
        if number % 2:  # a block of code: examples in Python may begin alike
            found += part.splitlines() if part.startswith("bash\n") else []
        else:
            lines = re.sub(r"^(\||- |#).*", r"\n\g<0>\n", part, flags=re.M)  # each a paragraph of its own, but for
            lines = re.sub(r"\n\n  (?=\w)", " ", lines)  # lines that continue an item
            cells = [cell for paragraph in re.split(r"\n\s*\n", lines) for cell in paragraph.split("|")]
            found += [sentence for cell in cells for sentence in re.split(r"(?<=[.:;?!])\s", " ".join(cell.split()))]
    normal = [" ".join(re.findall(r"[\w-]+", sentence.lower())) for sentence in found]
    return [sentence for sentence in normal if len(sentence.split()) >= 8]


def test_nothing_stands_twice():
    pages_by_sentence: dict[str, list[str]] = {}
    for page in PAGES:
        for sentence in sentences(page):
            pages_by_sentence.setdefault(sentence, []).append(page)
    assert len(pages_by_sentence) > 100
    twice = {sentence: pages for sentence, pages in pages_by_sentence.items() if len(pages) > 1}
    assert not twice
