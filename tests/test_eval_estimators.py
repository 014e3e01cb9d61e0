"""Expression, head pose and identity, as in the paper's Table 2: known parameters, small networks made for it, rendered clips."""

from dataclasses import replace
from math import pi, radians

import judges
import numpy as np
import pytest
import torch
import yunet
from onnx_bytes import colour_embedding

from realportrait_core.errors import InputError, WeightsError
from realportrait_core.eval.__main__ import main
from realportrait_core.eval.agreement.command import rendered_clips, text_table
from realportrait_core.eval.agreement.rendered_truth import rendered_parameters
from realportrait_core.eval.agreement.tables import Seen, agreement, correlation, error_agreement, look
from realportrait_core.eval.cases import read_clip
from realportrait_core.eval.judges.blendshapes import INPUT_POINTS, NAMES, Blendshapes
from realportrait_core.eval.judges.estimators import Estimator, FaceParameters, change_errors, load_estimator, parameter_errors
from realportrait_core.eval.judges.head_pose import HeadPose, angles_of, load_head_pose
from realportrait_core.eval.judges.identity import alignment
from realportrait_core.eval.judges.loading import find_points
from realportrait_core.eval.judges.recognition import TEMPLATE, identity_similarity, load_recognition
from realportrait_core.eval.judges.smirk import SmirkFolder
from realportrait_core.face.detect import FaceDetector
from realportrait_core.head_rotation.topology import read_topology
from realportrait_core.vid2vid.checkpoint import load_vid2vid
from rendered_heads.motion import ARKIT, rotations

CLIPS = yunet.ROOT / "tests" / "data"
VID2VID = yunet.ROOT / "realportrait_core" / "weights" / "realportrait" / "realportrait_mini_vid2vid.safetensors"
PX = torch.tensor([1.0, -1.0, -1.0])  # y up, z towards the camera -> y down, z inward


# Head pose


def landmarks_of(canonical: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
    """The mesh (468, 3) turned by pose (L, 3), 7 px a cm, as landmarks (L, 478, 3) px."""
    turned = canonical.double() @ rotations(pose.double()).mT
    points = 7 * turned * PX + torch.tensor([120.0, 140.0, 3.0])
    return torch.cat([points, points[:, :10]], 1).float()


def some_mesh() -> torch.Tensor:
    return torch.randn(468, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * torch.tensor([7.0, 9.0, 4.0])


POSES = torch.tensor([[0.0, 0, 0], [0.3, 0, 0], [0, -0.7, 0], [0, 0, 0.5], [-0.25, 0.6, -0.4], [0.4, 1.2, 0.1]])


def test_a_mesh_turned_by_known_angles_has_those():
    mesh = some_mesh()
    pose = HeadPose(mesh, torch.full((468,), 1 / 468, dtype=torch.float64))
    torch.testing.assert_close(pose.angles(landmarks_of(mesh, POSES)), POSES, atol=1e-5, rtol=0)


def test_points_of_no_weight_do_not_turn_the_head():
    mesh = some_mesh()
    weights = torch.zeros(468, dtype=torch.float64)
    weights[:40] = 1 / 40
    points = landmarks_of(mesh, POSES)
    points[:, 40:] += 20 * torch.randn(438, 3)
    torch.testing.assert_close(HeadPose(mesh, weights).angles(points), POSES, atol=1e-5, rtol=0)


def test_signs_of_the_angles():
    """Chin down, face to the picture's right, counter-clockwise on the screen: where the nose and the forehead go."""
    for axis, point, moved in ((0, (0, 0, 1), (0, -1, 0)), (1, (0, 0, 1), (1, 0, 0)), (2, (0, 1, 0), (-1, 0, 0))):
        pose = torch.zeros(1, 3)
        pose[0, axis] = pi / 2 - 1e-3
        rotation = rotations(pose)
        torch.testing.assert_close(rotation[0] @ torch.tensor(point).float(), torch.tensor(moved).float(), atol=2e-3, rtol=0)
        torch.testing.assert_close(angles_of(rotation), pose, atol=1e-4, rtol=0)


def test_the_canonical_face_is_in_the_task_file():
    pose, rest = load_head_pose(judges.landmarker()), read_topology(judges.canonical_face()).rest
    assert torch.equal(pose.canonical.float(), rest)
    assert int((pose.weights > 0).sum()) == 33 and float(pose.weights.sum()) == pytest.approx(1)
    torch.testing.assert_close(pose.angles(landmarks_of(rest, POSES)), POSES, atol=1e-4, rtol=0)
    with pytest.raises(InputError, match="478"):
        pose.angles(torch.zeros(1, 468, 3))
    with pytest.raises(WeightsError, match="missing"):
        load_head_pose("none.task")


# Parameters and their distances


Given = float | list[float]


def parameters(frames: int, expression: Given = 0.0, pose: Given = 0.0, width: int = 4) -> FaceParameters:
    """All parameters of a frame alike; one value, or one a frame."""
    values = [torch.tensor(given).reshape(-1, 1).expand(frames, n).clone() for given, n in ((expression, width), (pose, 3))]
    return FaceParameters(*values, torch.ones(frames, dtype=torch.bool))


def test_l1_is_the_mean_over_the_parameters():
    a, b = parameters(2), parameters(2)
    b.expression[1] = torch.tensor([0.4, -0.2, 0.0, 0.2])
    b.pose[1] = torch.tensor([0.3, 0.0, -0.6])
    errors = parameter_errors(a, b)
    assert errors["expression_l1"] == [0, pytest.approx(0.2)] and errors["pose_l1"] == [0, pytest.approx(0.3)]
    assert parameter_errors(b, a) == errors


def test_angles_go_round():
    errors = parameter_errors(parameters(1, pose=pi - 0.1), parameters(1, pose=-pi + 0.1))
    assert errors["pose_l1"] == [pytest.approx(0.2, abs=1e-5)]


def test_frames_without_a_face_have_no_error():
    a, b = parameters(4), parameters(4, 0.5, 0.1)
    a.found[1], b.found[2] = False, False
    b.pose[3] = torch.nan
    errors = parameter_errors(a, b)
    assert errors["expression_l1"] == [0.5, None, None, 0.5]
    assert errors["pose_l1"] == [pytest.approx(0.1), None, None, None]


def test_the_change_leaves_out_what_two_people_differ_by():
    driving = parameters(3, [0.0, 0.1, 0.3], [0.2, 0.2, 0.5])
    result = parameters(3, [0.5, 0.6, 0.7], [-0.1, -0.1, 0.2])
    portrait = parameters(1, 0.5, -0.1)
    assert parameter_errors(result, driving)["expression_l1"] == pytest.approx([0.5, 0.5, 0.4])
    errors = change_errors(result, portrait, driving)
    assert errors["expression_change_l1"] == pytest.approx([0, 0, 0.1], abs=1e-6)
    assert errors["pose_change_l1"] == pytest.approx([0, 0, 0], abs=1e-6)
    nobody = replace(portrait, found=torch.tensor([False]))
    assert change_errors(result, nobody, driving)["pose_change_l1"] == [None] * 3


def test_parameters_of_other_frames_are_refused():
    with pytest.raises(InputError, match="2 and 3 frames"):
        parameter_errors(parameters(2), parameters(3))
    with pytest.raises(InputError, match="with 4 and 5 of expression"):
        parameter_errors(parameters(2), parameters(2, width=5))
    with pytest.raises(InputError, match="1 frame, not 2"):
        change_errors(parameters(2), parameters(2), parameters(2))
    with pytest.raises(InputError, match=r"\(L, 3\)"):
        FaceParameters(torch.zeros(2, 4), torch.zeros(2, 2), torch.ones(2, dtype=torch.bool))


# Blendshapes, on a rendered clip


def test_names_are_arkits():
    assert (*NAMES, "tongueOut") == tuple(ARKIT) and sorted(set(INPUT_POINTS)) == list(INPUT_POINTS) and len(INPUT_POINTS) == 146


@pytest.fixture(scope="module")
def estimated() -> tuple[Estimator, torch.Tensor, FaceParameters, FaceParameters]:
    """The estimator, a rendered clip, what the estimator sees in it, and its truth."""
    pytest.importorskip("av")
    estimator, detector = load_estimator(judges.landmarker()), FaceDetector(yunet.onnx())
    pictures = read_clip(CLIPS / "800000.mp4")[::2].movedim(-1, 1).float() / 255
    five, found = find_points(detector, pictures, torch.full((len(pictures), 5, 2), 128.0))
    assert found.all()
    found[3] = False
    return estimator, pictures, estimator.estimate(pictures, five, found), rendered_parameters(CLIPS / "800000.npz")[::2]


def test_estimates_go_with_the_truth(estimated):
    _, _, found, truth = estimated
    seen = found.found
    assert seen.tolist() == [k != 3 for k in range(12)] and not found.expression[3].any() and not found.pose[3].any()
    for name, least in (("jawOpen", 0.7), ("eyeBlinkLeft", 0.5)):
        k = NAMES.index(name)
        assert correlation(found.expression[seen, k], truth.expression[seen, k]) > least, name
    for axis, least in enumerate((0.5, 0.95, 0.8)):  # it nods by 4 degrees only
        assert correlation(found.pose[seen, axis], truth.pose[seen, axis]) > least, axis
    assert (found.expression >= 0).all() and (found.expression <= 1).all()


def test_blendshapes_depend_on_shape_alone(estimated):
    estimator, pictures, found, _ = estimated
    with pytest.raises(InputError, match="12 pictures need points"):
        estimator.estimate(pictures, torch.zeros(2, 5, 2), found.found)
    points = landmarks_of(load_head_pose(judges.landmarker()).canonical, torch.zeros(1, 3))
    network = Blendshapes(judges.landmarker())
    torch.testing.assert_close(network.coefficients(3 * points - 40), network.coefficients(points), atol=1e-3, rtol=0)


def test_the_truth_is_as_the_camera_sees_it(tmp_path):
    """A turn of the camera about the vertical adds to the yaw."""
    pose = torch.tensor([[0.2, -0.3, 0.1], [0.0, 0.4, -0.2]])
    expression = torch.rand(2, 52)
    np.savez(tmp_path / "a.npz", expr=expression, R=rotations(pose), camyaw=0.1, bodyyaw=0.3)
    found = rendered_parameters(tmp_path / "a.npz")
    torch.testing.assert_close(found.pose, pose + torch.tensor([0.0, 0.25, 0.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.expression, expression[:, :51])
    np.savez(tmp_path / "b.npz", expr=expression)
    for name in ("b", "none"):
        with pytest.raises(InputError, match="ground truth of a rendered clip"):
            rendered_parameters(tmp_path / f"{name}.npz")


# Identity


def test_cosines():
    portrait = torch.tensor([[2.0, 0.0, 0.0]])
    embeddings = torch.tensor([[5.0, 0, 0], [0, 1, 0], [-3, 0, 0], [0, 0, 0], [torch.nan, 0, 0], [1, 1, 0]])
    assert identity_similarity(embeddings, portrait) == [1, 0, -1, None, None, pytest.approx(0.5**0.5)]
    found = torch.tensor([False, True, True, True, True, True])
    assert identity_similarity(embeddings, portrait, found)[:2] == [None, 0]
    assert identity_similarity(embeddings, torch.zeros(1, 3)) == [None] * 6


def test_faces_are_aligned_to_arcfaces_template():
    points = torch.tensor([TEMPLATE]) * 2.5 + 13
    forward = alignment(points, TEMPLATE, (0, 1, 2, 3, 4))[0]
    torch.testing.assert_close((points[0].double() @ forward[:2, :2].T + forward[:2, 2]).float(), torch.tensor(TEMPLATE))


@pytest.mark.parametrize(
    "outputs, scales, kind, receives",
    [(512, False, "ArcFace", "unit"), (512, True, "ArcFace", "unit"), (128, False, "SFace", "bytes")],
)
def test_a_network_of_the_users_choice(tmp_path, outputs, scales, kind, receives):
    """Its kind by its outputs; red, green, blue in this order; in -1 .. 1 for ArcFace, which some files do themselves."""
    path = tmp_path / "face.onnx"
    path.write_bytes(colour_embedding(outputs, scales=scales))
    recognition = load_recognition(path)
    assert recognition.kind == kind
    colours = torch.tensor([[0.0, 0.5, 1.0], [0.2, 0.4, 0.6]])
    pictures = colours[:, :, None, None].expand(2, 3, 150, 160)
    found = recognition.embed(pictures, torch.tensor([TEMPLATE, TEMPLATE]) + 20)
    assert found.shape == (2, outputs)
    expected = 2 * colours - 1 if receives == "unit" else 255 * colours
    torch.testing.assert_close(found[:, :3], expected, atol=1e-4, rtol=1e-5)
    assert (found[:, 3:] == 1).all()


def test_the_kind_can_be_said(tmp_path):
    path = tmp_path / "mobile.onnx"
    path.write_bytes(colour_embedding(128))
    recognition = load_recognition(path, "ArcFace")
    found = recognition.embed(torch.ones(1, 3, 112, 112), torch.tensor([TEMPLATE]))
    assert recognition.kind == "ArcFace" and found[0, :3].tolist() == pytest.approx([1, 1, 1])


def test_other_files_are_no_recognition_network(tmp_path):
    path = tmp_path / "face.onnx"
    with pytest.raises(WeightsError, match="is missing: name ArcFace or SFace"):
        load_recognition(path)
    for content in (b"", b"no network"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="cannot run"):
            load_recognition(path)
    path.write_bytes(colour_embedding(200))
    with pytest.raises(WeightsError, match="200 outputs.*512 .ArcFace. or 128 .SFace."):
        load_recognition(path)
    with pytest.raises(WeightsError, match="npm pack"):
        load_recognition(tmp_path)


def test_face_api_is_one_of_them():
    recognition = load_recognition(judges.face_api())
    embeddings = recognition.embed(torch.rand(2, 3, 112, 112), torch.tensor([TEMPLATE, TEMPLATE]))
    assert recognition.kind == "face-api" and embeddings.shape == (2, 128)


# SMIRK's files


def write_smirk(path, frames: int, **others) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {"expression_params": np.full((frames, 50), 0.5), "pose_params": np.full((frames, 3), 0.1), **others}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def test_smirks_parameters_are_read(tmp_path):
    folder = SmirkFolder(tmp_path)
    write_smirk(tmp_path / "driving" / "a.npz", 3, jaw_params=np.zeros((3, 3)))
    pose = np.full((3, 3), 0.4)
    pose[1] = np.nan
    write_smirk(tmp_path / "Face Vid2vid" / "a.npz", 3, pose_params=pose)
    driving, note = folder.parameters("driving", "a", 3)
    result, _ = folder.parameters("Face Vid2vid", "a", 3)
    assert note is None and folder.rows() == ["Face Vid2vid"]
    assert parameter_errors(result, driving) == {
        "expression_l1": [0, None, 0],
        "pose_l1": [pytest.approx(0.3), None, pytest.approx(0.3)],
    }


@pytest.mark.parametrize("held, compared", [(2, [True, True, False, False]), (7, [True] * 4)])
def test_smirks_other_lengths_are_compared_where_common(tmp_path, held, compared):
    write_smirk(tmp_path / "x" / "a.npz", held)
    found, note = SmirkFolder(tmp_path).parameters("x", "a", 4)
    assert found.found.tolist() == compared
    assert note == f"SMIRK's parameters x/a.npz are of {held} frames, not 4: the first {min(held, 4)} are compared."


def test_smirks_other_files_are_refused(tmp_path):
    folder = SmirkFolder(tmp_path)
    with pytest.raises(InputError, match="a.npz is missing"):
        folder.parameters("x", "a", 4)
    wrong = {
        r"expression_params \(4, 30\)": {"expression_params": np.zeros((4, 30))},
        r"pose_params \(4, 1, 3\)": {"pose_params": np.zeros((4, 1, 3))},
        "holds no pose_params": {"pose_params": None},
        "as many frames of each": {"pose_params": np.zeros((3, 3))},
        "no .npz of plain arrays": {"pose_params": np.array([object()] * 4)},
    }
    for sentence, arrays in wrong.items():
        write_smirk(tmp_path / "x" / "a.npz", 4, **arrays)
        with pytest.raises(InputError, match=sentence):
            folder.parameters("x", "a", 4)
    (tmp_path / "x" / "a.npz").write_bytes(b"no zip")
    with pytest.raises(InputError, match="no .npz of plain arrays"):
        folder.parameters("x", "a", 4)
    with pytest.raises(InputError, match="is no folder"):
        SmirkFolder(tmp_path / "none").rows()


# Agreement with the truth


def seen(name: str, motion: int, identity: int) -> Seen:
    """A clip whose estimates are off by a constant, and whose embeddings are those of its identity."""
    generator = torch.Generator().manual_seed(motion)
    expression, pose = torch.rand(6, 51, generator=generator), torch.rand(6, 3, generator=generator) - 0.5
    found = torch.ones(6, dtype=torch.bool)
    offset = torch.tensor([radians(7), 0.0, radians(-2)])
    embedding = torch.eye(8)[identity] + 0.1 * torch.rand(6, 8, generator=generator)
    return Seen(
        name,
        FaceParameters(expression / 2, pose + offset, found),
        FaceParameters(expression, pose, found),
        pose + radians(3),
        embedding,
    )


def test_agreement_of_known_estimates():
    clips = [seen("800000", 0, 0), seen("810000", 0, 1), seen("800001", 1, 2), seen("810001", 1, 3), seen("other", 2, 4)]
    tables = agreement(clips)
    pose = {(row["estimator"], row["angle"]): row for row in tables["pose"]}
    assert [pose["canonical face", angle]["offset deg"] for angle in ("pitch", "yaw", "roll")] == pytest.approx(
        [7, 0, -2], abs=1e-4
    )
    assert pose["M", "yaw"]["offset deg"] == pytest.approx(3, abs=1e-4)
    for row in tables["pose"]:
        assert row["n"] == 30 and row["r"] == pytest.approx(1) and row["r in clips"] == pytest.approx(1)
        assert row["error deg"] == pytest.approx(0, abs=1e-4) and row["error of change deg"] == pytest.approx(0, abs=1e-4)
    assert all(row["r"] == pytest.approx(1) for row in tables["expression"])
    assert [row["n"] for row in tables["distance"]] == [5 * 15, 2 * 36]
    assert all(row[f"r of {metric}_l1"] == pytest.approx(1) for row in tables["distance"] for metric in ("expression", "pose"))
    scale = {(row["error"], row["result"]): row for row in tables["scale"]}
    same = scale["pose_change_l1", "the same motion"]
    assert (same["n"], same["estimated"], same["exact"], same["r"]) == (
        10,
        pytest.approx(0, abs=1e-6),
        pytest.approx(0, abs=1e-6),
        None,
    )
    still = scale["expression_l1", "no motion"]
    assert still["estimated"] == pytest.approx(still["exact"] / 2) and still["exact"] > 0.2 and still["r"] == pytest.approx(1)
    assert scale["expression_l1", "together"]["n"] == 30
    (row,) = tables["identity"]
    assert row["n same / different"] == "25 / 100" and row["AUC"] == 1 and row["same"] > 0.95 and row["different"] < 0.3
    assert "expression_change_l1" in text_table(tables["scale"])


def test_agreement_says_what_there_is():
    """One clip, some frames without a face, no M, no identity."""
    clip = replace(seen("a", 0, 0), m_pose=None, embeddings=None)
    clip.estimated.found[1] = False
    tables = agreement([clip])
    assert list(tables) == ["pose", "expression", "distance"]
    assert {row["n"] for row in tables["pose"]} == {5} and {row["estimator"] for row in tables["pose"]} == {"canonical face"}
    assert [(row["frames"], row["n"]) for row in tables["distance"]] == [("of one clip", 10)]
    with pytest.raises(InputError, match="no rendered clip"):
        agreement([])
    nobody = replace(clip, estimated=replace(clip.estimated, found=torch.zeros(6, dtype=torch.bool)))
    assert {row["n"] for row in agreement([nobody])["expression"]} == {0}


def test_frames_without_a_face_are_left_out(estimated):
    estimator, pictures, _, truth = estimated
    shown = pictures[:3].clone()
    shown[1] = 0
    recognition, detector = load_recognition(judges.face_api()), FaceDetector(yunet.onnx())
    clip = look("a", shown, truth[:3], detector, estimator, recognition, load_vid2vid(VID2VID).motion)
    assert clip.estimated.found.tolist() == [True, False, True]
    assert [bool(rows.any()) for rows in clip.embeddings] == [bool(rows.any()) for rows in clip.m_pose] == [True, False, True]
    assert identity_similarity(clip.embeddings, clip.embeddings[:1])[1] is None
    nobody = look("a", torch.zeros_like(shown), truth[:3], detector, estimator, recognition, None)
    assert nobody.embeddings is None and not nobody.estimated.found.any()


def test_errors_by_two_ways():
    found = error_agreement({"a": [1.0, 2.0, None, 3.0], "b": [1.0]}, {"a": [2.0, 4.0, 5.0, 6.0]})
    assert found == {"a": {"n": 3, "estimated": 2, "exact": 4, "r": pytest.approx(1)}}
    assert error_agreement({"a": [None]}, {"a": [1.0]}) == {"a": {"n": 0, "estimated": None, "exact": None, "r": None}}
    with pytest.raises(InputError, match="not of the same frames"):
        error_agreement({"a": [1.0]}, {"a": []})


def test_correlations():
    x = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert correlation(x, 3 - 2 * x) == pytest.approx(-1) and correlation(x, (x - 2.5) ** 2) == pytest.approx(0)
    assert correlation(x, torch.full((4,), 0.3)) is None and correlation(x[:2], x[:2]) is None


def test_the_command(capsys, tmp_path):
    pytest.importorskip("av")
    given = ["--landmarker", str(judges.landmarker()), "--detector", str(yunet.onnx()), "--vid2vid", str(VID2VID)]
    assert main(["agreement", "--data", str(CLIPS), *given, "--every", "4", "--json", str(tmp_path / "tables.json")]) == 0
    said = capsys.readouterr().out
    assert "2 clips of" in said and "in 12 of 12 frames" in said and (tmp_path / "tables.json").is_file()
    yaw = [line.split() for line in said.splitlines() if line.startswith("M ") and " yaw " in line][0]
    assert yaw[2] == "12" and float(yaw[4]) > 0.9
    assert [clip.stem for clip in rendered_clips(CLIPS)] == ["800000", "810000"]
    assert main(["agreement", "--data", str(tmp_path), *given]) == 1
