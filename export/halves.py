"""Which checkpoints an export reads: both halves of the policy, or the one that `--checkpoint` names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memrt.export.checkpoints.pi05 import Pi05Checkpoint, open_pi05
from memrt.export.checkpoints.random_vlm import VLMS
from memrt.export.checkpoints.random_weights import PREFIX, parse_random
from memrt.export.checkpoints.vlm import VlmCheckpoint, open_vlm
from memrt.export.pipeline import reference_weights
from memrt.export.vlm_families import family_of
from memrt.export.vlm_processor import read_resize
from memrt.runtime.config import PolicyConfig, resolve_weights
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.vlm_config import Resize

if TYPE_CHECKING:
    from memrt.export.checkpoint_export import Request

HIGH_LEVEL, LOW_LEVEL = ("hl/vision", "hl/decoder"), ("ll/vision", "ll/prefix", "ll/step")


@dataclass(frozen=True, slots=True)
class Halves:
    """The open checkpoints. `resize` is what the VLM's image processor does to frames."""

    high_level: VlmCheckpoint | None
    low_level: Pi05Checkpoint | None
    resize: Resize | None

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that will be made."""
        return (LOW_LEVEL if self.low_level is not None else ()) + (HIGH_LEVEL if self.high_level is not None else ())

    @property
    def random_weights(self) -> bool:
        """Whether any weight was drawn instead of trained: then gates are rehearsals."""
        return any(self._is_random(half) for half in (self.high_level, self.low_level))

    def fingerprints(self) -> dict[str, Any]:
        """What was read, by half."""
        halves = {"high_level": self.high_level, "low_level": self.low_level}
        return {name: half.source.fingerprint() for name, half in halves.items() if half is not None}

    @staticmethod
    def _is_random(half: VlmCheckpoint | Pi05Checkpoint | None) -> bool:
        return half is not None and PREFIX in half.source.label


def open_halves(request: Request, policy: PolicyConfig) -> Halves:
    """Open what `request` asks for; no weights are read. Raises MemrtError for whatever cannot be exported."""
    root = request.weights_root or reference_weights()
    vlm: str | None = None
    pi05: str | None = None
    adapter = request.adapter
    if request.checkpoint is None:
        pi05 = _place(policy.low_level.weights, root)
        if policy.high_level.source == "vlm":
            vlm = _place(policy.high_level.weights, root)
            if adapter is None and policy.high_level.adapter:
                adapter = _place(policy.high_level.adapter, root)
    elif _is_vlm(request.checkpoint):
        vlm = request.checkpoint
    else:
        pi05 = request.checkpoint
    if vlm is None and (adapter or request.pretrained):
        raise MemrtError(
            f"checkpoint {request.checkpoint}",
            expected="a Qwen VLM, which --adapter and --pretrained belong to",
            found="a π0.5",
            fix="leave them out, or name the VLM with --checkpoint",
        )
    high_level = None
    if vlm is not None:
        high_level = open_vlm(vlm, adapter, pretrained=request.pretrained, fine_tuned_share=request.fine_tuned_share)
    low_level = None
    if pi05 is not None:
        low_level = open_pi05(pi05, norm_stats=request.norm_stats, tokenizer=request.tokenizer)
    resize = None
    if high_level is not None and vlm is not None:
        config = high_level.config
        resize = read_resize(Path(vlm).expanduser(), family_of(config), config.vision_config)
    return Halves(high_level, low_level, resize)


def _place(name: str, root: Path) -> str:
    """`random:…` as it is, else the folder of a policy's weights."""
    return name if parse_random(name) is not None else str(resolve_weights(name, root))


def _is_vlm(checkpoint: str) -> bool:
    """Whether a checkpoint is a VLM, by its name or its config.json; everything else is opened as a π0.5."""
    parsed = parse_random(checkpoint)
    if parsed is not None:
        return parsed[0] in VLMS
    folder = Path(checkpoint).expanduser()
    if not folder.is_dir():
        raise MemrtError(
            f"checkpoint {checkpoint}",
            expected="a checkpoint folder, or random:<name>",
            found="a file" if folder.exists() else "nothing there",
            fix="name the folder that holds config.json and the weights",
        )
    try:
        document = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and "model_type" in document
