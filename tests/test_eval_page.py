"""The report as a file: it loads nothing, escapes every name, and shows every case and row; strips and videos of tiles."""

import base64
import json
import re
import sys
from html.parser import HTMLParser
from math import nan

import numpy as np
import pytest
import torch

from realportrait_core.errors import InputError
from realportrait_core.eval import __main__ as command
from realportrait_core.eval.record import CaseRecord, record_path, write_record
from realportrait_core.eval.report import About, gallery, plots, render, write_report, writing
from realportrait_core.eval.report.cells import best_rows, column_of, number
from realportrait_core.eval.report.pictures import HEAD, TILE, read_layout, strip, write_strip, write_tiles
from realportrait_core.eval.report.statistics import Figure
from realportrait_core.eval.rows import FACE_VID2VID, REALPORTRAIT, STATIC, TRUTH

LOADING = ("src", "href", "xlink:href", "srcset", "action", "data", "poster")
BAD = 'x</script><script>alert("1")</script>&amp;|*'


class Read(HTMLParser):
    """What a browser would see: text, scripts by their id, and what the page asks for."""

    def __init__(self, page: str):
        super().__init__()
        self.text, self.scripts, self.asked, self.here, self.tags = "", {}, [], "", []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append(tag)
        self.asked += [given[name] for name in LOADING if given.get(name)]
        self.here = given.get("id", "script") if tag == "script" else ""

    def handle_endtag(self, tag):
        self.here = ""

    def handle_data(self, data):
        if self.here:
            self.scripts[self.here] = data
        elif self.tags[-1:] != ["style"]:
            self.text += data


def record(
    name: str, table: str = "self", rows=(STATIC, FACE_VID2VID, REALPORTRAIT), error: float = 0.1, frames: int = 3
) -> CaseRecord:
    """Rows with ST-LPIPS that falls by 0.01 from row to row, and flicker beside the truth's."""
    figures = {
        row: {"st_lpips": [error - 0.01 * k] * frames, "flicker_255": [None, *[1.0] * (frames - 1)]} for k, row in enumerate(rows)
    }
    return CaseRecord(table, name, frames, {TRUTH: {"flicker_255": [None, *[2.0] * (frames - 1)]}, **figures})


def written(folder, records, about=About()) -> tuple[str, Read]:
    write_report(folder, records, about)
    page = (folder / "report.html").read_text(encoding="utf-8")
    return page, Read(page)


def greys(*levels: float, size: int = 32) -> torch.Tensor:
    """(L, 3, size, size), a grey for each frame."""
    return torch.tensor(levels)[:, None, None, None].expand(-1, 3, size, size)


def with_pictures(folder, entry: CaseRecord) -> CaseRecord:
    path = record_path(folder, entry.table, entry.name)
    rows = {"portrait": greys(0.5), TRUTH: greys(0.1, 0.2, 0.3), REALPORTRAIT: greys(0.4, 0.5, 0.6)}
    write_tiles(path.with_suffix(".mp4"), rows, 10)
    write_strip(path.with_suffix(".jpg"), rows)
    return entry


def test_the_page_loads_nothing(tmp_path):
    records = [with_pictures(tmp_path, record("a")), record("b", "cross")]
    page, read = written(tmp_path, records)
    assert all(asked.startswith(("data:image/jpeg;base64,", "#")) for asked in read.asked) and len(read.asked) > 1
    without_files = re.sub(r"[A-Za-z0-9+/]{200,}=*", "", page)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", without_files.replace("// ", ""))
    assert "default-src 'none'" in page and not {"link", "iframe", "base", "object", "embed"} & set(read.tags)


def test_every_case_and_row_is_there(tmp_path):
    records = [record(f"case{i}", table, error=i / 100) for table in ("self", "cross", "long") for i in range(5)]
    page, read = written(tmp_path, records, About(settings={"Weights": "w.safetensors"}, missing={"fid": "Get Inception."}))
    for text in (*{entry.name for entry in records}, "w.safetensors", "15 cases in 3 tables, 45 frames", "Get Inception."):
        assert text in read.text
    for name in ("self", "cross", "long"):
        assert page.count(f"Every figure of {name}") == 1
    assert read.text.count(REALPORTRAIT) > 6 and read.text.count(FACE_VID2VID) > 6


def test_names_are_escaped(tmp_path):
    bad = record(BAD, BAD, rows=(REALPORTRAIT, BAD))
    bad = CaseRecord(bad.table, bad.name.replace("/", "-"), 3, bad.frames, left_out={STATIC + BAD: BAD}, notes=(BAD,))
    with_pictures(tmp_path, CaseRecord("self", "a", 3, {REALPORTRAIT: {"st_lpips": [1.0] * 3}}))
    about = About({BAD: BAD}, {BAD: BAD}, {"fid": BAD}, {BAD: BAD})
    page, read = written(tmp_path, [bad, record("a", rows=(REALPORTRAIT, BAD))], about)
    assert '<script>alert("1")' not in page and read.text.count(BAD) > 10
    data = json.loads(read.scripts["data"])
    assert BAD in data["cases"][0]["values"]
    assert "<script>" not in (tmp_path / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("records", [[], [record("alone")]], ids=["none", "one"])
def test_few_cases(tmp_path, records):
    page, read = written(tmp_path, records, About(failed={"self/b": "No face was found."}))
    assert "No face was found." in read.text
    assert ("No case could be measured." in read.text) == (not records)
    assert ("1 case in 1 table" in read.text) == bool(records)
    if records:
        assert "[one case]" in read.text and "There is no video to play." in read.text
    assert "nan" not in read.text.lower().replace("name", "")
    json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)


def test_the_worst_case_comes_first_and_the_best_row_is_marked(tmp_path):
    page, read = written(tmp_path, [record("good", error=0.1), record("bad", error=0.9), record("middling", error=0.5)])
    strips = page[page.index('id="strips"') :]
    assert strips.index("bad") < strips.index("middling") < strips.index("good")
    assert re.search(r'class="ours">.*?<td class="best"><span class="value">0\.480', page, re.DOTALL)  # 0.5 - 0.02


def test_figures_in_markdown_and_json_are_those_of_the_page(tmp_path):
    records = [record("a", error=0.2), record("b", error=0.4)]
    page, read = written(tmp_path, records)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    found = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    figure = found["tables"]["self"]["rows"][FACE_VID2VID]["st_lpips"]
    assert figure["mean"] == pytest.approx(0.29) and figure["difference"]["mean"] == pytest.approx(0.01)
    assert "| Face Vid2vid | – | – | – | – | 0.290 ± 0.141 |" in text and "0.290" in read.text
    assert "+0.010 [+0.010, +0.010]" in text and "[+0.010, +0.010]" in read.text
    assert [case["name"] for case in found["cases"]] == ["a", "b"]
    assert found["cases"][0]["frames"][TRUTH]["flicker_255"] == [None, 2.0, 2.0]
    assert "flicker 4 of 6 frames" in read.text


def test_a_table_without_its_judges_says_how_to_get_them(tmp_path):
    page, read = written(tmp_path, [record("a", "cross")], About(missing={"identity_similarity": "Get the embedding."}))
    assert "Table 2. Cross-reenactment" in read.text and "identity was not measured: Get the embedding." in read.text
    assert "- identity: Get the embedding." in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_what_most_rows_lack_is_said_once(tmp_path):
    """Flicker has no value in frame 0; the other method lacks a case too."""
    records = [record("a", rows=(STATIC, REALPORTRAIT, "other")), record("b")]
    page, read = written(tmp_path, records)
    (temporal,) = re.findall(r"<b>Temporal quality.*?</table>", page, re.DOTALL)
    assert temporal.count("4 of 6 frames") == 1 and temporal.count("1 of 2 cases, 2 of 6 frames") == 2  # other, Face Vid2vid


def test_json_holds_no_nan(tmp_path):
    write_report(
        tmp_path, [CaseRecord("self", "a", 2, {REALPORTRAIT: {"ssim": [nan, 0.5]}}, {REALPORTRAIT: {"seam": nan}})], About()
    )
    found = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert found["cases"][0]["frames"][REALPORTRAIT]["ssim"] == [None, 0.5]
    assert found["tables"]["self"]["rows"][REALPORTRAIT]["seam"]["cases"] == 0


def test_the_page_is_made_again_from_its_folder(tmp_path):
    """Of just the cases and figures of the report: what else lies in its folder is another run's."""
    records = [with_pictures(tmp_path, record("a")), record("b")]
    records[1].frames[REALPORTRAIT]["smirk_pose_l1"] = [0.1, None, 0.3]  # figures that no case's own record has
    write_record(tmp_path, record("another"), "of")
    write_report(tmp_path, records, About({"Weights": "w"}))
    names = ("report.html", "report.md", "report.json")
    first = [(tmp_path / name).read_bytes() for name in names]
    (tmp_path / names[0]).unlink()
    assert command.main(["page", str(tmp_path)]) == 0
    assert [(tmp_path / name).read_bytes() for name in names] == first
    assert "smirk_pose_l1" in first[2].decode()
    for damaged in ("[]", "{", '{"about": {}, "cases": [{}]}'):
        (tmp_path / names[2]).write_text(damaged)
        with pytest.raises(InputError, match=r"report.json is no report .* run `report"):
            render(tmp_path)
    assert command.main(["page", str(tmp_path / "none")]) == 1


def test_what_a_report_cannot_do_without_is_told(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(writing, "find_spec", lambda name: None)
    assert command.main(["page", str(tmp_path)]) == 1
    assert "-m pip install scipy jinja2" in caplog.text


def test_a_page_that_is_full_names_the_video_beside_it(tmp_path, monkeypatch):
    records = [with_pictures(tmp_path, record("a", error=0.9)), with_pictures(tmp_path, record("b", error=0.1))]
    path = record_path(tmp_path, "self", "a")
    room = sum(4 * ((path.with_suffix(kind).stat().st_size + 2) // 3) for kind in (".jpg", ".mp4"))
    monkeypatch.setattr(gallery, "MOST_BYTES", room)
    page, read = written(tmp_path, records)
    assert base64.b64decode(read.scripts["video-0"]) == path.with_suffix(".mp4").read_bytes()  # the worse one
    assert "video-1" not in read.scripts and "cases/self/b.mp4, beside the page" in read.text
    assert [case["name"] for case in json.loads(read.scripts["data"])["cases"]] == ["a"]


def test_without_matplotlib_the_page_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page, read = written(tmp_path, [record("a")])
    assert "pip install matplotlib" in read.text and "svg" not in read.tags


def test_plots(tmp_path):
    """Drift over the ten clips of `long`, flicker with its joins, and errors by case; in the page's colours."""
    pytest.importorskip("matplotlib")
    page, read = written(tmp_path, [record("a", "long", frames=150), record("b")])
    assert read.tags.count("svg") == 4  # ST-LPIPS by clips, flicker by frames, ST-LPIPS by case of both tables
    assert "var(--row-0)" in page and "#0300" not in page and "#0101" not in page
    assert "ST-LPIPS by clip of the network, lower is better." in page and "0.080 at first, 0.080 at last" in page
    (flicker,) = re.findall(r"flicker \(1/255\) by frame.*?</figure>", page, re.DOTALL)
    assert flicker.count("stroke-dasharray") >= 9  # where ten clips meet


def test_the_drift_of_long_videos_is_a_figure(tmp_path):
    """ST-LPIPS that grows by 0.01 from clip to clip of 16 frames, in two of three cases; the other tables have none."""
    rows = [{REALPORTRAIT: {"st_lpips": [0.1 + step * (i // 15) for i in range(150)]}} for step in (0.01, 0.01, 0.04)]
    records = [CaseRecord("long", f"case{k}", 150, figures) for k, figures in enumerate(rows)]
    page, read = written(tmp_path, [*records, record("a")])
    found = json.loads((tmp_path / "report.json").read_text())["tables"]
    drift = found["long"]["rows"][REALPORTRAIT]["st_lpips_drift"]
    assert drift["mean"] == pytest.approx(0.02) and drift["cases"] == 3 and drift["frames"] == 0
    assert not any("drift" in metric for metric in found["self"]["metrics"])
    assert "ST-LPIPS, drift" in read.text and "0.0200 ± 0.0173" in read.text


def test_joins_are_marked_where_they_are(monkeypatch):
    """Without truth frame 0 is scored, so that 31 values of clips of 16 frames are frames 0 to 30, with a join before 16."""
    drawn = []
    monkeypatch.setattr(plots, "line_plot", lambda metric, lines, colours, x, marks, first: drawn.append((list(marks), first)))
    for table, frames in (("clips_cross", 31), ("clips", 30)):
        plots.steady_plots([record("a", table, frames=frames)], {}, 16)
    assert drawn == [([16], 0), ([16], 1)]


# Figures as text


def test_the_best_row_is_a_method_and_ties_are_shared():
    rows = {STATIC: Figure(0.0, None, 1, 1), "a": Figure(0.1004, None, 1, 1), "b": Figure(0.1001, None, 1, 1)}
    assert best_rows(rows, column_of("st_lpips")) == {"a", "b"}  # as they are shown
    assert best_rows(rows | {"c": Figure(0.05, None, 1, 1)}, column_of("st_lpips")) == {"c"}
    assert best_rows(rows | {"c": Figure(9.0, None, 1, 1)}, column_of("psnr_db")) == {"c"}
    steady = {TRUTH: Figure(2.0, None, 1, 1), "a": Figure(0.5, None, 1, 1), "b": Figure(2.5, None, 1, 1)}
    assert best_rows(steady, column_of("flicker_255")) == {"b"}  # the nearest to the truth's own
    assert best_rows({"a": Figure(1.0, None, 1, 1), "b": Figure(2.0, None, 1, 1)}, column_of("flicker_255")) == set()
    assert best_rows({"a": Figure(1.0, None, 1, 1), "b": Figure(None, None, 0, 1)}, column_of("psnr_db")) == set()


def test_numbers():
    assert [number(value, 2) for value in (1.005, -1.5, -0.001, None)] == ["1.00", "−1.50", "0.00", "–"]
    assert [number(value, 1, sign=True) for value in (1, -1, 0.01)] == ["+1.0", "−1.0", "0.0"]


# Pictures


def test_tiles_lie_where_the_layout_says(tmp_path):
    import av

    levels = {"portrait": (0.9,), "truth": (0.1, 0.5), "a": (0.2, 0.6), "b": (0.3, 0.7), "c": (0.4, 0.8)}
    write_tiles(tmp_path / "x.mp4", {name: greys(*values) for name, values in levels.items()}, 12.5, first_scored=1)
    layout = read_layout(tmp_path / "x.mp4")
    assert (layout.rows, layout.frames, layout.fps, layout.first_scored) == (tuple(levels), 2, 12.5, 1)
    with av.open(str(tmp_path / "x.mp4")) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        assert file.streams.video[0].average_rate == 12.5
    assert len(frames) == 2 and frames[0].shape == (2 * TILE, 4 * TILE, 3)
    for name, values in levels.items():
        x, y = layout.corner(name)
        for i, frame in enumerate(frames):
            tile = frame[y : y + TILE, x : x + TILE] / 255
            assert np.abs(tile - values[i % len(values)]).max() < 0.03, (name, i)
    (tmp_path / "other.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match="no video of tiles"):
        read_layout(tmp_path / "other.mp4")


def test_a_strip_shows_three_frames_of_each_row(tmp_path):
    from PIL import Image

    rows = {"portrait": greys(0.9), "x": greys(*(i / 10 for i in range(9)))}
    found = strip(rows, size=32)
    assert found.shape == (HEAD + 3 * 32, 64, 3)
    assert (found[HEAD + 16 :: 32, 16] == 230).all()
    assert found[HEAD + 16 :: 32, 48, 0].tolist() == [76, 128, 204]  # frames 3, 5 and 8 of 0-8
    write_strip(tmp_path / "x.jpg", rows, size=32)
    with Image.open(tmp_path / "x.jpg") as picture:
        assert picture.size == (64, HEAD + 96)


def test_pictures_that_do_not_belong_together_are_refused(tmp_path):
    for rows, said in (
        ({"a": greys(0.1, 0.2), "b": greys(0.1, 0.2, 0.3)}, "equally many frames"),
        ({"a": torch.zeros(2, 3, 8, 9)}, r"\(L, 3, S, S\)"),
        ({}, "0 rows"),
    ):
        with pytest.raises(InputError, match=said):
            write_tiles(tmp_path / "x.mp4", rows, 10)
        with pytest.raises(InputError, match=said):
            strip(rows)
    assert not list(tmp_path.iterdir())
