"""That enough is fuzzed: the cases of all tests, as their marks give them. That each has them is asserted in `fuzz`."""

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
MARK = re.compile(r"@cases\(normal=(\d+), nightly=(\d+)\)(?:\n@pytest\.mark\.parametrize\(\"\w+\", (\w+|range\(\d\))\))?")
LENGTHS = {"LIGHT": 2, "HEAVY": 4, "KINDS": 5, "range(6)": 6, "": 1}  # of the parameters of a marked test


def test_the_number_of_cases():
    texts = [path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py")]
    marks = [mark for text in texts for mark in MARK.findall(text)]
    assert len(marks) == sum(text.count("\n@cases(") for text in texts) > 10
    normal, nightly = (sum(int(mark[which]) * LENGTHS[mark[2]] for mark in marks) for which in (0, 1))
    assert 2_000 <= normal < 3_000 and 100_000 <= nightly < 160_000
