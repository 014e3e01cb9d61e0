"""The player of an evaluation's report, in a real Chromium and from a file: its rows are in step, whatever the reader does."""

import json
from pathlib import Path

import pytest
import torch

from realportrait_core.eval.record import CaseRecord, record_path
from realportrait_core.eval.report import About, write_report
from realportrait_core.eval.report.pictures import write_strip, write_tiles
from realportrait_core.eval.rows import FACE_VID2VID, REALPORTRAIT, TRUTH

LIMIT = 600  # s; ten on an idle machine
FRAMES = 8
DARKEST, STEP = 20, 28  # grey of frame 0, and from frame to frame, of 255
OTHER = 100  # grey of the portrait
METHOD = "Some <b>method</b>"


def grey(frame: int) -> int:
    return DARKEST + STEP * frame


def frames_of(row: dict) -> set[int]:
    """The frames that the canvases of a row -> colour show, the portrait's apart."""
    return {round((colour[0] - DARKEST) / STEP) for name, colour in row.items() if name != "portrait"}


@pytest.fixture(scope="module")
def seen(browser, tmp_path_factory) -> dict:
    """What tests/server/player.mjs saw, all of it in one run."""
    from browser import drive

    folder = tmp_path_factory.mktemp("player")
    video = torch.tensor([grey(i) / 255 for i in range(FRAMES)])[:, None, None, None].expand(-1, 3, 64, 64)
    records = []
    for name, error in (("first", 0.5), ("second", 0.1)):
        rows = {"portrait": video[:1] * 0 + OTHER / 255, TRUTH: video, FACE_VID2VID: video, REALPORTRAIT: video, METHOD: video}
        values = {row: {"st_lpips": [error + i / 1000 for i in range(1, FRAMES)]} for row in list(rows)[2:]}
        path = record_path(folder, "self", name)
        write_tiles(path.with_suffix(".mp4"), rows, 25, first_scored=1)
        write_strip(path.with_suffix(".jpg"), rows)
        records.append(CaseRecord("self", name, FRAMES - 1, values))
    write_report(folder, records, About())
    job = {"page": str(folder / "report.html"), "seen": str(folder / "seen.json"), "shot": str(folder / "player.png")}
    drive(Path(__file__).parent / "player.mjs", job, folder, LIMIT)
    print(f"picture of the player: {folder}")
    return json.loads((folder / "seen.json").read_text(encoding="utf-8"))


def test_the_page_has_no_error_and_asks_for_nothing(seen):
    assert seen["errors"] == []
    assert {address.partition(":")[0] for address in seen["asked"]} <= {"file", "blob", "data"}
    assert sum(address.startswith("file:") for address in seen["asked"]) == 1


@pytest.mark.parametrize(
    ("moment", "frame"), [("start", 0), ("step", 1), ("keys", 3), ("end", 7), ("back", 6), ("seek", 2), ("next", 0)]
)
def test_all_rows_show_the_frame_that_was_chosen(seen, moment, frame):
    found = seen[moment]
    assert found["frame"] == frame and frames_of(found["rows"]) == {frame}
    assert len(found["rows"]) == (4 if moment == "next" else 5)


def test_rows_stay_in_step_while_they_play(seen):
    playing = seen["played"]
    assert all(len(frames_of(state["rows"])) == 1 for state in playing)
    assert all(frames_of(state["rows"]) == {state["frame"]} for state in playing)
    assert len({state["frame"] for state in playing}) > FRAMES // 2  # it did play


def test_a_row_that_is_switched_off_stays_off(seen):
    assert "portrait" in seen["seek"]["rows"] and abs(seen["seek"]["rows"]["portrait"][0] - OTHER) <= 2
    assert list(seen["fewer"]["rows"]) == list(seen["next"]["rows"]) == [TRUTH, FACE_VID2VID, REALPORTRAIT, METHOD]


def test_the_difference_to_the_truth_is_black_where_a_row_is_the_truth(seen):
    shown = seen["difference"]["rows"]
    assert max(shown[REALPORTRAIT]) <= 8 and frames_of({TRUTH: shown[TRUTH]}) == {2}


def test_values_of_the_frame_stand_below_its_rows(seen):
    """Frame 0 is the portrait and has none; the record's first value is frame 1's."""
    assert seen["start"]["values"][REALPORTRAIT] == "" and seen["step"]["values"][REALPORTRAIT] == "0.501"
    assert seen["end"]["values"] == {"portrait": "", TRUTH: "", FACE_VID2VID: "0.507", REALPORTRAIT: "0.507", METHOD: "0.507"}


def test_cases_are_chosen_by_list_key_and_strip(seen):
    assert [text.partition(" ")[0] for text in seen["cases"]] == ["first", "second"]
    assert seen["next"]["values"][REALPORTRAIT] == "" and seen["chosen"] == "0"


def test_the_page_fits_a_phone(seen):
    assert seen["wide"] == 390
