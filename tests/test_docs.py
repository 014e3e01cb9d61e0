"""The README and docs/: what they link to, name or run exists, and each figure stands in one place."""

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest

from realportrait_core.config import PAPER
from realportrait_core.convert.describe import describe
from realportrait_core.dit import RealPortraitDiT

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "realportrait_core"
CARD = CORE / "weights" / "CARD.md"
PAPER_PAGE = ROOT / "docs" / "paper.md"
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "web" / "docs").glob("*.md")),
    *sorted((ROOT / "rendered_heads").glob("*.md")),
    *sorted((ROOT / "benchmarks").rglob("*.md")),
    CARD,
]
PACKAGES = {"realportrait_core", "rendered_heads", "benchmarks"}
TOP = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in {"output", "runs"}}
MOST_LINES = 215  # of the README
FOREIGN = {"--depth", "--fp32-vae"}  # git's and ComfyUI's options

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """The page without its blocks of commands, in which a # is no heading and a bracket no link."""
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)


@cache
def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[tuple[str, str]]:
    """(text, target) of every link and picture."""
    return re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", prose(page))


@cache
def defined(file: Path) -> frozenset[str]:
    """Classes, functions and constants of a module, and as Class.name what its classes define."""
    found = set()

    def walk(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                walk(node.body, f"{prefix}{node.name}.")
            if isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found.update(prefix + target.id for target in targets if isinstance(target, ast.Name))

    walk(ast.parse(text_of(file)).body, "")
    return frozenset(found)


@cache
def literals(package: Path) -> frozenset[str]:
    """Every string of a package's sources."""
    files = sorted(package.rglob("*.py")) if package.is_dir() else [package]
    trees = [ast.parse(text_of(file)) for file in files]
    return frozenset(
        node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


@cache
def commands(page: Path) -> list[str]:
    """Every command of ours that a page names, on one line: of blocks, and of single words in backticks."""
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`([^`]+)`", prose(page).replace("\n", " "))
    # A placeholder such as [--photos DIR] is an option too; a comment and what is piped on are not of the command.
    return [
        line.replace("[", " ").replace("]", " ") for line in lines if re.search(r"(python\S*|torchrun.*?) (-m |scripts/)", line)
    ]


# Links and paths


@each_page
def test_links_lead_somewhere(page):
    wrong = []
    for text, target in links(page):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        file = page if not path else (page.parent / path).resolve()
        if not file.exists():
            wrong.append(f"[{text}]({target}): no such file")
        elif anchor and anchor not in anchors(file):
            wrong.append(f"[{text}]({target}): no such heading")
    assert not wrong


@each_page
def test_paths_exist(page):
    """In backticks: what begins with a folder of the repository, and every .py with a folder, whole or below the core."""
    wrong = []
    for token in re.findall(r"`([^`\s]+)`", prose(page)):
        path = token.partition(":")[0].rstrip("/")
        first = path.partition("/")[0]
        if "/" not in token or re.search(r"[*{}<>$]", path) or not (first in TOP or path.endswith(".py")):
            continue
        if not (ROOT / path).exists() and not (CORE / path).exists():
            wrong.append(token)
    assert not wrong


def test_every_page_is_reached_from_the_readme():
    linked = {(ROOT / target.partition("#")[0]).resolve() for _, target in links(ROOT / "README.md")}
    pages = {*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), CARD} - {ROOT / "README.md"}
    assert pages <= linked


def test_pictures_are_shown_and_described():
    """No picture in docs/ is left over, and each has words for those who cannot see it."""
    shown = {}
    for page in PAGES:
        for text, target in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", prose(page)):
            shown[(page.parent / target).resolve()] = text
    pictures = {file for file in (ROOT / "docs").iterdir() if file.suffix in {".png", ".jpg", ".webp", ".svg"}}
    assert pictures <= shown.keys()
    assert min(len(shown[picture].split()) for picture in pictures) >= 4


def test_readme_is_short_and_shows_the_moving_picture_first():
    lines = text_of(ROOT / "README.md").splitlines()
    assert len(lines) <= MOST_LINES
    assert any("(docs/demo.webp)" in line for line in lines[:15])


# Commands


@each_page
def test_commands_exist(page):
    """Modules run by python -m, scripts, their subcommands and options."""
    wrong = []
    for command in commands(page):
        for run, rest in re.findall(r"(?:python\S*|torchrun.*?) (-m [\w.]+|scripts/\w+\.py)((?:(?!python).)*)", command):
            name = run.removeprefix("-m ").rstrip(".")
            if run.startswith("-m ") and name.split(".")[0] not in PACKAGES:
                continue
            path = ROOT / name.replace(".", "/") if run.startswith("-m ") else ROOT / run
            file = path / "__main__.py" if path.is_dir() else path if path.suffix else path.with_suffix(".py")
            if not file.is_file():
                wrong.append(f"{command}: no {file.relative_to(ROOT)}")
                continue
            known = literals(path if path.is_dir() else file) | (literals(ROOT / "scripts") if "scripts" in run else frozenset())
            subcommand = re.match(r" ([a-z]+)\b(?![./=])", rest) if run.startswith("-m ") else None
            names = [*re.findall(r" (--[a-z][a-z0-9-]*)", rest), *([subcommand[1]] if subcommand else [])]
            wrong += [f"{command}: no {name}" for name in names if name not in known and not option_of(name, known)]
    assert not wrong


def test_options_by_themselves_exist():
    """In backticks without their command: those of any command of ours."""
    known = literals(ROOT / "scripts").union(*(literals(ROOT / name) for name in PACKAGES), literals(ROOT / "install.py"))
    wrong = [
        f"{page.name}: {name}"
        for page in PAGES
        for name in re.findall(r"`(--[a-z][a-z0-9-]*)", prose(page))
        if name not in FOREIGN and name not in known and not option_of(name, known)
    ]
    assert not wrong


def option_of(name: str, known: frozenset[str]) -> bool:
    """Whether an option is made of another, as --no-compile is, or of a field's name, as --face-side is of face_side."""
    name = name.replace("--no-", "--")
    return name in known or name.removeprefix("--").replace("-", "_") in known or any(f"{name} " in text for text in known)


# The paper in the code


def test_the_papers_table_names_what_is_there():
    """Behind a link to a module stand names that it defines: `Class`, `Class.method`, `function`, `CONSTANT`."""
    named, wrong = 0, []
    for row in re.findall(r"^\|.*\|$", text_of(PAPER_PAGE), re.MULTILINE):
        for target, names in re.findall(r"\]\(\.\./([\w/]+\.py)\)((?: `[^`]+`,?)*)", row):
            for name in re.findall(r"`([^`]+)`", names):
                named += 1
                if not (ROOT / target).is_file() or name not in defined(ROOT / target):
                    wrong.append(f"{target}: {name}")
    assert not wrong
    assert named > 60


def test_every_choice_of_ours_names_its_place():
    """Each row of "Where the paper is silent" ends with a module and a name in it."""
    section = text_of(PAPER_PAGE).partition("## Where the paper is silent")[2].partition("\n## ")[0]
    rows = re.findall(r"^\|.*\|$", section, re.MULTILINE)[2:]
    assert len(rows) > 30
    assert [row for row in rows if not re.search(r"\]\(\.\./realportrait_core/[\w/]+\.py\)(?: `[^`]+`,?)+ \|$", row)] == []


def test_the_papers_table_has_every_part_of_the_core():
    """A room of the core that is in neither table nor this list holds an idea that nobody finds."""
    plumbing = {
        "errors",
        "batch",
        "checkpoint",
        "licences",
        "edit",
        "inspect",
        "memory",
        "motion_file",
        "opencv",
        "paste",
        "stlpips",
        "video",
        "whole_file",
    }
    rooms = {path.stem for path in CORE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()} - {"__init__"}
    linked = {Path(target).parts[2].removesuffix(".py") for _, target in links(PAPER_PAGE) if "/realportrait_core/" in target}
    assert rooms - plumbing <= linked


# Figures


def test_each_figure_stands_in_one_place():
    """A table's row of figures is on one page, once."""
    rows = {}
    for page in PAGES:
        for row in re.findall(r"^\|.*\|$", text_of(page), re.MULTILINE):
            figures = tuple(re.findall(r"-?\d+\.\d+", row))
            if len(figures) >= 4:
                rows.setdefault(figures, []).append(page.relative_to(ROOT).as_posix())
    assert len(rows) > 40
    assert [places for places in rows.values() if len(places) > 1] == []


def test_parameters_are_those_of_the_files():
    """The card's exact numbers are what `checkpoint inspect` prints; README and paper.md have them rounded."""
    rows = re.findall(r"^\| `(\S+\.safetensors)` \|.*\| (\d[\d,]*\d)", text_of(CARD), re.MULTILINE)
    card = {CARD.parent / name: number for name, number in rows}
    assert card.keys() == set(CARD.parent.rglob("*.safetensors"))
    for file, number in card.items():
        assert any(re.match(rf"parameters +{number}\b", line) for line in describe(file)), file
    dit = int(card[CARD.parent / "realportrait" / "realportrait_mini.safetensors"].replace(",", ""))
    paper = sum(parameter.numel() for parameter in RealPortraitDiT(PAPER.dit, device="meta").parameters())
    for page in (ROOT / "README.md", PAPER_PAGE):
        assert f"{dit / 1e6:.1f} M" in text_of(page) and f"{paper / 1e6:.1f} M" in text_of(page)


# Nodes and workflows


def test_every_node_and_workflow_is_listed():
    nodes = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    page = text_of(ROOT / "docs" / "nodes.md")
    assert [node["display_name"] for node in nodes.values() if f"| {node['display_name']} |" not in page] == []
    assert f"{len(nodes)} nodes" in text_of(ROOT / "README.md")
    for workflow in (ROOT / "workflows").glob("*.json"):
        assert f"| `{workflow.stem}` |" in page and f"| `{workflow.stem}` |" in text_of(ROOT / "README.md"), workflow.stem


def test_the_drivers_name_in_user_texts():
    """What users read calls it the driving video; `driver_face` and its kin are sockets of saved workflows."""
    for page in PAGES:
        own = re.sub(r"^>.*$", "", prose(page), flags=re.MULTILINE)  # a quotation is as the code has it
        assert re.findall(r".*\bdrivers?\b.*", re.sub(r"`[^`]*`|driver_\w+", "", own), re.IGNORECASE) == [], page
    for workflow in (ROOT / "workflows").glob("*.json"):
        graph = json.loads(workflow.read_text(encoding="utf-8"))
        texts = [group["title"] for group in graph["groups"]] + [node.get("title", "") for node in graph["nodes"]]
        texts += [value for node in graph["nodes"] for value in node.get("widgets_values") or [] if isinstance(value, str)]
        assert [text for text in texts if re.search(r"\bdriver\b", text, re.IGNORECASE)] == [], workflow


# Faults


FAULTS = ROOT / "docs" / "faults.md"
FAULT_CLASSES = 40


def table_rows(page: Path, columns: int) -> list[list[str]]:
    """The rows of the page's tables with so many columns, without their heads."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in prose(page).splitlines() if line.startswith("|")]
    heads = {i + shift for i, row in enumerate(rows) if set("".join(row)) <= set("-: ") for shift in (-1, 0)}
    return [row for i, row in enumerate(rows) if i not in heads and len(row) == columns]


def named_tests(text: str) -> list[tuple[str, str]]:
    """(file, function) of every `tests/FILE.py::FUNCTION`."""
    return re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)


def test_every_class_of_fault_has_a_row():
    rows = table_rows(FAULTS, 5)
    assert [row[0] for row in rows] == [str(number) for number in range(1, FAULT_CLASSES + 1)]
    assert [row[0] for row in rows if not all(row) or not named_tests(row[4])] == []


def test_every_promise_has_its_test():
    rows = table_rows(FAULTS, 2)
    assert len(rows) >= 7 and all(row[0] and named_tests(row[1]) for row in rows)


def test_the_tests_of_faults_exist():
    named = named_tests(text_of(FAULTS))
    assert len(named) > 100 and len(named) == text_of(FAULTS).count("::")
    assert [f"{file}::{test}" for file, test in named if not (ROOT / file).is_file() or test not in defined(ROOT / file)] == []
