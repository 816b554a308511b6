"""The stages in order: code, fetch, base, convert, tokenize, train, predict_base, evaluate, export.

Always start one as `python -m stages.<name>`: run as a script, a sibling of tokenize.py would find it
in place of the standard library's `tokenize`, and torch would not import.
"""

from tuneline.runtime.environment import require_environment

require_environment()
