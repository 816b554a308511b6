"""Write down which code each stage runs, with a hash of each file that comments and docstrings do not change.

    python -m stages.code

Reads stages/ and tuneline/; writes code/<stage>.txt. The other stages depend on their list instead of on files.
"""

from tuneline.runtime.code import code_lists, list_path, to_text
from tuneline.runtime.stage import Stage, run_stage


def main(stage: Stage) -> None:
    lists = code_lists()
    with stage.outputs(*map(list_path, lists)) as paths:
        for path, files in zip(paths, lists.values(), strict=True):
            path.write_text(to_text(files), encoding="utf-8")
    print(f"code: {len(stage.code)} files of {len(lists)} stages in code/")


if __name__ == "__main__":
    run_stage(main, __doc__)
