"""All sections of params.yaml, and one of them with values."""

from tuneline.data.config import Data
from tuneline.evaluate.config import Evaluate
from tuneline.export.config import Export
from tuneline.fetch.config import Fetch
from tuneline.models.config import Base
from tuneline.tokenize.config import Tokenize
from tuneline.train.config.deepspeed import DeepSpeed
from tuneline.train.config.freeze import Freeze
from tuneline.train.config.lora import Lora
from tuneline.train.config.ptuning import PTuning
from tuneline.train.config.train import Train
from tuneline.train.config.tune import Tune

SECTIONS = (Fetch, Base, Data, Tokenize, Tune, Lora, PTuning, Freeze, Train, DeepSpeed, Evaluate, Export)


def deepspeed_section(**values) -> DeepSpeed:
    """The shipped section with changes."""
    shipped = {"zero_stage": 1, "offload": "none", "launcher": "deepspeed", "processes": "auto", "hostfile": None}
    return DeepSpeed.model_validate(shipped | {"master_port": None, "config": {}} | values)
