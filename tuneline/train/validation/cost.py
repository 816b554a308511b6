"""Cost of the answers of a run's validations, before it: how many, and of how many tokens at most."""

from typing import NamedTuple

from tuneline.train.config.train import Train


class Cost(NamedTuple):
    validations: int
    items: int
    """Answered at each."""
    longest: int
    """Tokens of an answer at most."""

    @property
    def tokens(self) -> int:
        """Of the whole run at most; most answers end before."""
        return self.validations * self.items * self.longest

    def __str__(self) -> str:
        return (
            f"{self.validations} validations answer {self.items} items each, of {self.longest} tokens at most: up to "
            f"{self.tokens:,} tokens"
        )


def cost(params: Train, steps: int, items: int) -> Cost:
    """Of a run of `steps` optimizer steps; the last one is validated, too. items: those that there are."""
    return Cost(-(-steps // params.save_steps), min(items, params.eval_items), params.eval_max_new_tokens)
