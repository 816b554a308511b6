"""The models that can be talked to, by name: one base in memory, the adapters switched on it before each forward pass.

Answers of several askers are made token by token in turns, so that each turn may use another adapter. What is no LoRA
adapter of the base (the merged model, virtual tokens, whole layers) is a model of its own, loaded when it is first asked.
"""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from chat.limits import UnknownModelError
from chat.revisions import fetch_adapter
from tuneline.models.chat_format import Prompter
from tuneline.models.loading import (
    ADAPTER,
    BASE,
    MERGED,
    load_adapter,
    load_merged,
    load_model,
    load_tokenizer,
    pick_device,
    pick_dtype,
)

REVISION = "rev:"


class Turns:
    """A lock that is given in the order of asking: a plain one lets whoever holds it take it again."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next = self._served = 0

    def acquire(self) -> None:
        with self._changed:
            ticket, self._next = self._next, self._next + 1
            self._changed.wait_for(lambda: ticket == self._served)

    def release(self) -> None:
        with self._changed:
            self._served += 1
            self._changed.notify_all()


class Switched(NamedTuple):
    """How a name is answered: by a network, with an adapter switched on."""

    network: Any
    """What generates: a transformers model, or a PEFT model of virtual tokens."""
    adapter: str | None
    """Of the shared base; None is the base itself, or a model of its own."""
    alone: Any
    """Held during a whole answer, where a network can make only one at a time."""


class Models:
    """Names to models. The list of names is fixed when it is made: nothing that a user says becomes a path."""

    def __init__(self, revisions: Sequence[str] = ()) -> None:
        present = {"base": BASE / "config.json", "adapter": ADAPTER / "lineage.json", "merged": MERGED / "config.json"}
        names = [name for name, sign in present.items() if sign.is_file()]
        if "base" not in names:
            # An adapter is nothing without it.
            names = [name for name in names if name == "merged"]
        if not names:
            raise ValueError(f"there is no model in {BASE} or {MERGED}: run `dvc repro`, or `dvc pull`")
        self.adapters = {"adapter": ADAPTER} if "adapter" in names else {}
        self.names: tuple[str, ...] = tuple(names)
        for revision in revisions:
            self.named(f"{REVISION}{revision}")
        self.device = pick_device()
        self.tokenizer = load_tokenizer(BASE if "base" in names else MERGED)
        self.prompter = Prompter(self.tokenizer)
        config = json.loads(((BASE if "base" in names else MERGED) / "config.json").read_text(encoding="utf-8"))
        self.context = int(config["max_position_embeddings"])
        """Tokens of prompt and answer together."""
        self._dtype = pick_dtype("auto", self.device)
        self._turns, self._loading = Turns(), threading.Lock()
        self._asked = threading.local()
        self._ready: dict[str, Switched] = {}
        self._base: Any = None
        self._shared: Any = None
        self._active: str | None = None

    def named(self, name: str) -> str:
        """The name, its adapter put on the list first when it is `rev:<revision>`; for whoever sits at this machine.

        Raises UnknownModelError, or ValueError for a revision whose adapter can't be had.
        """
        if name.startswith(REVISION) and name not in self.names:
            self.adapters[name] = fetch_adapter(name.removeprefix(REVISION))
            self.names = (*self.names, name)
        return self.known(name)

    def known(self, name: str) -> str:
        """The name itself. Raises UnknownModelError with the list of names."""
        if name not in self.names:
            raise UnknownModelError(f"there is no model {name[:80]!r}, expected one of {', '.join(self.names)}")
        return name

    def get(self, name: str) -> Switched:
        """The model of a name, loaded if need be."""
        self.known(name)
        with self._loading:
            if name not in self._ready:
                self._ready[name] = self._load(name)
            return self._ready[name]

    @contextmanager
    def asking(self, model: Switched) -> Iterator[Any]:
        """The network to call `generate` on, in this thread, with the model's adapter switched on in each of its turns."""
        self._asked.adapter = model.adapter
        with model.alone:
            yield model.network

    def _load(self, name: str) -> Switched:
        if name == "merged":
            return self._own(load_merged(MERGED, self._dtype, self.device))
        if name == "base":
            return Switched(self._plain(), None, nullcontext())
        folder = self.adapters[name]
        if not switchable(folder):
            return self._own(load_adapter(load_model(BASE, self._dtype, self.device), folder))
        self._plain()
        label = f"a{len(self._ready)}"
        self._turns.acquire()
        try:
            if self._shared is None:
                self._shared = load_adapter(self._base, folder, label)
            else:
                self._shared.load_adapter(str(folder), adapter_name=label)
            self._shared.set_adapter(label, inference_mode=True)
            self._shared.base_model.enable_adapter_layers()
            self._active = label
        finally:
            self._turns.release()
        return Switched(self._base, label, nullcontext())

    def _plain(self) -> Any:
        if self._base is None:
            self._base = self._in_turns(load_model(BASE, self._dtype, self.device), shared=True)
        return self._base

    def _own(self, model: Any) -> Switched:
        virtual = hasattr(model, "active_peft_config")
        # PEFT puts virtual tokens in by replacing methods of the base while it generates.
        lock = threading.Lock() if virtual else nullcontext()
        self._in_turns(model.get_base_model() if virtual else model, shared=False)
        return Switched(model, None, lock)

    def _in_turns(self, network: Any, *, shared: bool) -> Any:
        """Let one forward pass run at a time, over all models: several at once would share the same cores."""

        def enter(*_: Any) -> None:
            self._turns.acquire()
            if shared:
                self._switch(self._asked.adapter)

        network.register_forward_pre_hook(enter)
        network.register_forward_hook(lambda *_: self._turns.release(), always_call=True)
        return network

    def _switch(self, adapter: str | None) -> None:
        if adapter == self._active or self._shared is None:
            return
        layers = self._shared.base_model
        if adapter is None:
            layers.disable_adapter_layers()
        else:
            layers.enable_adapter_layers()
            self._shared.set_adapter(adapter, inference_mode=True)
        self._active = adapter


def switchable(folder: Path) -> bool:
    """Whether an adapter is LoRA of any kind, which several can be of on one base."""
    config = folder / "adapter_config.json"
    return config.is_file() and json.loads(config.read_text(encoding="utf-8"))["peft_type"] == "LORA"
