"""python scripts/archive.py OUT.zip: the archive that the registry gives to a user of the nodes; its size is printed.

The tracked files without those of .comfyignore, as `comfy node pack` takes them.
"""

import argparse
import re
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IGNORED = ".comfyignore"
PLACEHOLDER = "https://REPOSITORY_URL"


def listed(*options: str) -> set[str]:
    """Tracked files, relative to ROOT."""
    names = subprocess.run(["git", "ls-files", "-z", "--cached", *options], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in names.stdout.split("\0") if (ROOT / name).is_file()}


def release_files() -> list[str]:
    """What the archive holds, relative to ROOT; git itself reads the patterns of .comfyignore."""
    return sorted(listed() - listed("--ignored", f"--exclude-from={IGNORED}"))


def write_archive(out: Path) -> None:
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in release_files():
            archive.write(ROOT / name, name)


def address_of(root: Path) -> str:
    """`Repository` in pyproject.toml, from which the other addresses follow."""
    return re.search(r'^Repository = "(.*)"$', (root / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]


def missing(root: Path) -> str | None:
    """What must be filled in before the archive can be published, in one sentence."""
    if address_of(root) != PLACEHOLDER:
        return None
    return (
        "Not to be published yet: the repository has no address, so run `python scripts/address.py https://HOST/OWNER/NAME`, "
        "and check PublisherId in pyproject.toml."
    )


def size_line(archive: Path) -> str:
    """Files and sizes of an archive, in one line."""
    with zipfile.ZipFile(archive) as opened:
        entries = opened.infolist()
    unpacked = sum(entry.file_size for entry in entries)
    return f"{archive}: {len(entries)} files, {archive.stat().st_size / 1e6:.1f} MB, unpacked {unpacked / 1e6:.1f} MB"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, metavar="OUT.zip")
    out = parser.parse_args().out
    try:
        write_archive(out)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"No archive was made: {error}", file=sys.stderr)
        return 1
    print(size_line(out))
    if sentence := missing(ROOT):
        print(sentence, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
