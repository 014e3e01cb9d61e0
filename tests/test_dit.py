"""The DiT against the original networks, and the paper's equations as properties."""

import json
import re
from collections import Counter
from dataclasses import asdict, dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from golden import load
from torch import Tensor, nn

from realportrait_core.checkpoint import METADATA_KEY, bundle_metadata, read_safetensors, save
from realportrait_core.config import MINI, PAPER, ConditionerConfig, DiTConfig
from realportrait_core.dit import model as model_module
from realportrait_core.dit.attention import RMSNorm, SpatialAttention, TemporalAttention, scaled_dot_product
from realportrait_core.dit.block import Block, Modulation
from realportrait_core.dit.checkpoint import dit_config_from_state, load_dit, save_dit, start_from_stdit2
from realportrait_core.dit.draft import warp
from realportrait_core.dit.embed import ClipShape, SizeEmbedder, position_embedding, rope, rotate, sincos_2d, sinusoid
from realportrait_core.dit.model import RealPortraitDiT
from realportrait_core.dit.motion_mapper import CPU_FRAMES
from realportrait_core.errors import InputError, WeightsError
from realportrait_core.motion_map import MotionMaps, dense

CLOSE = 1e-5  # of the largest value: float32, another order of sums, other sizes of a batch
DEEP = 3e-5  # the same through several blocks, whose rounding adds up
TINY = DiTConfig(hidden=48, depth=4, heads=4, control_depth=2, input_sq_size=64, motion_channels=6, motion_widths=(8, 8))
SHAPE = ClipShape(64, 64, frames=3, fps=25)
TOKENS = 16  # of a 64 x 64 picture


def same(a: Tensor, b: Tensor, room: float = CLOSE) -> bool:
    assert a.shape == b.shape
    return float((a - b).detach().abs().max()) <= room * float(b.abs().max())


def weights_of(tensors: dict) -> dict:
    return {key.removeprefix("w."): value for key, value in tensors.items() if key.startswith("w.")}


def per_frame(x: Tensor) -> Tensor:
    """(B, c, T, h, w) of the originals -> (B, L, c, h, w)."""
    return x.transpose(1, 2)


def random_model(cfg: DiTConfig, seed: int = 0) -> RealPortraitDiT:
    """No zero anywhere, so that no path is dead."""
    torch.manual_seed(seed)
    model = RealPortraitDiT(cfg).initialize()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def tiny() -> RealPortraitDiT:
    return random_model(TINY)


def some_maps(frames: int, channels: int = 6) -> MotionMaps:
    """A face in the middle of a 64 x 64 frame."""
    return MotionMaps(
        f=torch.randn(frames, channels, 8, 8),
        frame_to_crop=torch.tensor([[8.0, 0, 0], [0, 8.0, 16], [0, 0, 1]]).expand(frames, 3, 3).contiguous(),
        face=torch.tensor([[1 / 20, 0, -32 / 20], [0, 1 / 24, -30 / 24]]).expand(frames, 2, 3).contiguous(),
        height=64,
        width=64,
    )


@dataclass
class Clip:
    z: Tensor
    t: Tensor
    portrait: Tensor
    control: Tensor
    conditional: Tensor


def some_clip(model: RealPortraitDiT, clips: int = 2, frames: int = 3, seed: int = 1) -> Clip:
    torch.manual_seed(seed)
    conditional = torch.zeros(clips, frames, dtype=torch.bool)
    conditional[:, 0] = True
    return Clip(
        z=torch.randn(clips, frames, 4, 8, 8),
        t=torch.rand(clips, frames) * 999,
        portrait=torch.randn(clips, 4, 8, 8),
        control=model.encode_motion(some_maps(clips * frames)),
        conditional=conditional,
    )


# Parity: the numbers


def test_positions_are_the_originals():
    golden, _ = load("dit", "embedders")
    for name, rows, columns, height, width in (
        ("p512", 32, 32, 512, 512),
        ("p256", 16, 16, 256, 256),
        ("p768", 48, 48, 768, 768),
        ("p384x640", 24, 40, 384, 640),
    ):
        assert same(position_embedding(rows, columns, 1152, height, width, 512)[None, ::41], golden[f"pos1152.{name}"]), name
    for name, rows, columns, scale, base in (("a", 8, 8, 1, 8), ("b", 12, 8, (192 / 128) ** 0.5, 10), ("c", 5, 7, 0.37, 6)):
        assert same(sincos_2d(rows, columns, 96, scale, base)[None], golden[f"pos96.{name}"]), name


def test_positions_are_integers_at_512():
    """The first frequency is 1, so its angle is the position itself."""
    grid = position_embedding(32, 32, 1152, 512, 512, 512)
    angle = torch.atan2(grid[:, 0], grid[:, 288])  # of the column
    column = torch.arange(32.0).repeat(32)
    assert torch.allclose(angle, torch.atan2(column.sin(), column.cos()), atol=1e-5)


def test_sinusoids_are_the_originals():
    """As exactly as float32 holds the angle: a processor's exp and the product with t may be off by the last digit."""
    golden, _ = load("dit", "embedders")
    t = golden["temb.in"]
    for channels, name in ((256, "temb.out"), (17, "temb.out_odd")):
        angles = t[:, None] * 10000 ** -(torch.arange(channels // 2) / (channels // 2))
        room = F.pad(1e-6 + 2 * torch.finfo(torch.float32).eps * angles.repeat(1, 2), (0, channels % 2))
        assert ((sinusoid(t, channels) - golden[name]).abs() <= room).all(), name


def test_sizes_are_the_originals():
    golden, _ = load("dit", "embedders")
    embedder = SizeEmbedder(32, operations=nn)
    embedder.load_state_dict({key.removeprefix("size."): golden[key] for key in golden if key.startswith("size.mlp")})
    assert same(embedder(golden["size.in"], torch.float32), golden["size.out"])


def test_rope_and_norm_are_the_originals_in_both_orders():
    golden, _ = load("dit", "embedders")
    x, norm = golden["rope72.in"], RMSNorm(72)
    norm.load_state_dict({"weight": golden["rms72.w"]})
    turn = rope(16, 72)
    assert same(rotate(x, *turn), golden["rope72.out"])
    assert same(rotate(golden["rope72.in_len1"], *rope(1, 72)), golden["rope72.out_len1"])
    assert same(norm(x), golden["rms72.out"])
    for norm_last, name in ((True, "rope_then_rms72.out"), (False, "rms_then_rope72.out")):
        attention = TemporalAttention(144, 2, norm_last=norm_last, attention=scaled_dot_product, operations=nn)
        assert same(attention.rotate_and_norm(x, norm, turn), golden[name])


# Parity: the blocks. STDiT2 and PixArt also attend to a text; the tests add that where the originals have it.


class TextBlock(Block):
    """A block that also attends to y (B, N, C), where mask (B, N) is 1."""

    def __init__(self, hidden: int, heads: int, in_time: bool = True):
        super().__init__(hidden, heads, 4, qk_norm_legacy=True, attention=scaled_dot_product, operations=nn)
        self.cross_attn = nn.ModuleDict(
            {"q_linear": nn.Linear(hidden, hidden), "kv_linear": nn.Linear(hidden, 2 * hidden), "proj": nn.Linear(hidden, hidden)}
        )
        self.heads, self.in_time = heads, in_time

    def read(self, y: Tensor, mask: Tensor | None) -> None:
        self.y, self.mask = y, torch.ones(y.shape[:2], dtype=torch.bool) if mask is None else mask.bool()

    def temporal_attention(self, x, m):
        if self.in_time:
            x = super().temporal_attention(x, m)
        q = rearrange(self.cross_attn["q_linear"](x), "b l s (h d) -> b h (l s) d", h=self.heads)
        k, v = rearrange(self.cross_attn["kv_linear"](self.y), "b n (two h d) -> two b h n d", two=2, h=self.heads)
        out = F.scaled_dot_product_attention(q, k, v, self.mask[:, None, None])
        return x + self.cross_attn["proj"](rearrange(out, "b h (l s) d -> b l s (h d)", l=x.shape[1]))


def text_of(weights: dict, y: Tensor) -> Tensor:
    """y (B, 1, N, c) through the original's caption MLP -> (B, N, C)."""
    w = {key.rpartition("y_proj.")[2]: value for key, value in weights.items() if "y_proj" in key}
    hidden = F.gelu(F.linear(y[:, 0], w["fc1.weight"], w["fc1.bias"]), approximate="tanh")
    return F.linear(hidden, w["fc2.weight"], w["fc2.bias"])


def test_block_is_the_original():
    golden, _ = load("dit", "stdit2_block")
    block = TextBlock(96, 4)
    unused = block.load_state_dict(weights_of(golden), strict=False)
    assert unused.missing_keys == [] and unused.unexpected_keys == ["rope.freqs"]

    x, turn = golden["x"].unflatten(1, (5, 12)), rope(5, 24)
    assert same(block.attn(x.flatten(0, 1)), golden["sub.attn_spatial"])
    in_time = rearrange(block.attn_temp(x, turn), "b l s c -> (b s) l c")
    assert same(in_time, golden["sub.attn_temporal"])
    assert same(rearrange(block.attn_temp(x[:, :1], rope(1, 24)), "b l s c -> (b s) l c"), golden["sub.attn_temporal_len1"])
    assert same(block.mlp(golden["x"]), golden["sub.mlp"])

    y = golden["y"][0].split([3, 7])
    block.read(nn.utils.rnn.pad_sequence(y, batch_first=True), torch.arange(7) < torch.tensor([[3], [7]]))
    for name, noised in (("nomask", torch.ones(2, 5, dtype=torch.bool)), ("xmask", golden["x_mask"])):
        pick = noised[..., None, None]
        m = Modulation(
            spatial=torch.where(pick, golden["t"].unflatten(1, (1, 6, -1)), golden["t0"].unflatten(1, (1, 6, -1))),
            temporal=torch.where(pick, golden["t_tmp"].unflatten(1, (1, 3, -1)), golden["t0_tmp"].unflatten(1, (1, 3, -1))),
            rope=turn,
        )
        assert same(block(x, m).flatten(1, 2), golden[f"out.{name}"]), name


@dataclass(frozen=True)
class SampledShape(ClipShape):
    """The golden vectors were made as the original's sampling scripts do it, with height over width."""

    @property
    def aspect(self) -> float:
        return self.height / self.width


@pytest.mark.parametrize("case", ["a", "b", "c"])  # square; not square; a single frame of odd sides
def test_backbone_is_stdit2(case):
    golden, about = load("dit", "stdit2_small")
    weights, numbers = weights_of(golden), about["cases"][case]
    model = RealPortraitDiT(DiTConfig(hidden=96, depth=4, heads=4, control_depth=0, input_sq_size=128))
    for i in range(4):
        model.blocks[i] = TextBlock(96, 4)
    missing = model.load_state_dict(weights, strict=False).missing_keys
    assert all(key.startswith("motion_net.") for key in missing)

    shape = SampledShape(numbers["height"], numbers["width"], numbers["nf"], numbers["fps"])
    z, noised = per_frame(golden[f"{case}.x"]), golden[f"{case}.x_mask"]
    t = golden[f"{case}.t"][:, None].expand(*noised.shape)
    for name, mask, conditional in (
        ("nomask", golden[f"{case}.mask"], None),
        ("xmask", golden[f"{case}.mask"], ~noised),
        ("xmask_fulltext", None, ~noised),
    ):
        for block in model.blocks:
            block.read(text_of(weights, golden[f"{case}.y"]), mask)
        with torch.no_grad():
            out = model(z, t, shape, None, None, conditional)
        assert same(out, per_frame(golden[f"{case}.out.{name}"]), DEEP), name


def test_control_is_pixart_delta():
    """Its half control around PixArt blocks, which have no time and no norm of Q and K."""
    golden, _ = load("dit", "pixart_controlnet_half")
    weights = {key.removeprefix("base_model."): value for key, value in weights_of(golden).items()}
    weights["x_embedder.proj.weight"] = weights["x_embedder.proj.weight"].unsqueeze(2)
    y = text_of(weights, golden["y"])
    model = RealPortraitDiT(DiTConfig(hidden=48, depth=6, heads=4, control_depth=3, input_sq_size=64)).initialize()
    for holder, name in [(model.blocks, str(i)) for i in range(6)] + [(c, "copied_block") for c in model.controlnet]:
        block = TextBlock(48, 4, in_time=False)
        block.attn.q_norm = block.attn.k_norm = nn.Identity()
        block.read(y, golden["mask"])
        setattr(holder, name, block)
    unexpected = model.load_state_dict(weights, strict=False).unexpected_keys
    assert all(key.startswith(("pos_embed", "y_embedder")) for key in unexpected)
    for embedder in (model.csize_embedder, model.ar_embedder):  # PixArt has no size embedding
        nn.init.zeros_(embedder.mlp[2].weight)

    shape, z, t = ClipShape(64, 64, 1, 25), golden["x"].unsqueeze(1), golden["t"][:, None]
    with torch.no_grad():
        control = model.encode_motion_latent(golden["c"], 64, 64)
        out = model(z, t, shape, None, control)
        assert same(model(z, t, shape, None, None)[:, 0], golden["out.base"], DEEP)
        assert same(out[:, 0], golden["out.control"], DEEP)
        for block in model.controlnet:
            nn.init.zeros_(block.after_proj.weight)
            nn.init.zeros_(block.after_proj.bias)
        assert same(model(z, t, shape, None, control)[:, 0], golden["out.zero_init"], DEEP)


def test_whole_network_is_the_derived_one():
    """Reference K,V, half control and conditional frames together, from original modules and plain attention."""
    golden, _ = load("dit", "realportrait_small_derived")
    model = RealPortraitDiT(DiTConfig(hidden=48, depth=4, heads=4, control_depth=2, input_sq_size=128))
    missing = model.load_state_dict(weights_of(golden), strict=False)
    assert missing.unexpected_keys == ["rope.freqs"] and all(key.startswith("motion_net.") for key in missing.missing_keys)
    shape = ClipShape(128, 128, 5, 25)
    with torch.no_grad():
        reference = model.encode_reference(golden["z_ref"][:, :, 0], shape)
        for i, (k, v) in enumerate(reference.blocks):
            assert same(k, golden[f"ref.k{i}"]) and same(v, golden[f"ref.v{i}"]), i
        control = model.encode_motion_latent(per_frame(golden["motion_latent"]).flatten(0, 1), 128, 128)
        z, t, conditional = per_frame(golden["z"]), golden["t"][:, None].expand(2, 5), ~golden["x_mask"]
        assert same(model(z, t, shape, None, None, conditional), per_frame(golden["out.plain"]))
        assert same(model(z, t, shape, reference, None, conditional), per_frame(golden["out.ref_only"]))
        assert same(model(z, t, shape, reference, control, conditional), per_frame(golden["out.full"]))


# The equations


def test_equation_4_is_attention_over_both_frames_tokens():
    torch.manual_seed(0)
    attention = SpatialAttention(24, 2, attention=scaled_dot_product, operations=nn).double().requires_grad_(False)
    frames, portrait = torch.randn(5, 7, 24).double(), torch.randn(1, 9, 24).double()
    _, key_value = attention.encode(portrait)

    q, k, v = attention.queries_keys_values(frames)
    k_r, v_r = (part.expand(5, -1, -1, -1) for part in key_value)
    scores = torch.einsum("nhsd,nhtd->nhst", q, torch.cat([k, k_r], dim=2)) / 12**0.5
    by_hand = torch.einsum("nhst,nhtd->nhsd", scores.softmax(-1), torch.cat([v, v_r], dim=2))
    by_hand = attention.proj(rearrange(by_hand, "n h s d -> n s (h d)"))
    assert same(attention(frames, key_value), by_hand, 1e-12)

    lost = (key_value[0], torch.zeros_like(key_value[1]))
    assert not same(attention(frames, key_value), attention(frames, lost), 1e-3)  # V_r has an effect
    assert not same(attention(frames, key_value), attention(frames), 1e-3)  # Eq. 4 is not Eq. 1


def test_permuting_frames_permutes_spatial_attention():
    torch.manual_seed(0)
    attention = SpatialAttention(48, 4, attention=scaled_dot_product, operations=nn).requires_grad_(False)
    frames, order = torch.randn(6, TOKENS, 48), torch.tensor([3, 0, 5, 1, 4, 2])
    _, reference = attention.encode(torch.randn(1, TOKENS, 48))
    assert same(attention(frames[order], reference), attention(frames, reference)[order])


def test_temporal_attention_of_one_frame_is_the_value():
    """The shortcut and the full formula, also for a Linear that is not torch's own."""

    class HostLinear(nn.Linear):
        pass

    torch.manual_seed(0)
    attention = TemporalAttention(48, 4, norm_last=True, attention=scaled_dot_product, operations=nn).requires_grad_(False)
    x, turn = torch.randn(2, 1, TOKENS, 48), rope(1, 12)
    q, k, v = (rearrange(part, "b l s (h d) -> (b s) h l d", h=4) for part in attention.qkv(x).chunk(3, dim=-1))
    q, k = (attention.rotate_and_norm(part, norm, turn) for part, norm in ((q, attention.q_norm), (k, attention.k_norm)))
    full = attention.proj(rearrange(scaled_dot_product(q, k, v), "(b s) l c -> b l s c", b=2))
    assert same(attention(x, turn), full)
    attention.qkv.__class__ = HostLinear
    assert same(attention(x, turn), full)


def test_zero_initialised_control_is_the_backbone(tiny):
    model = random_model(TINY)
    clip = some_clip(model)
    reference = model.encode_reference(clip.portrait, SHAPE)
    for control in model.controlnet:
        nn.init.zeros_(control.after_proj.weight)
        nn.init.zeros_(control.after_proj.bias)
    backbone = model(clip.z, clip.t, SHAPE, reference, None, clip.conditional)
    assert torch.equal(model(clip.z, clip.t, SHAPE, reference, clip.control, clip.conditional), backbone)
    controlled = tiny(clip.z, clip.t, SHAPE, reference, clip.control, clip.conditional)
    assert not same(controlled, backbone, 1e-2)  # tiny's control is not zero
    assert torch.equal(tiny(clip.z, clip.t, SHAPE, reference, clip.control, clip.conditional, strength=0.0), backbone)


def test_reference_is_constant_over_time_noise_motion_and_mask(tiny):
    clip = some_clip(tiny)
    reference = tiny.encode_reference(clip.portrait, SHAPE)
    kept = [(k.clone(), v.clone()) for k, v in reference.blocks]
    for seed, conditional in ((2, None), (3, clip.conditional)):
        other = some_clip(tiny, seed=seed)
        tiny(other.z, other.t, SHAPE, reference, other.control, conditional)
        again = tiny.encode_reference(clip.portrait, SHAPE)
        for i, (k, v) in enumerate(kept):
            assert torch.equal(reference.blocks[i][0], k) and torch.equal(reference.blocks[i][1], v)
            assert torch.equal(again.blocks[i][0], k) and torch.equal(again.blocks[i][1], v)


def test_the_portrait_is_a_frame_of_its_own_at_t_0(tiny):
    """Eq. 5, 6: its stream is the backbone's on a clip of one conditional frame, without control."""
    clip = some_clip(tiny)
    seen = []
    hooks = [block.attn.register_forward_pre_hook(lambda _, given: seen.append(given[0])) for block in tiny.blocks]
    tiny(clip.portrait.unsqueeze(1), torch.full((2, 1), 500.0), SHAPE, None, None, torch.ones(2, 1, dtype=torch.bool))
    for hook in hooks:
        hook.remove()
    for i, (k, v) in enumerate(tiny.encode_reference(clip.portrait, SHAPE).blocks):
        _, k_frame, v_frame = tiny.blocks[i].attn.queries_keys_values(seen[i])
        assert same(k, k_frame) and same(v, v_frame)


def test_time_of_conditional_frames_does_not_matter(tiny):
    clip = some_clip(tiny)
    reference = tiny.encode_reference(clip.portrait, SHAPE)
    out = tiny(clip.z, clip.t, SHAPE, reference, clip.control, clip.conditional)
    moved = tiny(clip.z, clip.t.masked_fill(clip.conditional, 3.0), SHAPE, reference, clip.control, clip.conditional)
    assert torch.equal(out[~clip.conditional], moved[~clip.conditional])
    noised = tiny(clip.z, clip.t, SHAPE, reference, clip.control)
    assert not same(out[~clip.conditional], noised[~clip.conditional], 1e-3)  # but that they are conditional does


def test_what_is_the_same_at_every_step_is_computed_once(tiny, monkeypatch):
    """With the reference: positions, sizes, length and t = 0. A step embeds only its own timestep."""
    clip, calls = some_clip(tiny), Counter()
    parts = {name: part for name, part in tiny.named_children() if name.endswith("_embedder")}
    hooks = [part.register_forward_hook(lambda *_, name=name: calls.update([name])) for name, part in parts.items()]
    monkeypatch.setattr(
        model_module, "position_embedding", lambda *given: calls.update(["positions"]) or position_embedding(*given)
    )
    reference = tiny.encode_reference(clip.portrait, SHAPE)
    assert calls == {name: 1 for name in (*parts, "positions")}
    calls.clear()
    for _ in range(3):
        tiny(clip.z, clip.t, SHAPE, reference, clip.control, clip.conditional)
    for hook in hooks:
        hook.remove()
    assert calls == {"x_embedder": 3, "t_embedder": 3}


def test_one_reference_serves_several_clips(tiny):
    """Clips of one frame each: the same as every frame alone with its own portrait."""
    clip = some_clip(tiny, clips=6, frames=1)
    portraits = clip.portrait[:2]
    shared = tiny(clip.z, clip.t, SHAPE, tiny.encode_reference(portraits, SHAPE), clip.control)
    for i in range(6):
        own = tiny.encode_reference(portraits[i // 3 : i // 3 + 1], SHAPE)
        alone = tiny(clip.z[i : i + 1], clip.t[i : i + 1], SHAPE, own, clip.control[i : i + 1])
        assert same(shared[i : i + 1], alone)


def test_control_of_one_clip_serves_all(tiny):
    clip = some_clip(tiny)
    one = clip.control[:3]
    both = tiny(clip.z, clip.t, SHAPE, None, one)
    assert same(both, tiny(clip.z, clip.t, SHAPE, None, one.repeat(2, 1, 1)))


def test_lazy_and_dense_maps_give_the_same_tokens(tiny):
    torch.manual_seed(0)
    maps = some_maps(3)
    assert same(tiny.encode_motion(maps), tiny.encode_motion(dense(maps)))


def test_maps_are_mapped_a_few_at_a_time(tiny):
    """Memory beside the tokens does not grow with the clip."""
    seen, maps = [], some_maps(5)
    hook = tiny.motion_net[2].register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    for given in (maps, dense(maps)):
        seen.clear()
        tokens = tiny.encode_motion(given)
        assert max(seen) == CPU_FRAMES and sum(seen) == 5
        assert same(tokens, torch.cat([tiny.encode_motion(given[i : i + 1]) for i in range(5)]))
    hook.remove()


def test_a_mask_of_the_whole_head_lets_more_of_the_map_in():
    wide = random_model(replace(TINY, conditioner=ConditionerConfig(mask_reach=1.5)))
    maps = some_maps(3)
    assert same(wide.encode_motion(maps), wide.encode_motion(dense(maps.reaching(1.5))))
    assert not same(wide.encode_motion(maps), wide.encode_motion(dense(maps)), 1e-3)


@pytest.mark.parametrize("changes", [dict(hidden=0), dict(heads=0), dict(patch=0), dict(motion_widths=(8, 0))])
def test_sizes_of_nothing_are_refused(changes):
    ((name, value),) = changes.items()
    with pytest.raises(InputError, match=rf"{name} is {re.escape(str(value))}; it must be above 0"):
        DiTConfig(**changes)


@pytest.mark.parametrize("reach", [0.5, 3.0])
def test_a_mask_smaller_than_the_face_or_without_bounds_is_refused(reach):
    with pytest.raises(InputError, match=f"mask_reach is {reach}"):
        ConditionerConfig(mask_reach=reach)


def test_the_portraits_own_map_starts_without_effect():
    model = random_model(replace(TINY, conditioner=ConditionerConfig(reference_motion=True)))
    portrait, maps = torch.randn(2, 4, 8, 8), some_maps(2)
    with_map = model.encode_reference(portrait, SHAPE, maps).blocks[0][0]
    assert not same(with_map, model.encode_reference(portrait, SHAPE, some_maps(2)).blocks[0][0], 1e-3)
    nn.init.zeros_(model.conditioner.reference_proj.weight)
    nn.init.zeros_(model.conditioner.reference_proj.bias)
    plain = random_model(TINY)
    plain.load_state_dict(
        plain.state_dict() | {key: value for key, value in model.state_dict().items() if not key.startswith("conditioner.")}
    )
    unchanged = model.encode_reference(portrait, SHAPE, maps).blocks[0][0]
    assert torch.equal(unchanged, plain.encode_reference(portrait, SHAPE).blocks[0][0])
    with pytest.raises(InputError, match="own motion map"):
        model.encode_reference(portrait, SHAPE)
    with pytest.raises(InputError, match=r"motion latents \(3, 4, 8, 8\), their latents are \(2, 4, 8, 8\)"):
        model.encode_reference(portrait, SHAPE, some_maps(3))


# The draft

DRAFTING = replace(TINY, conditioner=ConditionerConfig(motion_latent=6, reference_motion=True, draft_widths=(8, 16, 12)))


def test_a_field_displaces_the_portrait():
    features = torch.randn(2, 3, 5, 8)
    fields = torch.zeros(2, 4, 5, 8)
    fields[:, 0] = 2 * 3 / 8  # x of the first field: three latent pixels to the right
    fields[:, 3] = -2 * 1 / 5  # y of the second: one up
    first, second = warp(features, fields).split(3, 1)
    assert same(first[..., :5], features[..., 3:])
    assert same(first[..., 5:], features[..., 7:].expand(2, 3, 5, 3))  # beyond the edge: the edge
    assert same(second[:, :, 1:], features[:, :, :4])


def test_each_portrait_serves_its_own_frames():
    model = random_model(DRAFTING)
    portraits, own, maps = torch.randn(2, 4, 8, 8), some_maps(2), some_maps(6)
    together = model.motion_latents(maps, model.conditioner.reference_features(portraits, own))
    for i in range(2):
        alone = model.motion_latents(
            maps[3 * i : 3 * i + 3], model.conditioner.reference_features(portraits[i : i + 1], own[i : i + 1])
        )
        assert same(together[3 * i : 3 * i + 3], alone)
    swapped = model.motion_latents(maps, model.conditioner.reference_features(portraits.flip(0), own[[1, 0]]))
    assert not same(together, swapped, 1e-2)
    encoded = model.encode_motion(maps, model.encode_reference(portraits, SHAPE, own))
    assert same(encoded, model.encode_motion_latent(together, 64, 64))


def test_a_draft_receives_the_portrait_beyond_the_mask():
    """A corner of the portrait that no map shows reaches the frame's latents."""
    model = random_model(DRAFTING)
    portrait, own, maps = torch.randn(1, 4, 8, 8), some_maps(1), some_maps(1)
    other = portrait.clone()
    other[..., :2, :2] += 1
    a, b = (model.motion_latents(maps, model.conditioner.reference_features(z, own)) for z in (portrait, other))
    assert (a - b).abs().amax((0, 1))[:2, :2].min() > 1e-3 * a.abs().max()


@pytest.mark.parametrize("h, w", [(7, 9), (1, 1), (5, 16)])
def test_a_draft_takes_any_size(h, w):
    model = random_model(DRAFTING)
    v, features = torch.randn(4, 6, h, w), torch.randn(2, 10, h, w)
    assert model.conditioner.draft(v, features).shape == v.shape


def test_a_draft_without_its_reference_is_refused():
    model = random_model(DRAFTING)
    with pytest.raises(InputError, match="encode_motion needs its Reference"):
        model.encode_motion(some_maps(2))


@pytest.mark.parametrize(
    "changes", [dict(draft_widths=(8, 8)), dict(draft_widths=(8, 0, 8)), dict(draft_widths=(8, 8, 8), reference_motion=False)]
)
def test_an_impossible_draft_is_refused(changes):
    with pytest.raises(InputError, match="3 widths above 0 and reads the portrait's own map"):
        replace(DRAFTING.conditioner, **changes)


def test_a_file_shows_its_draft(tmp_path):
    model = random_model(DRAFTING)
    save_dit(tmp_path / "draft.safetensors", model, torch.float32)
    loaded = load_dit(tmp_path / "draft.safetensors")
    assert loaded.cfg == DRAFTING and dit_config_from_state(model.state_dict(), {}).conditioner == DRAFTING.conditioner
    features, maps = model.conditioner.reference_features(torch.randn(1, 4, 8, 8), some_maps(1)), some_maps(3)
    assert same(loaded.motion_latents(maps, features), model.motion_latents(maps, features))


# Training


def test_initialised_network_predicts_zero_and_its_control_has_no_effect():
    torch.manual_seed(0)
    model = RealPortraitDiT(TINY).initialize().requires_grad_(False)
    clip = some_clip(model)
    reference = model.encode_reference(clip.portrait, SHAPE)
    assert not model(clip.z, clip.t, SHAPE, reference, clip.control).any()
    nn.init.normal_(model.final_layer.linear.weight)
    backbone = model(clip.z, clip.t, SHAPE, reference, None)
    assert backbone.any() and torch.equal(model(clip.z, clip.t, SHAPE, reference, clip.control), backbone)


def test_every_weight_learns():
    model = random_model(DRAFTING).requires_grad_(True)
    clip = some_clip(random_model(TINY))
    reference = model.encode_reference(clip.portrait, SHAPE, some_maps(2))
    control = model.encode_motion(some_maps(6), reference)
    out = model(clip.z, clip.t, SHAPE, reference, control, clip.conditional)
    out[~clip.conditional].square().sum().backward()
    unchanged = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert unchanged == []


def test_no_value_decides_where_python_goes():
    """A tensor without values goes through the paper's network, so torch.compile and CUDA graphs can take it whole."""
    model, shape = RealPortraitDiT(PAPER.dit, device="meta"), ClipShape(512, 512, 16, 25)
    with torch.device("meta"):
        z, t, conditional = torch.empty(1, 16, 4, 64, 64), torch.empty(1, 16), torch.empty(1, 16, dtype=torch.bool)
        reference = model.encode_reference(torch.empty(1, 4, 64, 64), shape)
        control = model.encode_motion(torch.empty(16, 256, 512, 512))
        out = model(z, t, shape, reference, control, conditional)
    assert out.shape == (1, 16, 8, 64, 64) and control.shape == (16, 1024, 1152)
    assert [tuple(part.shape) for part in reference.blocks[27]] == [(1, 16, 1024, 72)] * 2


# Precision


def test_time_is_embedded_in_float32_for_a_bf16_network():
    """bf16 holds only every fourth number above 512."""
    model = random_model(TINY).to(torch.bfloat16)
    z = torch.randn(1, 1, 4, 8, 8, dtype=torch.bfloat16)
    a, b = (model(z, torch.full((1, 1), t), SHAPE, None, None) for t in (998.0, 999.0))
    assert a.dtype == torch.float32 and not torch.equal(a, b)


def test_tables_may_be_kept_in_fp8(tiny):
    kept, rounded = random_model(TINY), random_model(TINY)
    for name, parameter in kept.named_parameters():
        if "table" in name or "_norm" in name:
            parameter.data = parameter.data.to(torch.float8_e4m3fn)
    for name, parameter in rounded.named_parameters():
        if "table" in name or "_norm" in name:
            parameter.data = parameter.data.to(torch.float8_e4m3fn).float()
    clip = some_clip(tiny)
    outs = [model(clip.z, clip.t, SHAPE, model.encode_reference(clip.portrait, SHAPE), clip.control) for model in (kept, rounded)]
    assert torch.equal(*outs)


# The paper's numbers


def expected_shapes(cfg: DiTConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of STDiT2's file without its text, and of the control and the mapper beside it."""
    C, d, (w1, w2) = cfg.hidden, cfg.hidden // cfg.heads, cfg.motion_widths
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, out: int, *inputs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, *inputs), (out,)

    def block(name: str) -> None:
        shapes[f"{name}.scale_shift_table"], shapes[f"{name}.scale_shift_table_temporal"] = (6, C), (3, C)
        for attention in ("attn", "attn_temp"):
            linear(f"{name}.{attention}.qkv", 3 * C, C)
            linear(f"{name}.{attention}.proj", C, C)
            shapes[f"{name}.{attention}.q_norm.weight"] = shapes[f"{name}.{attention}.k_norm.weight"] = (d,)
        linear(f"{name}.mlp.fc1", 4 * C, C)
        linear(f"{name}.mlp.fc2", C, 4 * C)

    linear("x_embedder.proj", C, 4, 1, 2, 2)
    for name, size in (("t", C), ("csize", C // 3), ("ar", C // 3), ("fl", C), ("fps", C)):
        linear(f"{name}_embedder.mlp.0", size, 256)
        linear(f"{name}_embedder.mlp.2", size, size)
    linear("t_block.1", 6 * C, C)
    linear("t_block_temp.1", 3 * C, C)
    for i in range(cfg.depth):
        block(f"blocks.{i}")
    shapes["final_layer.scale_shift_table"] = (2, C)
    linear("final_layer.linear", 4 * 4 * (2 if cfg.learned_sigma else 1), C)
    for i in range(cfg.control_depth):
        block(f"controlnet.{i}.copied_block")
        linear(f"controlnet.{i}.after_proj", C, C)
    linear("controlnet.0.before_proj", C, C)
    own = cfg.conditioner
    if own is None:
        for layer, out, channels in ((0, w1, cfg.motion_channels), (2, w2, w1), (4, 4, w2)):
            linear(f"motion_net.{layer}", out, channels, 3, 3)
        return shapes
    n, m = own.motion_blocks, own.motion_latent
    for layer, out, channels in ((0, w1, cfg.motion_channels), (2, w2, w1), (4, w2 if n else m, w2)):
        linear(f"conditioner.mapper.{layer}", out, channels, 3, 3)
    for layer in range(n):
        linear(f"conditioner.deeper.{layer}.conv1", w2, w2, 3, 3)
        linear(f"conditioner.deeper.{layer}.conv2", w2, w2, 3, 3)
    if n:
        linear(f"conditioner.deeper.{n}", m, w2, 1, 1)
    linear("conditioner.embedder.proj", C, m, 1, 2, 2)
    if own.reference_motion:
        linear("conditioner.reference_proj", C, C)
    if own.draft_widths:
        fine, middle, coarse = own.draft_widths
        still = 4 + m
        for name, out, channels, kernel in (
            ("enter", fine, m + still, 3),
            ("halve", middle, fine, 3),
            ("quarter", coarse, middle, 3),
            ("from_coarse", middle, coarse, 1),
            ("from_middle", fine, middle, 1),
            ("fields", 4, middle, 1),
            ("carried", fine, 2 * still, 3),
            ("leave", m, fine + 2 * still, 1),
            *(
                (f"{block}.conv{i}", width, width, 3)
                for i in (1, 2)
                for block, width in (
                    ("fine_in", fine),
                    ("middle_in", middle),
                    ("coarse.0", coarse),
                    ("coarse.1", coarse),
                    ("middle_out", middle),
                    ("fine_out", fine),
                    ("last", fine),
                )
            ),
        ):
            linear(f"conditioner.draft.{name}", out, channels, kernel, kernel)
    return shapes


@pytest.mark.parametrize("cfg", [PAPER.dit, MINI.dit], ids=["paper", "mini"])
def test_names_and_shapes_are_those_of_the_public_files(cfg):
    model = RealPortraitDiT(cfg, device="meta")
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == expected_shapes(cfg)


def test_paper_has_as_many_parameters_as_the_original():
    model = RealPortraitDiT(PAPER.dit, device="meta")
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    control, mapper = counts.pop("controlnet"), counts.pop("motion_net")
    backbone = sum(counts.values()) + 36  # STDiT2 also stores RoPE's 36 frequencies; here they are computed
    assert (backbone, control, backbone + control, mapper) == (612_639_428, 294_966_432, 907_605_860, 167_140)


# Weight files


def test_file_round_trip(tiny, tmp_path):
    path = tmp_path / "dit.safetensors"
    save_dit(path, tiny, torch.float32)
    loaded = load_dit(path)
    assert loaded.cfg == tiny.cfg
    assert all(torch.equal(value, tiny.state_dict()[key]) for key, value in loaded.state_dict().items())
    save_dit(path, tiny)
    assert {value.dtype for value in read_safetensors(path)[0].values()} == {torch.float16}
    assert {value.dtype for value in load_dit(path).state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("cfg", [PAPER.dit, MINI.dit, TINY], ids=["paper", "mini", "tiny"])
def test_sizes_follow_from_the_shapes(cfg):
    state = RealPortraitDiT(cfg, device="meta").state_dict()
    unseen = {
        "prediction": "epsilon",
        "qk_norm_legacy": True,
        "input_sq_size": 512,
        "clip_frames": 16,
        "fps": 25.0,
        "conditioner": cfg.conditioner and replace(cfg.conditioner, mask_reach=1.0),
    }
    assert dit_config_from_state(state, {}) == replace(cfg, **unseen)
    assert dit_config_from_state(state, bundle_metadata("dit", cfg)) == cfg


def older(state: dict, cfg: DiTConfig) -> tuple[dict, dict]:
    """A file from before the conditioner was a module of its own: keys and config."""
    names = {
        "conditioner.mapper.": "motion_net.",
        "conditioner.embedder.": "motion_embedder.",
        "conditioner.draft.": "draft.",
        "conditioner.reference_proj.": "reference_proj.",
    }
    names |= {f"conditioner.deeper.{i}.": f"motion_net.{5 + i}." for i in range(9)}
    found = {}
    for key, value in state.items():
        name = next((name for name in names if key.startswith(name)), "")
        found[names.get(name, "") + key.removeprefix(name)] = value
    fields = asdict(cfg)
    fields |= fields.pop("conditioner")
    return found, {METADATA_KEY: json.dumps({"role": "dit", "version": 1, "config": fields})}


@pytest.mark.parametrize("changes", [dict(), dict(motion_blocks=2), dict(draft_widths=())])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_files_from_before_the_conditioner_still_load(changes, prefix, tmp_path):
    cfg = replace(DRAFTING, conditioner=replace(DRAFTING.conditioner, mask_reach=2.0, **changes))
    model, path = random_model(cfg), tmp_path / "older.safetensors"
    state, metadata = older(model.state_dict(), cfg)
    assert "motion_net.0.weight" in state and not any(key.startswith("conditioner.") for key in state)
    save(path, {prefix + key: value for key, value in state.items()}, metadata)
    loaded = load_dit(path)
    assert loaded.cfg == cfg
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_older_files_whose_motion_went_through_the_latents_own_embedder_still_load(tmp_path):
    """Four channels of motion latents needed no embedder of their own."""
    cfg = replace(TINY, conditioner=ConditionerConfig(reference_motion=True))
    model, path = random_model(cfg), tmp_path / "older.safetensors"
    model.conditioner.embedder.load_state_dict(model.x_embedder.state_dict())
    state, metadata = older(model.state_dict(), cfg)
    save(path, {key: value for key, value in state.items() if not key.startswith("motion_embedder.")}, metadata)
    loaded = load_dit(path).state_dict()
    assert loaded.keys() == model.state_dict().keys()
    assert all(torch.equal(value, loaded[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("conditioner", [None, asdict(ConditionerConfig(motion_latent=5)), "all of it", {"motion_latents": 6}])
def test_a_config_of_another_conditioner_is_refused(conditioner):
    fields = asdict(DRAFTING) | {"conditioner": conditioner}
    metadata = {METADATA_KEY: json.dumps({"role": "dit", "version": 1, "config": fields})}
    with pytest.raises(WeightsError, match="motion_latent|conditioner"):
        dit_config_from_state(RealPortraitDiT(DRAFTING, device="meta").state_dict(), metadata)


def test_weights_that_do_not_fit_are_refused(tiny, tmp_path):
    path, state = tmp_path / "dit.safetensors", tiny.state_dict()

    def refused(state: dict, metadata: dict, message: str) -> None:
        save(path, state, metadata)
        with pytest.raises(WeightsError, match=message):
            load_dit(path)

    ours = bundle_metadata("dit", TINY)
    refused({key: value for key, value in state.items() if "blocks.2.mlp" not in key}, ours, "4 of .* tensors are missing")
    refused(state, bundle_metadata("dit", replace(TINY, depth=5)), "depth = 5 and its weights have 4")
    refused(state, bundle_metadata("dit", replace(TINY, motion_channels=7)), "motion_channels = 7 and its weights have 6")
    refused({key: value for key, value in state.items() if "x_embedder" not in key}, {}, "lack x_embedder.proj.weight")
    refused({**state, "blocks.1.attn.proj.weight": torch.zeros(48, 40)}, ours, r"\(48, 40\), needed \(48, 48\)")
    refused({"taesd_decoder.1.weight": torch.zeros(1)}, {}, "TAESD")
    refused({"something": torch.zeros(1)}, {}, "does not recognise")


def test_start_from_the_public_backbone(tmp_path):
    golden, _ = load("dit", "realportrait_small_derived")
    public = {key: value for key, value in weights_of(golden).items() if not key.startswith("controlnet.")}
    text = {"y_embedder.y_embedding": torch.ones(4, 16), "blocks.0.cross_attn.proj.weight": torch.ones(48, 48)}
    path = tmp_path / "stdit2.safetensors"
    save(path, {**public, **text}, {})
    model = RealPortraitDiT(replace(TINY, input_sq_size=128))
    start_from_stdit2(model, path)
    state = model.requires_grad_(False).state_dict()
    assert all(torch.equal(state[key], value) for key, value in public.items() if key != "rope.freqs")
    for key, value in public.items():
        if key.startswith(("blocks.0.", "blocks.1.")):
            i, name = key.removeprefix("blocks.").split(".", 1)
            assert torch.equal(state[f"controlnet.{i}.copied_block.{name}"], value)
    z, t, shape = per_frame(golden["z"]), golden["t"][:, None].expand(2, 5), ClipShape(128, 128, 5, 25)
    out = model(z, t, shape, None, model.encode_motion(torch.randn(10, 6, 64, 64)), ~golden["x_mask"])
    assert same(out, per_frame(golden["out.plain"]))
    with pytest.raises(WeightsError, match="not an STDiT2 of this model's size"):
        start_from_stdit2(RealPortraitDiT(replace(TINY, hidden=96)), path)


# Bad input


def test_shapes_that_do_not_fit_are_refused_with_numbers(tiny):
    clip = some_clip(tiny)
    reference = tiny.encode_reference(clip.portrait, SHAPE)
    z, t, control, conditional = clip.z, clip.t, clip.control, clip.conditional

    def refused(message: str, *args) -> None:
        with pytest.raises(InputError, match=message):
            tiny(*args)

    refused(r"\(2, 3, 5, 8, 8\)", torch.zeros(2, 3, 5, 8, 8), t, SHAPE, reference, control)
    refused(r"\(6, 4, 8, 8\)", z.flatten(0, 1), t, SHAPE, reference, control)
    refused(r"t is \(2, 2\).*\(2, 3\)", z, t[:, :2], SHAPE, reference, control)
    refused(r"conditional is \(2, 1\).*\(2, 3\)", z, t, SHAPE, reference, control, conditional[:, :1])
    refused("motion has 4 frames, the latents 2 x 3", z, t, SHAPE, reference, control[:4])
    refused(r"\(6, 15, 48\).*\(3, 16, 48\)", z, t, SHAPE, reference, control[:, :15])
    refused("2 portraits of 16 tokens in 4 blocks, the latents 1 clips", z[:1], t[:1], SHAPE, reference, control[:3])
    refused("2 portraits of 16 tokens in 3 blocks", z, t, SHAPE, replace(reference, blocks=reference.blocks[:3]), control)
    refused("encoded for .*height=64.*height=96", z, t, ClipShape(96, 64, 3, 25), reference, control)
    with pytest.raises(InputError, match=r"\(2, 3, 4, 8, 8\)"):
        tiny.encode_reference(z, SHAPE)
    with pytest.raises(InputError, match=r"\(3, 7, 8, 8\).*\(L, 6, height, width\)"):
        tiny.encode_motion(some_maps(3, channels=7))
    with pytest.raises(InputError, match="64x0 px"):
        ClipShape(0, 64, 3, 25)
