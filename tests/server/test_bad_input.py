"""What a user gets wrong ends on the real server as an error in words: what is wrong, with numbers, and what to do."""

import pytest


@pytest.fixture
def fails(client, workflow):
    """Queue a workflow that cannot work and return what the user reads. change: edits the API workflow."""

    def message(name="animate_portrait", change=None, **settings) -> str:
        queued = workflow(name, **{"steps": 1, "frames": 2, **settings})
        if change:
            change({entry["class_type"]: entry["inputs"] for entry in queued.values()})
        done = client.queue(queued)
        assert done.status in ("error", "rejected"), done.status
        assert not done.files(), "nothing may be half-written"
        assert "Traceback" not in done.error
        return done.error

    return message


def contains(text: str, *parts: str) -> bool:
    return all(part.lower() in text.lower() for part in parts)


def test_no_face_in_the_portrait(fails):
    assert contains(fails(portrait="noise.png"), "portrait", "no face", "box")


def test_no_face_in_the_driver(fails):
    assert contains(fails(driving="no_face.mp4", frames=None), "driving", "no face", "3")


def test_a_face_lost_where_that_shall_stop(fails):
    """The error names the frame."""

    def stop(inputs):
        inputs["RealPortraitExtractKeypoints"].update(missing_face="stop")

    assert contains(fails(driving="face_lost.mp4", frames=None, change=stop), "frame", "2")


def test_several_faces_where_only_one_is_wanted(fails):
    def only_one(inputs):
        inputs["RealPortraitExtractKeypoints"].update(portrait_face="the only one")

    assert contains(fails(portrait="two_faces.png", change=only_one), "2 faces")


def test_a_portrait_too_small_to_show_a_face(fails):
    assert contains(fails(portrait="tiny.png"), "12x12", "16")


def test_a_box_that_is_no_box(fails):
    def nonsense(inputs):
        inputs["RealPortraitExtractKeypoints"].update(portrait_box="10, 20, 30")

    assert contains(fails(change=nonsense), "10, 20, 30", "four numbers")


@pytest.mark.parametrize(
    "name, said",
    [
        ("truncated.safetensors", ("truncated.safetensors",)),
        ("renamed.safetensors", ("renamed.safetensors", "pickle")),
        ("other.safetensors", ("other.safetensors",)),
        ("realportrait_mini_vid2vid.safetensors", ("vid2vid",)),
        ("../../../../etc/passwd", ("not one of",)),
        ("not_there.safetensors", ("not_there.safetensors", "not one of")),
    ],
)
def test_wrong_weights(fails, name, said):
    def load(inputs):
        inputs["RealPortraitLoadModel"].update(weights=name)

    assert contains(fails(change=load, seed=3), *said)


def test_wrong_vid2vid_weights(fails):
    def load(inputs):
        inputs["RealPortraitLoadVid2Vid"].update(weights="other.safetensors")

    assert contains(fails(change=load, seed=4), "other.safetensors", "vid2vid")


def test_what_fails_inside_animate_portrait_is_told_at_it(client, workflow):
    """The nodes inside are not in the user's graph."""
    queued = workflow("animate_portrait_simple", portrait="noise.png", frames=2)
    done = client.queue(queued)
    assert done.status == "error" and contains(done.error, "portrait", "no face")
    assert queued[done.error_node]["class_type"] == "RealPortraitAnimate"


def test_motion_and_latent_of_different_length(client, workflow):
    queued = workflow("animate_portrait_ksampler", frames=3, steps=1)
    sampler = next(entry["inputs"] for entry in queued.values() if entry["class_type"] == "KSampler")
    queued["longer"] = {"class_type": "RepeatLatentBatch", "inputs": {"samples": sampler["latent_image"], "amount": 2}}
    sampler["latent_image"] = ["longer", 0]
    done = client.queue(queued)
    assert done.status == "error"
    assert contains(done.error, "motion", "3 frames", "latent", "6")
