"""How several processes share a run: which tests stay together, and which begin first."""

from xdist.scheduler import LoadScopeScheduling

# tests/server/ has two servers, each in a worker of its own; one takes about as long as the other. Whatever drives the browser is
# with one of them, so that there is one at a time: at its first start Chromium is unpacked to where a second would find a part of
# it. Names of files, without test_ and .py; one that is not named has a turn of its own, on the server of the worker that is free.
SERVERS = {
    "first server": ("bad_input", "interrupt", "live", "locales", "serving", "workflows"),
    "second server": ("browser", "long", "recording", "report_player", "two_faces"),
}
# What takes a minute and more begins first: as the last of all it would keep one worker while the other has nothing left to do.
FIRST = (
    *SERVERS,
    "tests/server/test_first_click.py",
    "tests/host/test_knobs.py",
    "tests/test_eval_runs.py",
    "tests/test_eval.py",
    "tests/test_train.py",
)


def worker_group(test: str) -> str:
    """The group of a test, by its id, which one worker runs: its file, or those that share a server with it."""
    file = test.partition("::")[0]
    name = file.removeprefix("tests/server/test_").removesuffix(".py")
    return next((server for server, names in SERVERS.items() if name in names), file)


def turn(test: str) -> int:
    """What the tests are sorted by, before any is run."""
    group = worker_group(test)
    return FIRST.index(group) if group in FIRST else len(FIRST)


class Groups(LoadScopeScheduling):
    """One group after the other to whichever worker is free, in the order of collection."""

    def __init__(self, config, log):
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return worker_group(nodeid)
