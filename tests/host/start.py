"""What loading the pack takes of a host that starts, in a process of its own: prints one line of JSON.

    python tests/host/start.py

packages: top-level ones, not of Python itself, that were not imported before. large_files: those above 1 MB that were opened,
as files of weights are. bytes: the most that Python had allocated at once.
"""

import asyncio
import json
import os
import sys
import tempfile
import tracemalloc
from pathlib import Path

import safetensors.torch
from conftest import ROOT, import_host

LARGE = 1 << 20


def main() -> dict:
    large = []

    def note(file) -> None:
        if isinstance(file, (str, bytes, os.PathLike)) and os.path.isfile(file) and os.path.getsize(file) > LARGE:
            large.append(os.fsdecode(file))

    opened = safetensors.safe_open

    def noted(file, *given, **named):  # it opens files without Python's knowing
        note(file)
        return opened(file, *given, **named)

    with tempfile.TemporaryDirectory() as base:
        nodes = import_host(Path(base))
        empty = Path(base, "custom_nodes", "empty")  # what the host imports to load any pack is its own
        empty.mkdir()
        (empty / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}")
        assert asyncio.run(nodes.load_custom_node(str(empty)))
        safetensors.safe_open = safetensors.torch.safe_open = noted
        sys.addaudithook(lambda event, given: note(given[0]) if event == "open" else None)
        before = set(sys.modules)
        tracemalloc.start()
        assert asyncio.run(nodes.load_custom_node(str(ROOT)))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    packages = {name.partition(".")[0] for name in before}
    new = {name.partition(".")[0] for name in set(sys.modules) - before if not name.startswith(str(ROOT).replace(".", "_x_"))}
    return {"packages": sorted(new - packages - sys.stdlib_module_names), "large_files": large, "bytes": peak}


if __name__ == "__main__":
    print(json.dumps(main()))
