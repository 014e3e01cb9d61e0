"""python atheris_targets.py TARGET CORPUS [libFuzzer's options]: coverage-guided fuzzing of a reader of bytes.

What is neither a result nor one of the pack's errors ends the process with libFuzzer's report and exit status.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["realportrait_core"]):
    import conftest  # noqa: F401  makes the core known

    from realportrait_core.checkpoint import header
    from realportrait_core.errors import RealPortraitError
    from realportrait_core.face import onnx_file
    from realportrait_core.motion_file import pickled, template


GIVEN = Path("given.safetensors")  # in the current folder, best one in memory


def of_header(data: bytes) -> None:
    GIVEN.write_bytes(data)
    header.read_header(GIVEN)


READERS = {
    "header": of_header,
    "pickle": lambda data: template.template_motion(pickled.read_pickle(data)),
    "onnx": onnx_file.initializers,
}


def main() -> None:
    read = READERS[sys.argv.pop(1)]

    def one(data: bytes) -> None:
        try:
            read(data)
        except RealPortraitError:
            pass

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
