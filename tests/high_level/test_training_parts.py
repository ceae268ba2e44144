"""The parts that the training stages are made of: words, pointing, kept features, batches, rates, scores."""

import itertools
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_qwen as tiny
import torch
from safetensors.torch import load_file

from memrt.train.high_level_data import batches, random_text, repeat_source
from memrt.train.high_level_forward import IGNORE, PROBED_HEADS, Probe, TrainingForward
from memrt.train.high_level_frames import Block, Features, FrameIndex
from memrt.train.high_level_looking import LookingHelp, MomentHead
from memrt.train.high_level_loop import Schedule
from memrt.train.high_level_memory_text import memory_text_source
from memrt.train.high_level_metrics import score
from memrt.train.high_level_model import build_model, high_level_config, save_model
from memrt.train.high_level_pointing import ABSENT, OBJECTS, PointingHead, parse_scene, pointing_targets
from memrt.train.high_level_recall import as_remembered, shown_in
from memrt.train.high_level_text import DIGIT_WEIGHT, RECALLED_WEIGHT, Example, ExampleEncoder
from memrt.train.high_level_vocabulary import EMBEDDING, load_with_tokenizer
from memrt.train.text_tokenizer import save_tokenizer, train_tokenizer

SCENE = "red cube <120, 88>; target <140, 75>; button <60, 100>; gripper <90, 101> holding the red cube"


def test_scene_parsing() -> None:
    points, state = parse_scene(SCENE)
    assert points == [("red cube", 120, 88), ("target", 140, 75), ("button", 60, 100), ("gripper", 90, 101)]
    assert state == "holding"
    assert {name for name, _, _ in points} < set(OBJECTS)


def test_objects_of_one_name_are_all_pointed_at() -> None:
    scene = "red cube <120, 88>; red cube <121, 90>; red cube <200, 10>; left-side target <0, 255>; gripper <9, 9> open"
    target = pointing_targets([scene, SCENE])
    red, button = OBJECTS.index("red cube"), OBJECTS.index("button")
    assert target.cells[0, red].nonzero()[:, 0].tolist() == [3 * 8 + 2, 6 * 8 + 0]
    assert target.cells.sum(-1) == pytest.approx(torch.ones(2, len(OBJECTS)))
    assert target.cells[0, button, ABSENT] == 1.0
    assert sorted(zip(target.image.tolist(), target.thing.tolist(), target.cell.tolist(), strict=True))[0] == (
        0,
        red,
        26,
    )
    assert target.offset[0].tolist() == pytest.approx([(120 - 96) / 32, (88 - 64) / 32])
    loss, error = PointingHead(16).loss(torch.randn(2, 64, 16), [scene, SCENE])
    assert loss.isfinite()
    assert error > 0


def test_the_decoder_is_told_where_the_hand_and_the_thing_of_the_step_are() -> None:
    torch.manual_seed(0)
    encoder = ExampleEncoder(tiny.tokenizer())
    chat = Example((4,), "Help.", "<image>What now?", "press the button <60, 100>", watched=(60, 100), over=True)
    rows = [
        encoder.encode(each)
        for each in (chat, Example((), "", "Repeat: one", "one"), replace(chat, watched=None, over=None))
    ]
    batch, _ = encoder.collate(rows)
    length = batch.ids.shape[1]
    begun = encoder.beginnings(rows, length)
    assert begun.images == (4, 4)
    assert [(int(at) // length, int(at) % length) for at in begun.where] == [
        (number, rows[number].reply_start - 1) for number in (0, 2)
    ]
    assert begun.watched[0].tolist() == [60, 100]
    assert begun.watched[1].isnan().all()
    assert begun.over[0] == 1.0
    assert begun.over[1].isnan()

    head = MomentHead(16)
    hidden = torch.randn(2, 16)
    cells = {"hand": (90 // 32) * 8 + 101 // 32, "thing": (60 // 32) * 8 + 100 // 32}

    def looking(at: int) -> Probe:
        logits = torch.zeros(2, len(PROBED_HEADS), length)
        logits[..., int(begun.image_start[0]) + at] = 20.0
        return Probe(hidden, logits)

    def loss(
        hand: int,
        thing: int,
        watched: torch.Tensor = begun.watched,
        over: torch.Tensor = begun.over,
        beside: torch.Tensor = begun.beside,
    ) -> float:
        known = replace(begun, watched=watched, over=over, beside=beside)
        return float(head.loss(looking(hand), looking(thing), [SCENE, SCENE], known)[0].detach())

    right = loss(cells["hand"], cells["thing"])
    assert loss(cells["hand"] + 1, cells["thing"]) > right + 1
    assert loss(cells["hand"], cells["thing"] + 1) > right + 1
    button = torch.tensor([[60.0, 100.0]] * 2)  # where the thing is: to be seen beside itself
    assert loss(cells["thing"], cells["thing"], beside=button) < right + 1 < loss(*cells.values(), beside=button)
    head.over.bias.data.fill_(20.0)  # sure that every step is over
    assert loss(cells["hand"], cells["thing"], over=1 - begun.over) > right + 1
    assert loss(cells["hand"], cells["thing"]) < right
    nowhere = torch.full_like(begun.watched, float("nan"))
    assert loss(cells["hand"], 0, nowhere) == loss(cells["hand"], cells["thing"], nowhere) < right


def test_the_decoder_is_told_where_to_find_what_a_reply_adds_to_its_memory() -> None:
    encoder = ExampleEncoder(tiny.tokenizer())
    user = "<mem>I pressed the button <60, 100>.</mem><image>What now?"
    reply = "pick up the red cube <60, 100>\n<mem>I pressed the button <60, 100> and saw the target <140, 75>.</mem>"
    seen = encoder.encode(Example((4,), "Help.", user, reply))
    told = encoder.encode(Example((), "Help.", user.replace("<image>", ""), reply))
    assert seen.read == (True, False, True)  # what to do is looked at, even where the memory knows it
    assert told.read == ()
    length = encoder.collate([told, seen])[0].ids.shape[1]
    looks = encoder.coordinates([told, seen], length)
    assert looks.pixels.tolist() == [[60, 100], [140, 75]]
    assert [int(at) // length for at in looks.where] == [1, 1]


def test_the_decoder_is_told_where_the_cube_and_its_target_are_before_it_names_a_side() -> None:
    encoder = ExampleEncoder(tiny.tokenizer())
    reply = "wait\n<spatial_mem>Cube left of the target <140, 75>.</spatial_mem>"
    row = encoder.encode(Example((4,), "Help.", "<image>What now?", reply, sides=((150, 30), (140, 75))))
    length = encoder.collate([row])[0].ids.shape[1]
    cube, target = encoder.sides([row], length)
    assert (cube.pixels.tolist(), target.pixels.tolist()) == ([[150, 30]], [[140, 75]])
    assert cube.where.tolist() == target.where.tolist()
    assert encoder.decode(row.ids[int(cube.where[0]) + 1 :].tolist()).startswith(" left of")
    assert len(encoder.sides([replace(row, sides=None)], length)[0].where) == 0


def test_the_decoder_is_told_where_its_memory_holds_what_looks_like_others() -> None:
    encoder = ExampleEncoder(tiny.tokenizer())
    user = "<spatial_mem>Green cube under the container <124, 46>. Red cube <160, 90>.</spatial_mem>\n<image>What now?"
    reply = "pick up the container <126, 45> that hides the green cube\n<mem>Red cube <160, 91>.</mem>"
    example = Example((4,), "Help.", user, reply)
    row = encoder.encode(example)
    assert row.recalled is not None
    assert row.read == (False, True)  # which container it is cannot be looked for in the picture
    in_row, in_column, pixel = row.recalled
    assert pixel is None
    assert encoder.decode(row.ids[in_row - 1 : in_column + 2].tolist()) == " <124, 46"
    length = encoder.collate([row])[0].ids.shape[1]
    looks = encoder.recalls([row], length)
    told = [encoder.decode(row.ids[row.reply_start : int(at) + 1].tolist()) for at in looks.where]
    assert told == ["pick up the container <", "pick up the container <126, "]
    assert looks.token.tolist() == [in_row, in_column]
    assert looks.pixels.isnan().all()

    elsewhere = example.user.replace("<124, 46>", "<124, 70>")
    assert encoder.encode(replace(example, user=elsewhere)).recalled is None
    shown = encoder.encode(replace(example, user=elsewhere, shown=(0, (127, 44))))
    cell = shown.image_starts[0] + 127 // 32 * 8 + 44 // 32
    assert shown.recalled == (cell, cell, (126, 45))
    assert encoder.recalls([shown], length).pixels.tolist() == [[126, 45]] * 2
    assert as_remembered(user, reply) == reply.replace("<126, 45>", "<124, 46>")
    assert as_remembered(elsewhere, reply) == reply
    assert encoder.encode(replace(example, reply="pick up the red cube <126, 45>")).read == (True,)


@pytest.mark.parametrize(
    ("scenes", "thing", "expected"),
    [
        (["green cube <126, 44>; button <9, 9>", "container <125, 45>"], "container", (0, (126, 44))),
        (["green cube <126, 70>", "container <125, 45>"], "container", None),
        (
            ["highlight <130, 45>", "highlight <131, 45>; red cube <126, 45>", "red cube <126, 45>"],
            "highlighted cube",
            (1, (131, 45)),
        ),
        ([], "container", None),
    ],
)
def test_the_last_image_counts_that_shows_what_is_pointed_at(
    scenes: list[str], thing: str, expected: tuple[int, tuple[int, int]] | None
) -> None:
    assert shown_in(scenes, thing, (126, 45)) == expected


def test_what_the_decoder_is_asked_on_the_way_teaches_it() -> None:
    torch.manual_seed(0)
    tokenizer = tiny.tokenizer()
    encoder, forward = ExampleEncoder(tokenizer), TrainingForward(build_model(high_level_config(tokenizer), seed=1))
    reply = "press the button <60, 100>\n<spatial_mem>Cube left of the target <140, 75>.</spatial_mem>"
    chat = Example((0,), "Help.", "<image>What now?", reply, (60, 100), None, True, ((150, 30), (140, 75)))
    reply = "pick up the container <60, 100> that hides the cube"
    hidden_cube = replace(chat, reply=reply, sides=None, shown=(0, (60, 99)))
    words = Example((), "", "Repeat: one", "one")
    drawn = [encoder.encode(each) for each in (chat, hidden_cube, words)]
    texts, _ = encoder.collate(drawn)
    vision = forward.vision(torch.from_numpy(np.stack([tiny.image(1)])))
    helped = LookingHelp(forward.model.config.text_config.hidden_size)
    hidden, loss, values = helped.decode(forward, encoder, drawn, texts, vision, lambda _: SCENE)
    torch.testing.assert_close(hidden, forward.decode(texts, vision))
    assert set(values) == {
        *("coordinate_error_px", "hand_error_px", "over_right", "recall_share", "traveller_error_px")
    }
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in helped.parameters())


def test_a_model_that_learns_new_words_keeps_the_old_ones(tmp_path: Path) -> None:
    former = train_tokenizer(["pick up the red cube", "the container hides"])
    grown = train_tokenizer(["pick up the red cube", "the container hides", "the highlighted containers"])
    save_model(build_model(high_level_config(former), seed=1), tmp_path)
    save_tokenizer(former, tmp_path)
    before = load_file(str(tmp_path / "model.safetensors"))[EMBEDDING]
    after = load_with_tokenizer(tmp_path, grown).state_dict()[EMBEDDING]
    for token in ("<|im_end|>", "<|image_pad|>", "Ġcube"):
        assert torch.equal(after[grown.token_to_id(token)], before[former.token_to_id(token)])
    pieces = former.encode(" highlighted").ids
    assert len(pieces) > 1
    assert torch.allclose(after[grown.token_to_id("Ġhighlighted")], before[pieces].mean(0))


def test_features_are_kept_for_the_tower_that_made_them(tmp_path: Path) -> None:
    np.save(tmp_path / "front.npy", np.stack([tiny.image(seed) for seed in range(3)]))
    frames = FrameIndex((Block("a", tmp_path, "front", (0,)), Block("b", tmp_path, "front", (2,))))
    forward = TrainingForward(tiny.model())
    with torch.no_grad():
        expected = forward.vision(frames.images([1, 0]))
    for _ in range(2):  # computed, then read
        kept = Features(forward, frames, tmp_path / "features").select([1, 0])
        torch.testing.assert_close(kept.tokens, expected.tokens, atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(kept.deepstack, expected.deepstack, atol=2e-3, rtol=2e-3)
    assert len(list((tmp_path / "features").glob("*/*.npy"))) == 2


def test_text_exercises_use_words_the_tokenizer_knows_whole() -> None:
    rng = random.Random(0)
    draw = memory_text_source()
    examples = [draw(rng) for _ in range(50)]
    text = " ".join([random_text(rng) for _ in range(50)] + [e.user + " " + e.reply for e in examples])
    words = set(re.findall(r"[A-Za-z]+", text))
    assert len(words) > 100
    split = [w for w in words if min(len(tiny.tokenizer().encode(form).ids) for form in (w, f" {w}")) > 1]
    assert split == []


def test_batches_depend_on_seed_and_number_only() -> None:
    encoder = ExampleEncoder(tiny.tokenizer())
    straight = batches(repeat_source(), encoder, 3, seed=1, first=0, pool=2)
    expected = [next(straight) for _ in range(6)]
    later = batches(repeat_source(), encoder, 3, seed=1, first=3, pool=2)
    for rows in expected[3:]:
        assert [row.ids.tolist() for row in rows] == [row.ids.tolist() for row in next(later)]


def test_schedule_rises_holds_and_falls() -> None:
    rates = [Schedule(100, 1.0, warmup=10, decay=0.5).rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert set(rates[10:50]) == {1.0}
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[51:99]))
    assert rates[99] == pytest.approx(0.02)


def test_score_sets_coordinates_aside_and_measures_them() -> None:
    truth = "place the red cube onto the target <140, 75>\n<mem>I am holding it.</mem>"
    near = "place the red cube onto the target <143, 79>\n<mem>I am holding it.</mem>"
    other = "pick up the red cube <1, 1> for the first time\n<mem>No.</mem>"
    result = score([near, other], [truth, truth])
    assert result["subgoal_exact"] == 0.5
    assert result["action_memory_exact"] == 0.5
    assert score([near], [truth])["pixel_error_median"] == 5.0


def test_the_digits_of_a_coordinate_weigh_less_than_words() -> None:
    encoder = ExampleEncoder(tiny.tokenizer())
    rows = [encoder.encode(Example((), "s", "u", "press <12, 345>"))]
    batch, _ = encoder.collate(rows)
    asked = batch.targets[batch.targets != IGNORE].tolist()
    digit = torch.tensor([encoder.decode([token]).strip().isdigit() for token in asked])
    assert digit.sum() == 5
    on_digits, on_words = (float(encoder.mean_loss(chosen.float(), batch, rows)) for chosen in (digit, ~digit))
    assert on_digits + on_words == pytest.approx(1)
    assert on_digits / on_words == pytest.approx(DIGIT_WEIGHT * float(digit.sum() / (~digit).sum()))


def test_digits_that_are_to_be_recalled_weigh_more() -> None:
    encoder = ExampleEncoder(tiny.tokenizer())
    user, memory = "<spatial_mem>Red cube <12, 45>.</spatial_mem>", "\n<mem>I pressed the button <67, 89>.</mem>"
    rows = [
        encoder.encode(Example((), "", user, f"pick up the {what} <12, 45>{memory}")) for what in ("container", "cube")
    ]
    for row, weight in zip(rows, (RECALLED_WEIGHT, DIGIT_WEIGHT), strict=True):
        batch, _ = encoder.collate([row])
        asked = [encoder.decode([token]) for token in batch.targets[batch.targets != IGNORE].tolist()]
        there, later = (torch.tensor([token in digits for token in asked]) for digits in (["4", "5"], ["6", "7"]))
        copied, seen = (float(encoder.mean_loss(chosen.float(), batch, [row])) for chosen in (there, later))
        assert copied / seen == pytest.approx(weight / DIGIT_WEIGHT)
