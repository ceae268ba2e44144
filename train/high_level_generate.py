"""Greedy answers of a model in training, in batches, through transformers' own decoder and cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import DynamicCache, Qwen3VLForConditionalGeneration

from memrt.train.high_level_forward import VisionFeatures
from memrt.train.high_level_model import VISUAL_TOKENS
from memrt.train.high_level_text import Encoded, ExampleEncoder


@torch.no_grad()
def greedy(
    model: Qwen3VLForConditionalGeneration,
    encoder: ExampleEncoder,
    rows: Sequence[Encoded],
    vision: VisionFeatures,
    max_new_tokens: int = 128,
) -> list[str]:
    """Replies to the prompts of `rows`; `vision` holds one entry per image shown, row by row."""
    text = model.model.language_model
    length = max(row.reply_start for row in rows)
    count = len(rows)
    ids = torch.full((count, length), encoder.pad)
    mask = torch.zeros(count, length, dtype=torch.long)
    positions = torch.zeros(4, count, length, dtype=torch.long)
    image = torch.zeros(count, length, dtype=torch.bool)
    for number, row in enumerate(rows):
        start = length - row.reply_start  # prompts end together
        ids[number, start:] = torch.from_numpy(row.ids[: row.reply_start])
        mask[number, start:] = 1
        positions[0, number, start:] = torch.arange(row.reply_start)
        positions[1:, number, start:] = torch.from_numpy(row.positions[:, : row.reply_start])
        for first in row.image_starts:
            image[number, start + first : start + first + VISUAL_TOKENS] = True
    embeddings = text.embed_tokens(ids)
    embeddings[image] = vision.tokens.flatten(0, 1)
    cache = DynamicCache(config=model.config.text_config)
    deepstack = [feature.flatten(0, 1) for feature in vision.deepstack]
    feeds = {"visual_pos_masks": image, "deepstack_visual_embeds": deepstack}
    replies: list[list[int]] = [[] for _ in rows]
    running = [True] * count
    for _ in range(max_new_tokens):
        output = text(
            inputs_embeds=embeddings,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            **feeds,
        )
        tokens = model.lm_head(output.last_hidden_state[:, -1]).argmax(-1)
        for number, token in enumerate(tokens.tolist()):
            running[number] = running[number] and token != encoder.stop
            if running[number]:
                replies[number].append(token)
        if not any(running):
            break
        embeddings, feeds = text.embed_tokens(tokens[:, None]), {}
        mask = torch.cat([mask, torch.ones(count, 1, dtype=torch.long)], dim=1)
        following = positions[1:, :, -1:] + 1  # after text, the three rotary positions agree
        positions = torch.cat([mask.sum(1, keepdim=True)[None] - 1, following])
    return [encoder.decode(reply) for reply in replies]
