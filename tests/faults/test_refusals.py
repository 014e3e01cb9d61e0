"""Every refusal says what is wrong, where, and what to do next: the form of all of them, read from the sources.

What a sentence means no test can tell; that it is one, names a number, file, node or value, and goes on to what is needed, it can.
"""

import ast
import re
from pathlib import Path

import pytest

from realportrait_core import errors

ROOT = Path(__file__).resolve().parents[2]
KINDS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.RealPortraitError)}
ROOMS = [path for folder in ("realportrait_core", "nodes") for path in sorted((ROOT / folder).rglob("*.py"))]

# Where errors are clauses that another error puts into its sentence, such as "line 5: its portrait a.txt is no picture".
CLAUSES = {
    "nodes/host/faces.py",
    "realportrait_core/batch/jobs.py",
    "realportrait_core/face/given.py",
    "realportrait_core/motion_file/pickled.py",
    "realportrait_core/motion_file/template.py",
    "realportrait_core/train/data/frozen.py",
    "realportrait_core/train/data/prepare.py",
    "realportrait_core/vae/files.py",
}
# What a user of the nodes meets; in these the sentence must also say what is needed, or what to do.
MET_IN_NODES = ("nodes/", *(f"realportrait_core/{room}" for room in ("animation/", "face/", "video/", "paste.py", "motion_map.py")))

START = re.compile(
    r"[A-Z0-9{'\"`]|--|[a-z]\w* (is|has|must|cannot|\{)|[a-z]+_\w+"
)  # a capital, a value, an option, an input's name
END = re.compile(r"[.?]`?$|\}$")  # a full stop; or another error's sentence
NAMED = re.compile(r"\{|\d|['\"`]|--| [A-Z*]|[a-z]_[a-z]")  # a value, number, quotation, option, or the name of a node or input
NEXT = re.compile(
    r"\b(must|needs?|takes?|only|at least|at most|up to|between|one of|both|neither|instead|lacks?|missing|has|have|had|where)\b"
    r"|[.:;?] [A-Z`{*]|[:;] (?!its\b)[a-z0-9]+ |`|\{(error|advice|HOW|get)"
)
VAGUE = re.compile(r"(?i)^(error|exception|failed)\b|traceback|\billegal\b|something went wrong|unexpected error")


def text_of(node: ast.expr) -> str | None:
    """The text with {expression} where a value is put in; None where it is made elsewhere."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(p.value if isinstance(p, ast.Constant) else f"{{{ast.unparse(p.value)}}}" for p in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            texts = text_of(left), text_of(right)
            return None if None in texts else "".join(texts)
        case ast.Call(func=ast.Attribute(value=value, attr="format")):
            return text_of(value)
    return None


def refusals() -> list[tuple[str, int, str | None]]:
    """(file, line, text) of every error of ours that is raised."""
    found = []
    for path in ROOMS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Raise(exc=ast.Call(func=ast.Name(id=name), args=[first, *_])) if name in KINDS:
                    found.append((path.relative_to(ROOT).as_posix(), node.lineno, text_of(first)))
    return found


ALL = refusals()
SENTENCES = [(file, line, text) for file, line, text in ALL if text is not None and file not in CLAUSES]


def faults_of(file: str, text: str) -> list[str]:
    faults = [
        ("no sentence's beginning", not START.match(text)),
        ("no full stop", not END.search(text)),
        ("names nothing", not NAMED.search(text)),
        ("vague", VAGUE.search(text)),
        ("stray spaces or dots", text != text.strip() or "  " in text or ".." in text.replace("...", "")),
        ("not what is needed", file.startswith(MET_IN_NODES) and not NEXT.search(text)),
    ]
    return [fault for fault, there in faults if there]


def test_all_errors_are_found():
    assert len(ALL) > 450 and {"InputError", "FaceError", "WeightsError", "RealPortraitError"} <= KINDS
    assert len([text for _, _, text in ALL if text is None]) < 10  # put together elsewhere
    raised = sum(path.read_text(encoding="utf-8").count(f"raise {kind}(") for path in ROOMS for kind in KINDS)
    assert len(ALL) == raised
    assert CLAUSES <= {file for file, _, _ in ALL}


def test_every_refusal_is_a_sentence_with_its_numbers_and_what_is_needed():
    wrong = [f"{file}:{line}: {', '.join(found)}: {text}" for file, line, text in SENTENCES if (found := faults_of(file, text))]
    assert not wrong, "\n".join(wrong)


def test_clauses_are_put_into_sentences():
    """Nothing of a file in CLAUSES reaches the user as it is: somebody catches it and goes on with `{error}`."""
    for file in CLAUSES:
        module = Path(file).stem
        users = [path for path in ROOMS if re.search(rf"\b{module}\b", path.read_text(encoding="utf-8")) or path == ROOT / file]
        assert any(re.search(r"except \(?[^:]*(Error)[^:]*\)? as error", path.read_text(encoding="utf-8")) for path in users), file


@pytest.mark.parametrize(
    "text, fault",
    [
        ("Invalid input", "no full stop"),
        ("the portrait is {x}.", "no sentence's beginning"),
        ("seed is {x}; it must be at least 0.", None),  # an input's name
        ("Something is wrong.", "names nothing"),
        ("Error: {x} is too small.", "vague"),
        ("The picture is {width} px wide.", "not what is needed"),
        ("The picture is {width} px wide;  it must be {x}.", "stray spaces or dots"),
        ("The picture is {width} px wide; it must be at least 16 px.", None),
        ("{name} cannot be read: {error}", None),
    ],
)
def test_the_form_tells_sentences_from_others(text, fault):
    found = faults_of("nodes/face.py", text)
    assert fault in found if fault else not found
