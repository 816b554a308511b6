"""The stages in order: code, fetch, base, convert, tokenize, train, predict_base, evaluate, report, export.

Always start one as `python -m stages.<name>`: run as a script, a sibling of tokenize.py would find it
in place of the standard library's `tokenize`, and torch would not import.
"""

import sys

from tuneline.runtime.environment import require_environment
from tuneline.runtime.stopping import end_on_signals

if sys.argv[0] == "-m":
    # Python is only about to import the stage, which takes seconds.
    end_on_signals(next((word for word in sys.orig_argv if word.startswith(f"{__name__}.")), __name__))
require_environment()
