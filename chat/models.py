"""Model registry: one base in memory, with LoRA adapters switched before each forward pass.

Concurrent replies are generated token by token, those of one model together, so that each forward pass may use another
adapter. What is no LoRA adapter of the base (merged, prompt tuning, whole layers) is a model of its own, loaded on first use.
"""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from chat.batching.trial import can_batch
from chat.limits import UnknownModelError
from tuneline.models.adapters.importing import read_fitting
from tuneline.models.adapters.peft_config import read_config
from tuneline.models.adapters.revisions import fetch_adapter
from tuneline.models.calls.answers import AnswerReader
from tuneline.models.chat_format import load_prompter
from tuneline.models.constrained_decoding import Constrainer
from tuneline.models.cpu_tuning import copy_head_states, switched_product
from tuneline.models.loading import (
    ADAPTER,
    BASE,
    MERGED,
    Dtype,
    load_adapter,
    load_merged,
    load_model,
    load_tokenizer,
    pick_device,
    pick_dtype,
)
from tuneline.runtime.params.user_path import user_path

REVISION_PREFIX = "rev:"


class FairLock:
    """FIFO (ticket) lock; threading.Lock is not fair: whoever holds it may take it again."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next = self._serving = 0

    def acquire(self) -> None:
        with self._changed:
            ticket, self._next = self._next, self._next + 1
            self._changed.wait_for(lambda: ticket == self._serving)

    def release(self) -> None:
        with self._changed:
            self._serving += 1
            self._changed.notify_all()


class ActiveModel(NamedTuple):
    """Network with the adapter that is active in its forward passes."""

    network: Any
    """What generates: a transformers model, or a PEFT model with virtual tokens."""
    adapter: str | None
    """Of the shared base; None is the base itself, or a model of its own."""
    lock: Any
    """Held during a whole reply, where a network can generate only one at a time."""
    batched: bool
    """Whether its replies can share a batch."""


class Models:
    """Model registry by name. The names are fixed when it is made: nothing that a client sends becomes a path."""

    def __init__(self, revisions: Sequence[str] = (), dtype: Dtype = "auto") -> None:
        files = {"base": BASE / "config.json", "adapter": ADAPTER / "lineage.json", "merged": MERGED / "config.json"}
        names = [name for name, file in files.items() if file.is_file()]
        if "base" not in names:  # an adapter is nothing without it
            names = [name for name in names if name == "merged"]
        if not names:
            raise ValueError(f"there is no model in {BASE} or {MERGED}: run `dvc repro`, or `dvc pull`")
        self.adapters = {"adapter": ADAPTER} if "adapter" in names else {}
        self.names: tuple[str, ...] = tuple(names)
        for revision in revisions:
            self.resolve(f"{REVISION_PREFIX}{revision}")
        self.device = pick_device()
        self.tokenizer = load_tokenizer(BASE if "base" in names else MERGED)
        self.pad_id = self.tokenizer.pad_token_id or 0
        self.prompter = load_prompter(self.tokenizer)
        self.reader = AnswerReader(self.tokenizer, self.prompter)
        config = json.loads(((BASE if "base" in names else MERGED) / "config.json").read_text(encoding="utf-8"))
        self.context = int(config["max_position_embeddings"])
        """Tokens of prompt and reply together."""
        self._dtype = pick_dtype(dtype, self.device, "--dtype", config)
        self._forward_lock, self._load_lock, self._constrainer_lock = FairLock(), threading.Lock(), threading.Lock()
        self._thread = threading.local()
        self._loaded: dict[str, ActiveModel] = {}
        self._base: Any = None
        self._base_batched = False
        self._peft: Any = None
        self._active: str | None = None
        self._constrainer: Constrainer | None = None

    @property
    def constrainer(self) -> Constrainer:
        """Made on first use: it reads the vocabulary for seconds."""
        with self._constrainer_lock:
            if self._constrainer is None:
                self._constrainer = Constrainer(self.tokenizer, self.prompter)
            return self._constrainer

    def encode(self, text: str) -> list[int]:
        """Token ids of a whole prompt, control tokens in it and all; what the tokenizer puts first comes once."""
        ids: list[int] = self.tokenizer(text)["input_ids"]
        return ids[1:] if len(ids) > 1 and ids[0] == ids[1] == self.tokenizer.bos_token_id else ids

    def shown_prompt(self, prompt: str | list[int]) -> str:
        return prompt if isinstance(prompt, str) else str(self.tokenizer.decode(prompt))

    def token_text(self, token: int) -> str:
        """Text of one token; its piece of the vocabulary where it is no whole character, so that no two are alike."""
        text = str(self.tokenizer.decode([token]))
        return str(self.tokenizer.convert_ids_to_tokens(token)) if "\N{REPLACEMENT CHARACTER}" in text else text

    def resolve(self, name: str) -> str:
        """Name to a registered model; `rev:<revision>` and the folder of an adapter are registered first. For local users only.

        Raises UnknownModelError, or ValueError for a revision whose adapter can't be had, or a folder that holds none.
        """
        if name.startswith(REVISION_PREFIX) and name not in self.names:
            self.adapters[name] = fetch_adapter(name.removeprefix(REVISION_PREFIX))
            self.names = (*self.names, name)
        elif is_path(name) and name not in self.names:
            self.adapters[name] = adapter_folder(name, BASE if "base" in self.names else None)
            self.names = (*self.names, name)
        return self.require(name)

    def require(self, name: str) -> str:
        """The name itself, if registered. Raises UnknownModelError with the list of names."""
        if name not in self.names:
            raise UnknownModelError(f"there is no model {name[:80]!r}, expected one of {', '.join(self.names)}")
        return name

    def get(self, name: str) -> ActiveModel:
        """Registered model by name, loaded on first use. One that is loaded waits for none that is being loaded."""
        self.require(name)
        if (loaded := self._loaded.get(name)) is not None:
            return loaded
        with self._load_lock:
            if name not in self._loaded:
                self._loaded[name] = self._load(name)
            return self._loaded[name]

    @contextmanager
    def use(self, model: ActiveModel) -> Iterator[Any]:
        """Network to call `generate` on in this thread, with the model's adapter active in each forward pass."""
        self._thread.adapter = model.adapter
        with model.lock:
            yield model.network

    def _load(self, name: str) -> ActiveModel:
        if name == "merged":
            return self._standalone(load_merged(MERGED, self._dtype, self.device))
        if name == "base":
            return ActiveModel(self._shared_base(), None, nullcontext(), self._base_batched)
        folder = self.adapters[name]
        if not can_share(folder):
            return self._standalone(load_adapter(load_model(BASE, self._dtype, self.device), folder))
        base = self._shared_base()
        label = f"a{len(self._loaded)}"
        self._forward_lock.acquire()
        try:
            if self._peft is None:
                self._peft = load_adapter(base, folder, label)
            else:
                load_adapter(self._peft, folder, label)
            self._peft.set_adapter(label, inference_mode=True)
            self._peft.base_model.enable_adapter_layers()
            self._active = label
        finally:
            self._forward_lock.release()
        return ActiveModel(base, label, nullcontext(), self._base_batched)

    def _shared_base(self) -> Any:
        if self._base is None:
            self._base = self._serialize_forward(load_model(BASE, self._dtype, self.device), shared=True)
            self._base_batched = self._try_batching(self._base)
        return self._base

    def _standalone(self, model: Any) -> ActiveModel:
        is_peft = hasattr(model, "active_peft_config")
        has_virtual_tokens = is_peft and model.active_peft_config.is_prompt_learning
        network = model if has_virtual_tokens or not is_peft else model.get_base_model()
        self._serialize_forward(model.get_base_model() if is_peft else model, shared=False)
        # PEFT puts virtual tokens in by replacing methods of the base while it generates.
        lock = threading.Lock() if has_virtual_tokens else nullcontext()
        return ActiveModel(network, None, lock, not has_virtual_tokens and self._try_batching(network))

    def _try_batching(self, network: Any) -> bool:
        """Whether its rows can share a batch; by the base alone, whose adapters change no cache."""
        self._thread.adapter = None
        return can_batch(network)

    def _serialize_forward(self, network: Any, *, shared: bool) -> Any:
        """Network with hooks that let one forward pass run at a time, over all models: they would share the same cores."""

        if head := network.get_output_embeddings():
            copy_head_states(head)
        # Within a forward pass alone: an adapter that is loaded between two may copy the head, to go on from its weight.
        pack, unpack = switched_product(head)

        def before(*_: Any) -> None:
            self._forward_lock.acquire()
            if shared:
                self._activate(self._thread.adapter)
            pack()

        network.register_forward_pre_hook(before)
        network.register_forward_hook(lambda *_: unpack(), always_call=True)
        network.register_forward_hook(lambda *_: self._forward_lock.release(), always_call=True)
        return network

    def _activate(self, adapter: str | None) -> None:
        if adapter == self._active or self._peft is None:
            return
        layers = self._peft.base_model
        if adapter is None:
            layers.disable_adapter_layers()
        else:
            layers.enable_adapter_layers()
            self._peft.set_adapter(adapter, inference_mode=True)
        self._active = adapter


def can_share(folder: Path) -> bool:
    """Whether an adapter is LoRA that leaves the base's own tensors alone, so that several can share one base."""
    config = read_config(folder) if (folder / "adapter_config.json").is_file() else None
    return config is not None and config.peft_type == "LORA" and config.bias == "none"


def is_path(name: str) -> bool:
    """Whether a model's name is a folder's, such as ./theirs."""
    return name.startswith((".", "/", "~")) or ("/" in name and Path(name).is_dir())


def adapter_folder(name: str, base: Path | None) -> Path:
    """The folder by that name, looked at first. Raises ValueError where no adapter is there that fits, or no base for one."""
    if base is None:
        raise ValueError(f"{name} is the folder of an adapter, and there is no base in {BASE}: run `dvc repro base`")
    read_fitting(folder := user_path(name), base)
    return folder
