"""Perplexity of a base on one Chinese and one English paragraph, written for this.

A wrongly converted checkpoint loads without a word and then predicts noise: its perplexity is in the
thousands. The chunked loss of training is compared with the model's own loss on the same text, so a
head that does more than multiply, scale and cap softly is found here and not as a wrong gradient.
"""

import math
from typing import Any

from tuneline.models.config import Base

PARAGRAPHS = {
    "zh": (
        "春天来了，天气渐渐变暖，公园里的花都开了。早上，老人们在湖边散步、打太极拳，孩子们在草地上放风筝。"
        "中午太阳很好，很多人带着食物来这里野餐。到了傍晚，年轻人下班以后也会来跑步。大家都觉得，"
        "这个公园让城市的生活变得更加舒服。"
    ),
    "en": (
        "Spring has come and the weather is getting warmer. In the morning, old people walk around the lake, and "
        "children fly kites on the grass. At noon the sun is bright, and many families bring food for a picnic. In the "
        "evening, young people come here to run after work. Everyone agrees that the park makes life in the city better."
    ),
}
TOLERANCE = 0.05
"""Nats per token by which the chunked loss may differ from the model's own, in bfloat16."""


def perplexities(model: Any, tokenizer: Any) -> dict[str, float]:
    """exp(mean NLL per token) of each paragraph, after the tokenizer's own beginning-of-text.

    Raises ValueError when the model's own loss is another: its head is not a plain matrix product.
    """
    import torch

    from tuneline.formats.example import IGNORE_INDEX, Encoded
    from tuneline.models.likelihood import answer_nll

    # Without what a config may ask to be added for its routers.
    alone = {"output_router_logits": False} if hasattr(model.config, "output_router_logits") else {}
    results = {}
    for language, paragraph in PARAGRAPHS.items():
        ids = tokenizer(paragraph).input_ids
        row = Encoded(ids, [IGNORE_INDEX, *ids[1:]])
        loss = float(answer_nll(model, row).mean())
        tensor = torch.tensor([ids], device=model.device)
        with torch.inference_mode():
            own = float(model(input_ids=tensor, labels=tensor, **alone).loss)
        if not math.isfinite(loss) or abs(loss - own) > TOLERANCE:
            raise ValueError(
                f"{type(model).__name__}: loss {loss:.4f} over its hidden states and head, {own:.4f} by its own forward; "
                "expected the same (its head is not a plain matrix product, and training would be wrong)"
            )
        results[language] = round(math.exp(loss), 4)
    return results


def check(found: dict[str, float], base: Base) -> None:
    """Raises ValueError when a perplexity is over its limit in section `base`."""
    for language, limit in (("zh", base.max_perplexity_zh), ("en", base.max_perplexity_en)):
        if limit is not None and found[language] >= limit:
            raise ValueError(
                f"perplexity of the base on the fixed {language} paragraph is {found[language]:.1f}, expected below "
                f"base.max_perplexity_{language} = {limit:g}: the weights are broken or the model does not know the "
                "language (null switches the check off)"
            )
