"""The weights that a stage starts from: RealPortrait's, the public STDiT2's, or none."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ..checkpoint import read_header, sniff
from ..config import AblationConfig, Config, DiTConfig
from ..dit.ablation import ReferenceNetworkDiT, load_network, network_of
from ..dit.checkpoint import start_from_stdit2
from ..dit.model import RealPortraitDiT
from ..errors import InputError


def initial_network(cfg: Config, init: Path | None) -> RealPortraitDiT:
    """Weights of a RealPortrait file, with a new draft or reference network where the preset has one and they do not; a backbone
    from STDiT2's; or `from_scratch` without a file. InputError for a network of another size or kind than the preset's."""
    if init is None:
        return from_scratch(cfg.dit)
    if sniff(read_header(init).shapes) == "stdit2":
        dit = RealPortraitDiT(cfg.dit)
        start_from_stdit2(dit, init)
        return dit
    dit = with_steps(load_network(init), 0).requires_grad_(True)
    if cfg.dit.drafts and dit.cfg.reference_motion and not dit.cfg.drafts:
        dit = with_draft(dit, cfg.dit.conditioner.draft_widths)
    if isinstance(cfg.dit, AblationConfig) and cfg.dit.reference_network and not isinstance(dit.cfg, AblationConfig):
        dit = with_reference_network(dit)
    if dit.cfg != cfg.dit:
        raise InputError(f"{init} is a network of another size or kind than the preset: {dit.cfg} against {cfg.dit}.")
    return dit


@torch.no_grad()
def from_scratch(cfg: DiTConfig) -> RealPortraitDiT:
    """There are no public weights to protect, so the projections of the control do not start at zero."""
    dit = network_of(cfg).initialize()
    for layer in [*(c.before_proj for c in dit.controlnet[:1]), *(c.after_proj for c in dit.controlnet)]:
        nn.init.xavier_uniform_(layer.weight)
    if cfg.reference_motion:
        nn.init.xavier_uniform_(dit.conditioner.reference_proj.weight)
    return dit


def with_steps(dit: RealPortraitDiT, steps: int) -> RealPortraitDiT:
    """The same weights for another number of distilled steps, 0 for any number."""
    other = network_of(replace(dit.cfg, distilled_steps=steps))
    other.load_state_dict(dit.state_dict())
    return other.eval().requires_grad_(False)


def with_reference_network(dit: RealPortraitDiT) -> RealPortraitDiT:
    """The same network with a copy of its backbone for the portrait, which gives the same result."""
    other = ReferenceNetworkDiT(AblationConfig(**vars(dit.cfg), reference_network=True))
    other.load_state_dict(dit.state_dict(), strict=False)  # all but the reference network's own
    return other.copy_backbone()


def with_draft(dit: RealPortraitDiT, widths: tuple[int, ...]) -> RealPortraitDiT:
    """The same network with a draft that changes nothing yet."""
    grown = RealPortraitDiT(replace(dit.cfg, conditioner=replace(dit.cfg.conditioner, draft_widths=widths)))
    grown.conditioner.draft.initialize()
    grown.load_state_dict(grown.state_dict() | dit.state_dict())
    return grown
