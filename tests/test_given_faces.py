"""Faces found by another program in place of the detector."""

import pytest
import torch

from realportrait_core.errors import FaceError, InputError
from realportrait_core.face.crop import face_square
from realportrait_core.face.detect import Face
from realportrait_core.face.given import NOSE_AND_MOUTH, check_inside, face_of_box, face_of_landmarks, five_points
from realportrait_core.face.track import NOMINAL, portrait_points, smooth, track

FIVE = torch.tensor([[95.2, 60.3], [144.5, 57.4], [120.2, 88.2], [102.4, 110.8], [146.3, 108.3]])
EYES = {68: (range(36, 42), range(42, 48)), 106: ((33, 35, 40, 39), (87, 89, 94, 93)), 478: ((468,), (473,))}


def landmarks(count: int) -> torch.Tensor:
    """`count` landmarks of the face FIVE, those that are not used somewhere near."""
    points = FIVE.mean(0) + torch.rand(count, 2, generator=torch.Generator().manual_seed(0)) * 40 - 20
    for rows, at in zip((*EYES[count], *([i] for i in NOSE_AND_MOUTH[count])), FIVE):
        points[list(rows)] = at
    return points


# One face


@pytest.mark.parametrize("count", [68, 106, 478])
def test_landmarks_become_the_five_points(count):
    assert torch.allclose(five_points(landmarks(count)), FIVE, atol=1e-4)
    assert torch.allclose(five_points(landmarks(count).numpy()), FIVE, atol=1e-4)


def test_five_points_stay_as_they_are_and_have_a_box_around_the_face():
    face = face_of_landmarks(FIVE)
    assert torch.equal(face.points, FIVE)
    square = face_square(FIVE, 1.0, 0.0)
    assert torch.allclose(face.box[:2] + face.box[2:] / 2, square.center.float()) and face.box[2] == face.box[3]
    assert float(face.box[2]) == pytest.approx(float(square.size))


@pytest.mark.parametrize(
    "points, message",
    [
        (torch.zeros(203, 2), r"N one of \[5, 68, 106, 478\]; these are \(203, 2\)"),
        (torch.zeros(478), r"these are \(478,\)"),
        (torch.full((5, 2), torch.nan), "10 of 10 face coordinates are NaN"),
        (torch.zeros(5, 3), r"\(5, 3\)"),
    ],
)
def test_landmarks_that_are_none(points, message):
    with pytest.raises(InputError, match=message):
        face_of_landmarks(points)


@pytest.mark.parametrize("count", [5, 68, 106, 478])
def test_landmarks_on_one_point_are_no_face(count):
    """As some nodes have it where they find none; a face without extent overlaps with nothing, not even with itself."""
    assert face_of_landmarks(torch.full((count, 2), 30.0)) is None
    assert face_of_box((10, 20, 1e-30, 1e-30)) is None
    given = [[face] if face else [] for face in (face_of_landmarks(points) for points in (FIVE, torch.zeros(5, 2), FIVE))]
    followed = track(torch.zeros(3, 160, 240, 3), None, given=given)
    assert followed.present.tolist() == [True, False, True]


def test_a_box_is_an_upright_face():
    face = face_of_box((10, 20, 50, 80))
    assert torch.equal(face.points, torch.tensor([10.0, 20.0]) + NOMINAL * torch.tensor([50.0, 80.0]))
    assert face_of_box((10, 20, 0, 80)) is None
    with pytest.raises(InputError, match="four finite numbers"):
        face_of_box((10, 20, 50))
    check_inside(face, 100, 100)
    with pytest.raises(InputError, match=r"\(35, 60\) px is outside the picture of 30x100 px"):
        check_inside(face, 100, 30)
    check_inside(face_of_box((-50, -50, 190, 190)), 100, 100)
    with pytest.raises(InputError, match=r"a face of 2e\+06x50 px is larger than 2 pictures of 100x100 px"):
        check_inside(face_of_box((50 - 1e6, 20, 2e6, 50)), 100, 100)


# Faces of a portrait and of a clip


def boxes(*corners: tuple[float, float], side: float = 60.0) -> list[Face]:
    return [face_of_box((x, y, side, side)) for x, y in corners]


def test_the_portraits_face_is_chosen_among_those_given():
    picture = torch.zeros(200, 300, 3)
    given = [face_of_box((10, 10, 40, 40)), face_of_box((100, 10, 90, 90))]
    assert torch.equal(portrait_points(picture, None, given=given), given[1].points)
    assert torch.equal(portrait_points(picture, None, 0, given=given), given[0].points)
    with pytest.raises(FaceError, match="portrait has 2 faces"):
        portrait_points(picture, None, "only", given=given)
    with pytest.raises(FaceError, match="No face was found in the portrait"):
        portrait_points(picture, None, given=[])
    with pytest.raises(FaceError, match="20x20 px; at least 32 px"):
        portrait_points(picture, None, given=boxes((5, 5), side=20))


def test_given_boxes_are_followed_smoothed_and_filled():
    """As detected ones: the face that was chosen is kept beside another, its points are smoothed, its gap is filled."""
    frames = torch.zeros(8, 200, 300, 3)
    given = [boxes((20 + 2 * i + 3 * (i % 2), 30), (180, 60)) for i in range(8)]
    given[3] = boxes((180, 60))
    for policy in ("hold", "interpolate", "fade"):
        followed = track(frames, None, 0, policy, given=given)
        assert followed.present.tolist() == [i != 3 for i in range(8)]
        assert "Missing in frame 3" in followed.report and "Several faces in frames 0-2, 4-7" in followed.report
        assert bool((followed.points[..., 0] < 150).all()) and (followed.motion_weight is None) == (policy != "fade")
    whole = [boxes((20 + 2 * i + 3 * (i % 2), 30)) for i in range(8)]
    raw = torch.stack([faces[0].points for faces in whole])
    assert torch.equal(track(frames, None, given=whole).points, smooth(raw)) and not torch.equal(smooth(raw), raw)
    with pytest.raises(FaceError, match="missing in 1 of the 8 driving frames: frame 3"):
        track(frames, None, 0, "stop", given=given)
    with pytest.raises(FaceError, match="No face was found in any of the 8"):
        track(frames, None, given=[[]] * 8)
    with pytest.raises(InputError, match="given for 2 frames, and the driving video has 8"):
        track(frames, None, given=given[:2])


def test_a_cut_between_given_boxes_starts_a_new_track():
    frames = torch.cat([torch.zeros(3, 200, 300, 3), torch.ones(3, 200, 300, 3)])
    followed = track(frames, None, given=[boxes((20, 30))] * 3 + [boxes((200, 100))] * 3)
    assert followed.cuts == (3,) and "A cut or a jump at frame 3" in followed.report
    assert torch.equal(followed.points[2], boxes((20, 30))[0].points) and torch.equal(
        followed.points[3], boxes((200, 100))[0].points
    )
