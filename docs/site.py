"""Build the documents as a site: make site, then open build/site/index.html.

Zensical reads one folder, so README.md, CONTRIBUTING.md and CHANGELOG.md are copied beside the
pages of docs/. Links to other files of the repository lose their target and keep their text.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
PAGES = ROOT / "build" / "docs"  # named in zensical.toml
ABOVE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
LINK = re.compile(r"\[([^][]+)\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def pages() -> dict[str, Path]:
    """File of each page by its name on the site; the README is the first page."""
    found = {path.name: path for path in sorted((ROOT / "docs").glob("*.md"))}
    return {**found, **{name: ROOT / name for name in ABOVE}}


def with_site_links(text: str, source: Path, names: dict[str, Path]) -> str:
    """The page with links that work on the site. Code blocks stay as they are."""
    targets = {path.resolve(): name for name, path in names.items()}
    targets |= {path: f"pictures/{path.name}" for path in PICTURES.iterdir()}
    targets[ROOT / "docs" / "README.md"] = "README.md"  # the list of documents: the site's menu

    def place(match: re.Match[str]) -> str:
        label, target, anchor = match[1], match[2], match[3] or ""
        name = targets.get((source.parent / target).resolve())
        return f"[{label}]({name.replace('README', 'index')}{anchor})" if name else label

    blocks = re.split(r"(^```.*?^```)", text, flags=re.M | re.S)
    return "".join(part if n % 2 else LINK.sub(place, part) for n, part in enumerate(blocks))


def main() -> int:
    """Write the pages and build the site; the exit code is Zensical's."""
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(PICTURES, PAGES / "pictures")
    names = pages()
    for name, path in names.items():
        text = with_site_links(path.read_text(encoding="utf-8"), path, names)
        (PAGES / name.replace("README", "index")).write_text(text, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--clean", "--strict"], cwd=ROOT
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
