"""python -m realportrait_core.checkpoint: the former name of the command `python -m realportrait_core.convert`.

`convert liveportrait ...`, `convert opensora ...` and `inspect ...` still run, with the same arguments and exit status.
"""

import runpy
import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["convert"]:
        del sys.argv[1]
    runpy.run_module("realportrait_core.convert", run_name="__main__", alter_sys=True)
