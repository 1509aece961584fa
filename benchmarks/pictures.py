"""The pictures of the README: a front on the device of a table that ships, and the page about it.

    python benchmarks/pictures.py

writes docs/images/front.svg, the chart of the page that `ofa-deploy report` writes, with its style inside, and, where
there is a Chromium, docs/images/page.png, the top of that page on a screen. The search has a seed, so the same release
draws the same front.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SPACE = "mbv3-w1.0"
TABLE = ROOT / "lut" / "mbv3-w1.0_cpu_1t_amd-epyc-family-26-model-2-2-cores.csv"
PREDICTOR = ROOT / "predictors" / "mbv3-w1.0.safetensors"
SEARCH = ["search", "--front", "--latency", "60%", "--space", SPACE, "--lut", str(TABLE), "--predictor", str(PREDICTOR)]
SCREEN = 1040, 1385
"""Pixels of the part of the page that is shown."""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", help="folder of the pictures")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ofa_deploy(folder, *SEARCH, "--out", "front.json")
        ofa_deploy(folder, "report", "front.json", "--out", "page.html")
        (out / "front.svg").write_text(chart((folder / "page.html").read_text()))
        print(out / "front.svg")
        if CHROMIUM is None:
            sys.exit("no Chromium here, so there is no picture of the page")
        shoot(CHROMIUM, folder / "page.html", out / "page.png")
        print(out / "page.png")


def ofa_deploy(folder: Path, *arguments: str) -> None:
    """Run a command in a folder, quietly."""
    command = [sys.executable, "-m", "ofa_deploy", *arguments]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def chart(page: str) -> str:
    """The first chart of a page as an SVG file of its own, with the page's style for charts."""
    element = re.search(r"<svg .*?</svg>", page, re.DOTALL)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert element is not None, "the page has no chart"
    assert style is not None, "the page has no style"
    drawing = re.sub(r' (data-n|data-series|tabindex)="[^"]*"', "", element[0])
    width, height = map(int, re.findall(r'viewBox="0 0 (\d+) (\d+)"', drawing)[0])
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
    background = '<rect width="100%" height="100%" style="fill:var(--bg)"/>'
    opening, rest = drawing.split(">", 1)
    return f"{opening.replace('<svg ', head)}><style>{rules(style[1])}</style>{background}{rest}\n"


def rules(style: str) -> str:
    """Those of a page's style rules that a chart needs: its colours, on light and dark screens, and its shapes."""
    shapes = r"\.(?:mid|end|grid|axis|s\d|random|chosen|steps|interval|budget|bound|way)\b|svg|circle"
    kept = re.findall(rf"^(?::root\{{|@media\(prefers|(?:{shapes})).*?\}}+$", style, re.MULTILINE | re.DOTALL)
    return "\n".join(kept)


def shoot(chromium: str, page: Path, picture: Path) -> None:
    """Write a PNG of the top of a page."""
    with tempfile.TemporaryDirectory() as profile:
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        size = f"--window-size={SCREEN[0]},{SCREEN[1]}"
        target = [f"--user-data-dir={profile}", size, f"--screenshot={picture.resolve()}", page.resolve().as_uri()]
        subprocess.run([*command, *target], check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
