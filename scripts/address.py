"""python scripts/address.py https://HOST/OWNER/NAME: writes the repository's address wherever the present one stands.

The present one is `Repository` in pyproject.toml, at first a placeholder. Without an argument: prints it and where it stands.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

from archive import ROOT, address_of

OUTSIDE = ("scripts", "tests")  # these name the placeholder itself
FORM = re.compile(r"https://[^/\s]+(?:/[\w.-]+){2,}")


def places(root: Path, address: str) -> list[Path]:
    """The tracked files that name the address."""
    command = ["git", "grep", "-lzIF", address, "--", ".", *(f":!{folder}" for folder in OUTSIDE)]
    return [root / name for name in subprocess.run(command, cwd=root, capture_output=True, text=True).stdout.split("\0") if name]


def move(root: Path, address: str) -> list[Path]:
    """Replaces the present address in every file that names it; these files."""
    present = address_of(root)
    found = places(root, present)
    for file in found:
        file.write_text(file.read_text(encoding="utf-8").replace(present, address), encoding="utf-8", newline="\n")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("address", nargs="?", metavar="https://HOST/OWNER/NAME")
    address = parser.parse_args().address
    if address:
        address = address.removesuffix("/").removesuffix(".git")
        if not FORM.fullmatch(address):
            print(f"{address} is not of the form https://HOST/OWNER/NAME.", file=sys.stderr)
            return 1
        move(ROOT, address)
    print(address_of(ROOT), *places(ROOT, address_of(ROOT)), sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
