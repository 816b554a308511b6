"""DeepSpeed's own per-host launcher, which starts nothing here."""


def started_environments(monkeypatch) -> list[dict[str, str]]:
    """Environments of the processes that `deepspeed.launcher.launch.main` would start, as it comes to them."""
    from deepspeed.launcher import launch

    started: list[dict[str, str]] = []

    class Process:
        returncode, pid = 0, 1

        def __init__(self, command, env):
            started.append(env.copy())

        def poll(self):
            return 0

    monkeypatch.setattr(launch.subprocess, "Popen", Process)
    monkeypatch.setattr(launch.time, "sleep", lambda _: None)
    monkeypatch.setattr(launch.signal, "signal", lambda *_: None)
    return started
