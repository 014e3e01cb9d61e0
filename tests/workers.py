"""How several processes share a run: which tests stay together, and in which order."""

from xdist.scheduler import LoadScopeScheduling


def worker_group(test: str) -> str:
    """The group of a test, by its id, which one worker runs: those of the server share one, the others are by file."""
    file = test.partition("::")[0]
    return "server" if file.startswith("tests/server/") else file


class Groups(LoadScopeScheduling):
    """One group after the other to whichever worker is free, in the order of collection."""

    def __init__(self, config, log):
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return worker_group(nodeid)
