"""The batched training forward computes what transformers' forward computes."""

import numpy as np
import tiny_qwen as tiny
import torch

from memrt.train.high_level_forward import IGNORE, TrainingForward, patches
from memrt.train.high_level_generate import greedy
from memrt.train.high_level_text import Example, ExampleEncoder


def test_patches_are_in_the_image_processors_order() -> None:
    picture = tiny.image(0)
    expected, grid = tiny.qwen_pixels(picture)
    assert grid.tolist() == [[1, 16, 16]]
    frames = expected.view(256, 3, 2, 256)
    torch.testing.assert_close(frames[:, :, 0], frames[:, :, 1])
    torch.testing.assert_close(patches(torch.from_numpy(picture[None]))[0], frames[:, :, 0].reshape(256, 768))


def test_vision_matches_transformers() -> None:
    pictures = [tiny.image(seed) for seed in (1, 2)]
    with torch.no_grad():
        features = TrainingForward(tiny.model()).vision(torch.from_numpy(np.stack(pictures)))
        for number, picture in enumerate(pictures):
            expected = tiny.model().model.visual(*tiny.qwen_pixels(picture))
            tiny.assert_same(features.tokens[number], expected.pooler_output)
            for ours, theirs in zip(features.deepstack, expected.deepstack_features, strict=True):
                tiny.assert_same(ours[number], theirs)


def test_losses_match_transformers_row_by_row() -> None:
    encoder = ExampleEncoder(tiny.tokenizer())
    examples = [
        Example((7,), "Help the robot.", "Goal\n<image>What now?", "pick up the red cube <120, 88>"),
        Example((), "", "Repeat the text: one", "one"),
        Example((3,), "Help.", "<image>Describe the scene.", "target <1, 2>; button <3, 4>"),
        Example((7,), "Help.", "Look <image> again", "press the button"),
        Example((7, 3), "Help.", "Then: <image> Now: <image>What next?", "place the red cube onto the target <1, 2>"),
    ]
    rows = [encoder.encode(example) for example in examples]
    batch, images = encoder.collate(rows)
    assert images.tolist() == [3, 7]
    pictures = {index: tiny.image(int(index)) for index in images}
    forward = TrainingForward(tiny.model())
    model = tiny.model()
    with torch.no_grad():
        vision = forward.vision(torch.from_numpy(np.stack([pictures[i] for i in images])))
        hidden = forward.decode(batch, vision)
        losses, correct = forward.token_losses(batch, hidden)
        expected = []
        for row in rows:
            ids = torch.from_numpy(row.ids)[None]
            labels = torch.full_like(ids, IGNORE)
            labels[:, row.reply_start :] = ids[:, row.reply_start :]
            feeds = {}
            if row.images:
                pixels, grid = zip(*(tiny.qwen_pixels(pictures[image]) for image in row.images), strict=True)
                feeds = {"pixel_values": torch.cat(pixels), "image_grid_thw": torch.cat(grid)}
                feeds["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
            logits = model(input_ids=ids, use_cache=False, **feeds).logits[0, row.reply_start - 1 : -1]
            expected.append(torch.nn.functional.cross_entropy(logits, labels[0, row.reply_start :], reduction="none"))
    tiny.assert_same(losses, torch.cat(expected))
    assert correct.shape == losses.shape


def test_encoding_marks_exactly_the_reply() -> None:
    encoder = ExampleEncoder(tiny.tokenizer())
    row = encoder.encode(Example((0,), "Help.", "<image>What?", "place the red cube"))
    assert encoder.decode(row.ids[row.reply_start :].tolist()) == "place the red cube"
    batch, _ = encoder.collate([row])
    asked = (batch.targets[0] != IGNORE).nonzero()[:, 0].tolist()
    assert asked == list(range(row.reply_start - 1, len(row.ids) - 1))
    assert batch.targets[0, asked].tolist() == row.ids[row.reply_start :].tolist()


def test_batched_greedy_answers_are_transformers_answers() -> None:
    encoder = ExampleEncoder(tiny.tokenizer())
    asked = [("Help.", "<image>Describe the scene.", 1), ("Help the robot.", "Goal: red cube\n<image>What now?", 2)]
    rows = [encoder.encode(Example((seed,), system, user, "unused")) for system, user, seed in asked]
    with torch.no_grad():
        pictures = torch.from_numpy(np.stack([tiny.image(seed) for _, _, seed in asked]))
        vision = TrainingForward(tiny.model()).vision(pictures)
    replies = greedy(tiny.model(), encoder, rows, vision, max_new_tokens=16)
    assert replies == [tiny.transformers_answer(system, user, [seed], 16) for system, user, seed in asked]
