"""Hugging Face Trainer with fixed micro-batches and a loss summed over supervised tokens."""

import json
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch.utils.data import DataLoader
from transformers import Trainer

from tuneline.formats.token_file import Tokens
from tuneline.models.packing import Row
from tuneline.runtime.errors import sentence
from tuneline.runtime.storage.failures import explain
from tuneline.runtime.terminal.lines import say
from tuneline.train.batching import MicroBatch, Step
from tuneline.train.collate import Collate
from tuneline.train.trainer.dataset import ShareDataset, ShareSampler, TokenDataset
from tuneline.train.trainer.loss_scaling import LossScaling
from tuneline.train.validation.answering import Answering


class SupervisedTrainer(Trainer):
    """Trainer with our batches, and with the loss divided by the supervised tokens of the whole step."""

    loss_is_scaled_for_ga = True
    control: Any

    def __init__(
        self,
        *,
        tokens: Tokens,
        steps: list[Step],
        validation: list[MicroBatch],
        collate: Collate,
        loraplus_lr_ratio: float | None = None,
        scaling: LossScaling | None = None,
        answering: Answering | None = None,
        **kwargs: Any,
    ) -> None:
        """scaling: of the loss, for float16. answering: what gives metrics of answers at each validation."""
        self.rows, self.steps, self.collate = TokenDataset(tokens), steps, collate
        self.validation, self.loraplus_lr_ratio, self.scaling = validation, loraplus_lr_ratio, scaling
        self.answering = answering
        super().__init__(train_dataset=self.rows, eval_dataset=self.rows if validation else None, **kwargs)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """AdamW; for LoRA+ with a higher learning rate of B."""
        if self.loraplus_lr_ratio is None:
            return super().create_optimizer(*args, **kwargs)
        from peft.optimizers import create_loraplus_optimizer

        self.optimizer = create_loraplus_optimizer(
            self.model,
            torch.optim.AdamW,
            lr=self.args.learning_rate,
            loraplus_lr_ratio=self.loraplus_lr_ratio,
            loraplus_weight_decay=self.args.weight_decay,
            betas=(self.args.adam_beta1, self.args.adam_beta2),
            eps=self.args.adam_epsilon,
            **({"fused": True} if self.args.optim == "adamw_torch_fused" else {}),
        )
        # DeepSpeed shards each group, and an empty one can't be.
        self.optimizer.param_groups = [group for group in self.optimizer.param_groups if group["params"]]
        return self.optimizer

    def create_scheduler(self, *args: Any, **kwargs: Any) -> Any:
        """The scheduler; and DeepSpeed's checkpoints get what trains alone, as Trainer asks for with PEFT's models only."""
        if self.accelerator.deepspeed_engine_wrapped is not None:
            engine = self.accelerator.deepspeed_engine_wrapped.engine
            engine.save_checkpoint = partial(engine.save_checkpoint, exclude_frozen_parameters=True)
            load = engine.load_checkpoint
            engine.load_checkpoint = lambda *given, **named: load(*given, **named | {"load_module_strict": False})
            if self.scaling is not None:
                self.scaling.attach(engine)
        return super().create_scheduler(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """{"eval_loss": nats per supervised token of the validation rows}, each process taking its share of the batches.

        And {"eval_<column>": value} of each metric of answers.
        """
        world, rank = self.args.world_size, self.args.process_index
        total = torch.zeros((), dtype=torch.float64)
        self.model_wrapped.eval()
        for place in range(rank, -(-len(self.validation) // world) * world, world):
            # Under ZeRO-3 all processes must go forward together, so the last ones may do so for nothing.
            batch = self.validation[min(place, len(self.validation) - 1)]
            inputs = self._prepare_inputs(self.collate([self.rows[row] for row in batch]))
            inputs.pop("step_tokens")
            with torch.no_grad():
                loss = self.model_wrapped(**inputs)["loss"]
            if place < len(self.validation):
                total += float(loss) / batch[0][1]
        self.model_wrapped.train()
        if world > 1:
            total = total.to(self.args.device)
            torch.distributed.all_reduce(total)
        metrics = {"eval_loss": float(total)}
        if self.answering is not None:
            measured = self.answering(self.accelerator.unwrap_model(self.model))
            metrics |= {f"eval_{name}": value for name, value in measured.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Nothing: DeepSpeed's checkpoint has what trains. Trainer would clone the whole base to save the adapter again."""
        assert output_dir is not None, "only checkpoints are saved by Trainer"
        Path(output_dir).mkdir(parents=True, exist_ok=True)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """A checkpoint that can't be written is taken away again, and training goes on from the last good one."""
        try:
            super()._save_checkpoint(*args, **kwargs)
        except (torch.AcceleratorError, torch.OutOfMemoryError, torch.distributed.DistError):
            raise
        except (OSError, RuntimeError) as error:
            reason = explain(error) or sentence(error)
            if self.args.world_size > 1:
                # The other processes wait for this one, so it can't just go on.
                raise ValueError(
                    f"checkpoint at step {self.state.global_step} could not be written: {reason}"
                ) from None
            shutil.rmtree(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}", ignore_errors=True)
            say(
                f"train: checkpoint at step {self.state.global_step} could not be written: {reason}. "
                "Training goes on; the last good checkpoint stays",
                file=sys.stderr,
            )

    def _save_rng_state(self, output_dir: str) -> None:
        """Also the loss summed since it was last logged, of each process: Trainer forgets it, and the curve would differ."""
        super()._save_rng_state(output_dir)
        since = {"loss": self._tr_loss.item(), "logged_step": self._globalstep_last_logged}
        if self.scaling is not None:
            since["scaling"] = self.scaling.state()
        (Path(output_dir) / f"loss_{self.args.process_index}.json").write_text(json.dumps(since), encoding="utf-8")

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint is not None:
            path = Path(checkpoint) / f"loss_{self.args.process_index}.json"
            since = json.loads(path.read_text(encoding="utf-8"))
            self._tr_loss.fill_(since["loss"])
            self._globalstep_last_logged = since["logged_step"]
            if self.scaling is not None:
                self.scaling.restore(since["scaling"])

    def _remedy(self) -> str:
        return f"lower train.learning_rate ({self.args.learning_rate:g}) or set train.dtype: float32"

    def _clip_grad_norm(self, model: Any) -> Any:
        """Raises ValueError when gradients are not finite, before a checkpoint can hold what they made.

        DeepSpeed skips such a step without a word from ZeRO 1 on; with ZeRO 0, which gives no norm, it takes it.
        """
        norm = super()._clip_grad_norm(model)
        trained = [parameter.detach() for parameter in self.model.parameters() if parameter.requires_grad]
        found = torch.nn.utils.get_total_norm(trained, float("inf")) if norm is None else torch.as_tensor(norm)
        if not torch.isfinite(found):
            raise ValueError(f"the gradients of step {self.state.global_step + 1} are not finite: {self._remedy()}")
        return norm

    def get_train_dataloader(self) -> DataLoader[Any]:
        sampler = ShareSampler(self.steps, self.args.world_size)
        loader = DataLoader(ShareDataset(self.rows), batch_sampler=sampler, collate_fn=self._collate_share)
        prepared_loader: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared_loader

    def _collate_share(self, shares: list[list[list[Row]]]) -> list[dict[str, Any]]:
        (share,) = shares
        return [self.collate(rows) for rows in share]

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """The micro-batches of this process's share of a step; with the last one DeepSpeed takes the step.

        Their number may differ from step to step, which a fixed number of accumulation steps would not allow. Under loss
        scaling a step whose scaled gradients overflow is done again.
        """

        def compute() -> list[torch.Tensor]:
            losses = []
            for place, batch in enumerate(inputs, 1):
                self.accelerator.gradient_state._set_sync_gradients(place == len(inputs))
                losses.append(self.micro_step(model, batch, num_items_in_batch))
            return losses

        *before, last = compute() if self.scaling is None else self._scaled(self.scaling, compute)
        for loss in before:
            self._tr_loss += loss
        return last

    def _scaled(self, scaling: LossScaling, compute: Callable[[], list[torch.Tensor]]) -> list[torch.Tensor]:
        try:
            return scaling.step(self.accelerator, compute)
        except ValueError as error:
            raise ValueError(f"step {self.state.global_step + 1}: {error}; {self._remedy()}") from None

    def micro_step(self, model: Any, inputs: dict[str, Any], *args: Any) -> torch.Tensor:
        """Forward and backward pass of one micro-batch; the loss."""
        return super().training_step(model, inputs, *args)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        step_tokens = inputs.pop("step_tokens")
        total = model(**inputs)["loss"]
        # DeepSpeed averages gradients over processes, and the step's tokens are spread over all of them.
        return total / step_tokens * self.args.world_size
