"""LPIPS, Fréchet distances and sharpness: by hand, in closed form, and of pictures whose value is known."""

import sys
from pathlib import Path

import judges
import pytest
import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from safetensors.torch import save_file

from realportrait_core.convert.files import read_weights
from realportrait_core.errors import InputError, WeightsError
from realportrait_core.eval.cases import read_clip
from realportrait_core.eval.judges import lpips
from realportrait_core.eval.judges.frechet import frechet_distance, in_their_span, load_inception, stlpips_features
from realportrait_core.eval.judges.lpips import load_lpips, network_of
from realportrait_core.eval.metrics.sharpness import laplacian_energy, sharpness, sharpness_to_portrait
from realportrait_core.stlpips import load_stlpips

ALEXNET = ((0, 3, 64, 11), (3, 64, 192, 5), (6, 192, 384, 3), (8, 384, 256, 3), (10, 256, 256, 3))  # place, channels, kernel
CLIPS = Path(__file__).resolve().parent / "data"


def pictures(count: int, size: int = 64, seed: int = 0) -> torch.Tensor:
    """(count, 3, size, size) in [0.1, 0.9], smooth with some grain."""
    generator = torch.Generator().manual_seed(seed)
    smooth = F.interpolate(torch.rand(count, 3, 8, 8, generator=generator), size=size, mode="bilinear")
    return 0.15 + 0.6 * smooth + 0.1 * torch.rand(count, 3, size, size, generator=generator)


def blurred(frames: torch.Tensor, sigma: float) -> torch.Tensor:
    return gaussian_blur2d(frames, (17, 17), (sigma, sigma))


# LPIPS


@pytest.fixture(scope="module")
def backbones(tmp_path_factory) -> dict[str, Path]:
    """Random AlexNet as a .pth and SqueezeNet as .safetensors, under torchvision's names."""
    pytest.importorskip("torchmetrics")
    models = pytest.importorskip("torchvision.models")
    folder = tmp_path_factory.mktemp("backbones")
    torch.manual_seed(5)
    paths = {"alex": folder / "alexnet.pth", "squeeze": folder / "squeezenet.safetensors"}
    convolutions = {layer: torch.nn.Conv2d(a, b, side) for layer, a, b, side in ALEXNET}
    torch.save(
        {f"features.{i}.{key}": value for i, one in convolutions.items() for key, value in one.state_dict().items()}, paths["alex"]
    )
    save_file(models.squeezenet1_1(weights=None).state_dict(), paths["squeeze"])
    return paths


def lpips_by_hand(state: dict[str, torch.Tensor], heads: dict[str, torch.Tensor], a: torch.Tensor, b: torch.Tensor) -> list[float]:
    """Zhang et al. 2018, equation 1, by AlexNet: unit-length features, squared differences, weighted, mean over places, summed."""

    def features(x: torch.Tensor) -> list[torch.Tensor]:
        x, found = 2 * x - 1, []
        x = (x - torch.tensor([-0.030, -0.088, -0.188])[:, None, None]) / torch.tensor([0.458, 0.448, 0.450])[:, None, None]
        for layer, stride, padding, pool in (
            (0, 4, 2, False),
            (3, 1, 2, True),
            (6, 1, 1, True),
            (8, 1, 1, False),
            (10, 1, 1, False),
        ):
            x = F.max_pool2d(x, 3, 2) if pool else x
            x = F.relu(F.conv2d(x, state[f"features.{layer}.weight"], state[f"features.{layer}.bias"], stride, padding))
            found.append(x / (x.square().sum(1, keepdim=True) + 1e-8).sqrt())
        return found

    stages = [(x - y).square() * heads[f"lin{i}.model.1.weight"] for i, (x, y) in enumerate(zip(features(a), features(b)))]
    return sum(stage.sum(1).mean((1, 2)) for stage in stages).tolist()


def test_lpips_is_what_one_computes_by_hand(backbones, monkeypatch):
    import torchmetrics

    monkeypatch.setattr(lpips, "AT_ONCE", 2)
    model, a, b = load_lpips(backbones["alex"]), pictures(3), pictures(3, seed=1)
    shipped = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models" / "alex.pth"
    found = model.distances(a, b).tolist()
    assert model.net == "alex"
    assert found == pytest.approx(lpips_by_hand(read_weights(backbones["alex"]), read_weights(shipped), a, b), rel=1e-4)
    assert min(found) > 0
    assert model.distances(a, a).tolist() == [0, 0, 0]
    assert model.distances(b, a).tolist() == pytest.approx(found, rel=1e-4)


def test_the_file_says_which_network_lpips_is_by(backbones):
    model, a = load_lpips(backbones["squeeze"]), pictures(2)
    assert model.net == "squeeze"
    near, far = (model.distances(blurred(a, sigma), a) for sigma in (0.5, 3.0))
    assert (0 < near).all() and (near < far).all()
    assert network_of({"features.28.weight": torch.empty(512, 512, 3, 3)}) == "vgg"
    assert network_of({"features.0.weight": torch.empty(64, 3, 3, 3)}) is None
    for wrong in (a[..., :20, :20], a[:, :1], torch.full_like(a, torch.nan)):
        with pytest.raises(InputError):
            model.distances(wrong, wrong)
    with pytest.raises(InputError, match="must be"):
        model.distances(a, a[:1])


@pytest.mark.slow
def test_lpips_by_vgg(tmp_path):
    pytest.importorskip("torchmetrics")
    features = pytest.importorskip("torchvision.models").vgg16(weights=None).features
    save_file({f"features.{key}": value for key, value in features.state_dict().items()}, tmp_path / "vgg.safetensors")
    model, a = load_lpips(tmp_path / "vgg.safetensors"), pictures(1)
    assert model.net == "vgg"
    assert model.distances(a, a).tolist() == [0] and model.distances(a, blurred(a, 2.0)).item() > 0


def test_other_files_than_a_backbone_are_refused(backbones, tmp_path):
    other, part, text = tmp_path / "other.safetensors", tmp_path / "part.safetensors", tmp_path / "page.pth"
    save_file({"features.0.weight": torch.zeros(3)}, other)
    state = read_weights(backbones["squeeze"])
    del state["features.4.squeeze.bias"]
    save_file(state, part)
    text.write_text("<html>")
    for path, says in (
        (other, "none of torchvision's AlexNet, VGG16 and SqueezeNet 1.1.*--lpips FILE"),
        (part, "not torchvision's squeeze network: 1 of 50 tensors are missing"),
        (text, "a web page"),
        (tmp_path / "none.pth", "There is no weight file"),
    ):
        with pytest.raises(WeightsError, match=says):
            load_lpips(path)


@pytest.mark.parametrize(
    "hidden, call",
    [
        ("torchmetrics.functional.image.lpips", lambda: load_lpips("none.pth")),
        ("torchvision.models", lambda: load_lpips("none.pth")),
        ("torchmetrics.image.fid", lambda: load_inception("none.pth")),
        ("torch_fidelity", lambda: load_inception("none.pth")),
        ("torchmetrics.image.fid", lambda: frechet_distance(torch.rand(3, 2), torch.rand(3, 2))),
    ],
)
def test_without_its_package_a_measure_says_how_to_get_it(monkeypatch, hidden, call):
    if hidden in ("torchvision.models", "torch_fidelity"):
        pytest.importorskip("torchmetrics")
    monkeypatch.setitem(sys.modules, hidden, None)
    with pytest.raises(InputError, match=r'pip install "torchmetrics\[image\]'):
        call()


# Fréchet distances


def gaussian(mean: list[float], root: torch.Tensor, n: int = 40, seed: int = 0) -> torch.Tensor:
    """n points (n, D) whose mean is exactly `mean` and whose covariance (by n - 1) exactly root' root."""
    points = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    points -= points.mean(0)
    points = points @ torch.linalg.inv(torch.linalg.cholesky(points.T @ points / (n - 1), upper=True))
    return points @ root.double() + torch.tensor(mean, dtype=torch.float64)


def test_the_frechet_distance_of_two_gaussians_in_closed_form():
    """|m_a - m_b|^2 + the squared differences of the standard deviations, along common axes."""
    pytest.importorskip("torchmetrics")
    a = gaussian([0, 0, 0], torch.diag(torch.tensor([1.0, 2, 3])))
    b = gaussian([1, 2, -2], torch.diag(torch.tensor([2.0, 2, 0.5])), n=25, seed=1)
    assert frechet_distance(a, b) == pytest.approx(9 + 1 + 0 + 6.25)
    assert frechet_distance(b, a) == pytest.approx(16.25)
    # Along axes that differ: of the unit sphere and an ellipsoid with the standard deviations 3 and 1 / 2, turned.
    turn = torch.tensor([[0.6, 0.8], [-0.8, 0.6]])
    ellipsoid = gaussian([0, 0], torch.diag(torch.tensor([3.0, 0.5])) @ turn)
    assert frechet_distance(gaussian([0, 0], torch.eye(2), seed=2), ellipsoid) == pytest.approx(2**2 + 0.5**2)


def test_the_frechet_distance_below_the_dimension():
    """3 and 4 points in 50 dimensions on two lines at right angles: the covariances' product is 0 and nothing is taken off."""
    torchmetrics = pytest.importorskip("torchmetrics.image.fid")
    a, b = torch.zeros(3, 50), torch.zeros(4, 50)
    a[:, 7] = torch.tensor([-2.0, 0, 2])  # variance 4
    b[:, 30] = torch.tensor([0.0, 3, 6, 3])  # mean 3, variance 6
    assert frechet_distance(a, b) == pytest.approx(9 + 4 + 6)
    # In their span the figure is torchmetrics' of all dimensions.
    a, b = (torch.rand(n, 50, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in (12, 20))
    assert in_their_span(a, b)[1].shape == (20, 32)
    whole = torch.nn.Identity()
    whole.num_features = 50
    metric = torchmetrics.FrechetInceptionDistance(feature=whole)
    metric.update(a, real=True)
    metric.update(b, real=False)
    assert frechet_distance(a, b) == pytest.approx(metric.compute().item(), rel=1e-5)


def test_the_frechet_distance_of_a_set_with_itself_in_any_order():
    pytest.importorskip("torchmetrics")
    generator = torch.Generator().manual_seed(4)
    a, b = torch.rand(30, 8, generator=generator), torch.rand(20, 8, generator=generator) ** 2
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-7)
    assert frechet_distance(a[:4], a[:4].flip(0)) == pytest.approx(0, abs=1e-7)  # fewer than dimensions
    assert frechet_distance(a.flip(0), b[torch.randperm(20)]) == pytest.approx(frechet_distance(a, b), rel=1e-6)
    assert frechet_distance(a, b) > 0.1


def test_where_a_frechet_distance_is_not_defined():
    pytest.importorskip("torchmetrics")
    a = torch.rand(5, 3)
    assert frechet_distance(a[:1], a) is None and frechet_distance(a, a[:0]) is None
    assert frechet_distance(a, torch.full((5, 3), torch.nan)) is None
    assert frechet_distance(a[:2], a[:2]) == pytest.approx(0, abs=1e-6)
    for wrong in (a[0], torch.rand(5, 4), a[:, :0]):
        with pytest.raises(InputError, match=r"of \(N, D\) and \(M, D\)"):
            frechet_distance(a, wrong)


@pytest.fixture(scope="module")
def inception(tmp_path_factory) -> tuple[torch.nn.Module, Path]:
    """torch-fidelity's network with random weights, and its file."""
    pytest.importorskip("torchmetrics")
    network = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3").FeatureExtractorInceptionV3
    folder = tmp_path_factory.mktemp("inception")
    torch.save({}, folder / "empty.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "load_state_dict", lambda self, state: None)  # it cannot be built without a file
        torch.manual_seed(6)
        model = network("inception-v3-compat", ["2048"], str(folder / "empty.pth"))
    save_file(model.state_dict(), folder / "inception.safetensors")
    return model, folder / "inception.safetensors"


def test_inception_is_torch_fidelitys(inception):
    """At its own size no picture is resized, and two authors' forward passes agree."""
    model, path = inception
    eight_bits = torch.randint(0, 256, (2, 3, 299, 299), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.inference_mode():
        expected = model(eight_bits)[0]
    loaded = load_inception(path)
    found = loaded.features(eight_bits.float() / 255)
    assert found.shape == (2, 2048) and expected.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert frechet_distance(found, found) == pytest.approx(0, abs=1e-6)
    for wrong in (torch.rand(2, 1, 64, 64), torch.rand(0, 3, 64, 64), torch.full((1, 3, 64, 64), torch.inf)):
        with pytest.raises(InputError):
            loaded.features(wrong)


def test_other_files_than_fids_inception_are_refused(inception, tmp_path):
    state = read_weights(inception[1])
    torchvisions, part = tmp_path / "inception_v3_google.safetensors", tmp_path / "part.safetensors"
    save_file({"fc.weight": torch.zeros(1000, 2048)}, torchvisions)
    save_file({key: value for key, value in state.items() if not key.startswith("Mixed_7c")}, part)
    for path, says in (
        (torchvisions, "as where torchvision's own inception_v3 was named.*--inception FILE"),
        (part, "Missing key.*Mixed_7c.*--inception FILE"),
        (tmp_path / "none.pth", "There is no weight file"),
    ):
        with pytest.raises(WeightsError, match=says):
            load_inception(path)


def test_nothing_in_an_inception_file_is_run(tmp_path):
    """torch-fidelity unpickles without limits; the file never reaches it."""
    pytest.importorskip("torchmetrics")
    pytest.importorskip("torch_fidelity")

    torch.save({"fc.weight": Trap(tmp_path / "ran")}, tmp_path / "trap.pth")
    with pytest.raises(WeightsError, match="could run code"):
        load_inception(tmp_path / "trap.pth")
    with pytest.raises(WeightsError, match="could run code"):
        load_lpips(tmp_path / "trap.pth")
    assert not (tmp_path / "ran").exists()


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_the_offline_frechet_distance_orders_pictures_as_one_would():
    """Other frames of the same clip are nearest; then it grows with blur and with noise; another person is far."""
    pytest.importorskip("av")
    pytest.importorskip("torchmetrics")
    network = load_stlpips(judges.stlpips_wheel(), "vgg")
    clips = (read_clip(CLIPS / f"{name}.mp4")[::3].movedim(-1, 1).float() / 255 for name in ("800000", "810000"))
    person, other = (F.interpolate(clip, size=128, mode="area") for clip in clips)
    truth, noise = person[::2], torch.randn(4, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    sets = {
        "frames": person[1::2],
        "blur": blurred(truth, 1.0),
        "more blur": blurred(truth, 2.0),
        "noise": (truth + 0.05 * noise).clamp(0, 1),
        "more noise": (truth + 0.15 * noise).clamp(0, 1),
        "other": other[::2],
    }
    true = stlpips_features(network, truth)
    far = {name: frechet_distance(stlpips_features(network, seen), true) for name, seen in sets.items()}
    assert true.shape == (4, 512) and 0.3 < true.square().mean().sqrt() <= 1  # of 1 at every place, less where places differ
    assert frechet_distance(true, true) == pytest.approx(0, abs=1e-7)
    assert far["frames"] < min(far["blur"], far["noise"]) and 2 * far["frames"] < far["other"]
    assert far["blur"] < far["more blur"] and far["noise"] < far["more noise"]
    with pytest.raises(InputError, match='"vgg"'):
        stlpips_features(load_stlpips(judges.stlpips_wheel(), "alex"), truth)


# Sharpness


def square(count: int, size: int = 64) -> torch.Tensor:
    face = torch.zeros(count, size, size, dtype=torch.bool)
    face[:, 16:48, 16:48] = True
    return face


def test_sharpness_of_equal_and_of_paler_pictures():
    frames, face = pictures(3), square(3)
    assert sharpness(frames, frames, face) == [1, 1, 1]
    assert sharpness(0.2 + 0.5 * frames, frames, face) == pytest.approx([0.25] * 3, rel=1e-4)  # half the contrast
    assert sharpness(frames + 0.05, frames, face) == pytest.approx([1] * 3, rel=1e-4)


def test_sharpness_falls_with_blur_and_rises_with_noise():
    frames, face = pictures(2), square(2)
    more, less = (sharpness(blurred(frames, sigma), frames, face) for sigma in (1.5, 0.5))
    assert all(a < b < 1 for a, b in zip(more, less)) and max(more) < 0.1
    assert min(sharpness(frames + 0.1 * torch.randn(frames.shape), frames, face)) > 1


def test_sharpness_is_measured_in_the_face_alone():
    frames, face = pictures(1), square(1)
    changed = frames.clone()
    changed[..., :14] = 0.5  # more than a pixel away from the mask, which the Laplacian looks beyond
    assert sharpness(changed, frames, face) == [1]
    assert sharpness(changed, frames, ~face)[0] < 0.9


def test_the_energy_of_a_chequerboard_is_known():
    """Neighbours at the sides differ by d, those at the corners are equal: a Laplacian of 4 d everywhere."""
    board = ((torch.arange(16)[:, None] + torch.arange(16)) % 2).float()
    frames = (0.5 + 0.1 * (board - 0.5)).expand(1, 3, 16, 16)
    assert laplacian_energy(frames, torch.ones(1, 16, 16, dtype=torch.bool)).item() == pytest.approx((4 * 0.1) ** 2, rel=1e-4)


def test_sharpness_without_truth_is_relative_to_the_portrait():
    frames, face = pictures(1).expand(3, -1, -1, -1), square(3)
    assert sharpness_to_portrait(frames, face, frames[:1], face[:1]) == pytest.approx([1] * 3)
    assert max(sharpness_to_portrait(blurred(frames, 1.0), face, frames[:1], face[:1])) < 0.5


def test_where_sharpness_is_not_defined():
    frames, face = pictures(3), square(3)
    face[1] = False
    flat = frames.clone()
    flat[2] = 0.5
    assert sharpness(frames, flat, face) == [1, None, None]
    assert sharpness(flat, frames, face)[2] == pytest.approx(0, abs=1e-6)
    assert sharpness_to_portrait(frames, face, frames[:1], face[:1])[1] is None
    assert sharpness_to_portrait(frames[:1], face[:1], frames[:1], face[1:2]) == [None]
    with pytest.raises(InputError, match="masks"):
        sharpness(frames, frames, face[:2])
