"""The session that scripts/recording.py shows, on the server of the tests: the script itself checks what every step does."""

import pytest
from PIL import Image

pytestmark = pytest.mark.huge  # two minutes; what the session does is tested part by part in test_browser.py


@pytest.fixture(scope="module")
def recorded(browser, server, tmp_path_factory):
    import recording

    folder = tmp_path_factory.mktemp("recording")
    return folder, recording.session(server.url, folder)


def test_a_session_from_the_search_to_a_video(recorded):
    folder, steps = recorded
    shots = [Image.open(folder / step["file"]).convert("RGB") for step in steps]
    assert len(steps) == 8 and all(step["caption"] for step in steps)
    assert len({shot.tobytes() for shot in shots}) == 8 and len({shot.size for shot in shots}) == 1
    for step, shot in zip(steps, shots):
        assert 0 <= step["pointer"][0] < shot.width and 0 <= step["pointer"][1] < shot.height


def test_the_sheet_shows_every_step(recorded, tmp_path):
    import recording

    folder, steps = recorded
    sheet = recording.contact_sheet(steps, folder)
    recording.save(sheet, tmp_path / "sheet.webp")
    assert (tmp_path / "sheet.webp").stat().st_size <= recording.BYTES
    with Image.open(recording.SHEET) as kept:
        assert kept.size == sheet.size  # docs/recording.webp is of these steps
