"""LoRA fine-tuning on question-answer data as a versioned DVC pipeline; each stage has a package of its name."""

# `python -m tuneline.compare` and the like are found for one release more; they say what they are called now.
__path__.append(f"{__path__[0]}/cli/deprecated")
