"""Check all of params.yaml, and write down which code each stage runs, with a hash of each file.

    python -m stages.code

Reads params.yaml, stages/, tuneline/ and evaluation/; writes code/<stage>.txt. The other stages depend on their list instead
of on files; comments and docstrings of ours change no hash. An experiment that would overwrite results which are in no
commit and in no experiment ends here.
"""

from pathlib import Path

from tuneline.runtime.code import code_lists, list_path, to_text
from tuneline.runtime.evaluation_folder import check_files
from tuneline.runtime.stage import Stage, run_stage
from tuneline.runtime.terminal.lines import say
from tuneline.runtime.unsaved import refuse_to_overwrite
from tuneline.sections import check_sections

RESULTS = Path("metrics/eval.json")


def main(stage: Stage) -> None:
    lists = code_lists()
    with stage.outputs(*map(list_path, lists)) as paths:
        for path, files in zip(paths, lists.values(), strict=True):
            path.write_text(to_text(files), encoding="utf-8")
    # The lists are right whatever params.yaml holds, and git has them: a mistake there must not take them away.
    check_sections(stage.load)
    check_files()
    refuse_to_overwrite(RESULTS)
    say(f"code: params.yaml is in order; {len(stage.code)} files of {len(lists)} stages listed in code/")


if __name__ == "__main__":
    run_stage(main, __doc__)
