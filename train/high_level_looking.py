"""What the decoder is helped to look at while it learns: throw-away heads that probe its layers.

What decides a reply is seen in a few places of the picture. A decoder that starts from nothing learns from the words
alone very late which places those are; asked for them on the way, within minutes. The heads never leave training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from memrt.train.high_level_forward import Probe, TextBatch, TrainingForward, VisionFeatures
from memrt.train.high_level_model import IMAGE_SIZE, SIDE
from memrt.train.high_level_pointing import CELL, GRIPPER_STATES, parse_scene
from memrt.train.high_level_text import Beginnings, Encoded, ExampleEncoder, Looks

HEADS = "pointing.safetensors"  # all throw-away heads, kept beside the weights for the next stage
# Which decoder layer is helped to look: layer 0 gathers a thing's name, layer 1 can look for it; which thing the step
# under way is about follows from the memory, and is known a layer later.
NAME_LAYER, STEP_LAYER = 1, 2
READING_WEIGHT, LOOKING_WEIGHT, SPELLING_WEIGHT = 3.0, 0.3, 0.3  # beside the text loss
OVER_WEIGHT, STATE_WEIGHT = 0.5, 0.3  # of whether the step is over, and of what the gripper does


class CoordinateHead(nn.Module):
    """Helps the decoder to look before it spells: at each opening bracket, where is the object, and at which pixel?

    Spelling digit by digit tells a decoder that starts from nothing very late where it should have looked. So its
    probed heads are asked to attend to the visual token that holds the pixel, and the layer's output to contain it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.pixel = nn.Linear(width, 2)

    def loss(self, probe: Probe, token: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """`probe` of n positions; `token` int64 [n] of their texts holds `pixels` fp32 [n, 2]: (row, column).

        Places out of the picture (NaN: nowhere) are left out. Returns the loss, and the mean error [pixels] per axis of
        the reading.
        """
        seen = ((pixels >= 0) & (pixels < IMAGE_SIZE)).all(-1)
        if not seen.any():
            return pixels.new_zeros(()), pixels.new_full((), float("nan"))
        hidden, logits, token, pixels = probe.hidden[seen], probe.logits[seen], token[seen], pixels[seen]
        error = (self.pixel(self.norm(hidden)) - pixels / IMAGE_SIZE).abs().mean()
        return READING_WEIGHT * error + LOOKING_WEIGHT * _looking(logits, token), error.detach() * IMAGE_SIZE


def _looking(logits: Tensor, token: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), token.repeat_interleave(logits.shape[1]))


class RecallHead(nn.Module):
    """Helps the decoder to recall a place that the newest image does not tell: from a memory's digits or an old image.

    Digits are copied one by one, so it is asked to attend to the one that comes next, and to answer with it at once: it
    looked at the right digit in 97 % of held-out calls, and yet spelled the column of another container in most. Of an
    image it reads the pixel.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.place = CoordinateHead(width)

    def loss(self, probe: Probe, recalled: Looks, spelled: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """`probe` of the n positions of `recalled`, whose answers are to be the tokens `wanted` int64 [n].

        `spelled` [n, vocabulary] is what the layer would answer if it were the last. Returns the loss, and the share of
        attention that is right.
        """
        attention = probe.logits.detach().softmax(-1)
        share = attention.gather(-1, recalled.token[:, None, None].expand(*attention.shape[:2], 1)).mean()
        digits = recalled.pixels.isnan().any(-1)
        loss = self.place.loss(probe, recalled.token, recalled.pixels)[0]
        if digits.any():
            loss = loss + LOOKING_WEIGHT * _looking(probe.logits[digits], recalled.token[digits])
            loss = loss + SPELLING_WEIGHT * F.cross_entropy(spelled[digits], wanted[digits])
        return loss, share


class MomentHead(nn.Module):
    """Helps the decoder to decide before it speaks: where are the hand and the thing of the step, and is the step over?

    That is seen in how the hand stands to what the step is about; while a cube's visits are waited for, in how the cube
    stands to its target. It decides a few words of a reply, and they alone
    would tell the decoder late that these are the two places to compare.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hand, self.thing = CoordinateHead(width), CoordinateHead(width)
        self.state = nn.Linear(width, len(GRIPPER_STATES))
        self.norm = nn.LayerNorm(width)
        self.over = nn.Linear(width, 1)

    def loss(
        self, hand: Probe, thing: Probe, scenes: Sequence[str], begun: Beginnings
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Probes of the n places where replies begin; `scenes` describe their images.

        The hand's probe looks at what the thing has to be seen beside where that is not the hand. Returns the loss, the
        mean error [pixels] per axis of its reading, and the share of steps judged rightly.
        """
        places, states = zip(*(_gripper(scene) for scene in scenes), strict=True)
        at = torch.tensor(places, device=begun.beside.device)
        at = torch.where(begun.beside.isnan(), at, begun.beside)
        looking, error = self.hand.loss(hand, _visual_tokens(begun.image_start, at), at)
        state = F.cross_entropy(self.state(hand.hidden), torch.tensor(states, device=at.device))
        judged, right = self._judged(thing.hidden, begun.over)
        seen = self.thing.loss(thing, _visual_tokens(begun.image_start, begun.watched), begun.watched)[0]
        return looking + seen + STATE_WEIGHT * state + OVER_WEIGHT * judged, {
            "hand_error_px": error,
            "over_right": right,
        }

    def _judged(self, hidden: Tensor, over: Tensor) -> tuple[Tensor, Tensor]:
        known = ~over.isnan()
        if not known.any():
            return over.new_zeros(()), over.new_full((), math.nan)
        logit, truth = self.over(self.norm(hidden[known]))[:, 0], over[known]
        right = ((logit > 0) == (truth > 0)).float().mean()
        return F.binary_cross_entropy_with_logits(logit, truth), right


def _visual_tokens(image_start: Tensor, pixels: Tensor) -> Tensor:
    """The tokens that hold `pixels` fp32 [n, 2] of the images that begin there; any where a pixel is NaN."""
    cell = (pixels.nan_to_num() // CELL).long()
    return image_start + cell[:, 0] * SIDE + cell[:, 1]


def _gripper(scene: str) -> tuple[tuple[float, float], int]:
    """The gripper's (row, column), NaN where it is not named, and the number of its state."""
    points, state = parse_scene(scene)
    place = next(((float(row), float(col)) for name, row, col in points if name == "gripper"), (math.nan, math.nan))
    return place, GRIPPER_STATES.index(state)


class LookingHelp(nn.Module):
    """All that the decoder is asked on the way: at coordinates, where a reply begins, and before it tells a side.

    A place that has to be recalled is asked for a layer later than one in sight: which one is meant has to be known
    before it can be looked for.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.coordinate = CoordinateHead(width)
        self.moment = MomentHead(width)
        self.traveller, self.target = CoordinateHead(width), CoordinateHead(width)
        self.recall = RecallHead(width)

    @staticmethod
    def kept_with(base: Path, width: int) -> LookingHelp | None:
        """As it was when the base in this folder had learned; None where only the base was kept."""
        if not (base / HEADS).exists():
            return None
        found = LookingHelp(width)
        heads = load_file(str(base / HEADS))
        found.load_state_dict({name: heads[f"help.{name}"] for name in found.state_dict()})
        return found

    def decode(
        self,
        forward: TrainingForward,
        encoder: ExampleEncoder,
        drawn: Sequence[Encoded],
        texts: TextBatch,
        vision: VisionFeatures | None,
        describe: Callable[[int], str],
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Hidden states of the asked tokens of `texts`, which are `drawn` collated; the help's loss; its metrics.

        `describe` gives the description of a frame by its number.
        """
        length = texts.ids.shape[1]
        spelled = encoder.coordinates(drawn, length).to(forward.device)
        begun = encoder.beginnings(drawn, length).to(forward.device)
        traveller, target = (looks.to(forward.device) for looks in encoder.sides(drawn, length))
        recalled = encoder.recalls(drawn, length).to(forward.device)
        probed = {
            NAME_LAYER: torch.cat([spelled.where, begun.where, traveller.where]),
            STEP_LAYER: torch.cat([begun.where, target.where, recalled.where]),
        }
        hidden, probes = forward.decode_probed(texts, vision, probed)
        at_coordinate, hand, at_traveller = probes[NAME_LAYER].split(len(spelled.where), len(begun.where))
        thing, at_target, at_recall = probes[STEP_LAYER].split(len(begun.where), len(target.where))
        total = texts.ids.new_zeros((), dtype=hidden.dtype)
        values: dict[str, Tensor] = {}
        if len(spelled.where):
            loss, values["coordinate_error_px"] = self.coordinate.loss(at_coordinate, spelled.token, spelled.pixels)
            total = total + loss
        if len(recalled.where):
            loss, values["recall_share"] = self._recalled(forward, texts, at_recall, recalled)
            total = total + loss
        if begun.images:
            scenes = [describe(image) for image in begun.images]
            loss, moment = self.moment.loss(hand, thing, scenes, begun)
            total, values = total + loss, values | moment
        if len(traveller.where):
            loss, values["traveller_error_px"] = self.traveller.loss(at_traveller, traveller.token, traveller.pixels)
            total = total + loss + self.target.loss(at_target, target.token, target.pixels)[0]
        return hidden, total, values

    def _recalled(
        self, forward: TrainingForward, texts: TextBatch, probe: Probe, recalled: Looks
    ) -> tuple[Tensor, Tensor]:
        model = forward.model
        spelled = model.lm_head(model.model.language_model.norm(probe.hidden))
        return self.recall.loss(probe, recalled, spelled, texts.targets.flatten()[recalled.where])


def reply_losses(
    forward: TrainingForward,
    help_: LookingHelp | None,
    encoder: ExampleEncoder,
    drawn: Sequence[Encoded],
    texts: TextBatch,
    vision: VisionFeatures | None,
    describe: Callable[[int], str],
) -> dict[str, Tensor]:
    """What is minimised, as "loss", and metrics, of chats with or without help; the rest as in `LookingHelp.decode`."""
    values: dict[str, Tensor] = {}
    if help_ is None:
        hidden = forward.decode(texts, vision)
        help_loss = hidden.new_zeros(())
    else:
        hidden, help_loss, values = help_.decode(forward, encoder, drawn, texts, vision, describe)
    token, correct = forward.token_losses(texts, hidden)
    text = encoder.mean_loss(token, texts, drawn)
    return {"loss": text + help_loss, "text": text, "token_accuracy": correct.float().mean(), **values}
