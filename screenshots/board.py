"""Draws `dashboard.svg` in this directory: the board of `relay deploy grafana` while an outage is under way.

`python screenshots/board.py [--calm-s SECONDS] [--into DIRECTORY]`. It plays `relay demo` on an embedded Postgres of
its own, and a Prometheus (which must be installed) scrapes that relay by the files that `relay deploy` prints. Panels,
places, queries and names are the board's, the figures are Prometheus' answers; the drawing is this script's, not
Grafana's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import socket
import sys
import tempfile
import time
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from relay.demo.play import play
from relay.demo.script import phases
from relay.deploy.catalogue import find
from relay.store.embedded import EmbeddedPostgres
from relay.store.migrate import migrate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from relay.settings import Settings

HERE = Path(__file__).parent
COLUMN, ROW, GAP, WIDTH = 50, 30, 8, 1200
COLOURS = ("#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#96d98d", "#ffb357", "#e0b400")
NAMED = {"red": "#e02f44", "orange": "#ff9830", "green": "#37872d"}
STEP_S = 2
_VARIABLES = {"$job": "hotdash-relay", "$__rate_interval": "20s"}

Series = list[tuple[str, list[tuple[float, float]]]]


class Prometheus:
    """A Prometheus that scrapes the relay at `target` every two seconds."""

    def __init__(self, folder: Path, target: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        (folder / find("prometheus-rules").file).write_text(find("prometheus-rules").content())
        config = find("prometheus").content().replace("127.0.0.1:9464", target).replace("15s", f"{STEP_S}s")
        (folder / "prometheus.yml").write_text(config)
        self._folder = folder

    async def start(self) -> asyncio.subprocess.Process:
        """Start the program."""
        program = shutil.which("prometheus")
        if program is None:
            sys.exit("prometheus is not installed: apt install prometheus")
        return await asyncio.create_subprocess_exec(
            program, f"--config.file={self._folder}/prometheus.yml", f"--storage.tsdb.path={self._folder}/data",
            f"--web.listen-address=127.0.0.1:{self._port}",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip

    async def series(self, target: dict[str, Any], start: float, end: float) -> Series:
        """Names and points of one of a panel's queries."""
        query = _filled(target["expr"])
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self._port}", trust_env=False) as client:
            answer = await client.get(
                "/api/v1/query_range", params={"query": query, "start": start, "end": end, "step": STEP_S}
            )
        answer.raise_for_status()
        return [
            (
                _name(target.get("legendFormat", ""), one["metric"]),
                [(float(at), float(value)) for at, value in one["values"] if value != "NaN"],
            )
            for one in answer.json()["data"]["result"]
        ]


def _filled(text: str) -> str:
    for name, value in _VARIABLES.items():
        text = text.replace(name, value)
    return text


def _name(form: str, labels: dict[str, str]) -> str:
    for label, value in labels.items():
        form = form.replace(f"{{{{{label}}}}}", value)
    return form


def draw(panels: list[tuple[dict[str, Any], Series]], start: float, end: float) -> str:
    """The board as SVG; `panels` are the board's, each with its series."""
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel, _ in panels) * ROW + GAP
    drawn = "".join("".join(_panel(panel, series, start, end)) for panel, series in panels)
    style = "text{font-family:DejaVu Sans,Helvetica,Arial,sans-serif;fill:#ccccdc;font-size:11px}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"><style>{style}</style>'
        f'<rect width="{WIDTH}" height="{height}" fill="#111217"/>{drawn}</svg>\n'
    )


def _panel(panel: dict[str, Any], series: Series, start: float, end: float) -> Iterator[str]:
    place = panel["gridPos"]
    left, top = place["x"] * COLUMN + GAP / 2, place["y"] * ROW + GAP / 2
    width, height = place["w"] * COLUMN - GAP, place["h"] * ROW - GAP
    kind = {"stat": _stat, "state-timeline": _timeline}.get(panel["type"], _lines)
    yield f'<g transform="translate({left} {top})"><rect width="{width}" height="{height}" rx="3" fill="#181b1f"/>'
    yield from kind(panel, series, (width, height), (start, end))
    yield _text(10, 18, panel["title"], "font-weight:bold")
    yield "</g>"


def _stat(panel: dict[str, Any], series: Series, size: tuple[float, float], _: tuple[float, float]) -> Iterator[str]:
    """The last value of each series on a ground by the panel's thresholds."""
    width, height = size
    defaults = panel["fieldConfig"]["defaults"]
    share = width / max(1, len(series))
    for index, (name, points) in enumerate(series):
        value = points[-1][1] if points else None
        steps = [step for step in defaults.get("thresholds", {}).get("steps", []) if value is not None]
        reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
        colour = NAMED.get(reached[-1], "#181b1f") if reached else "#181b1f"
        yield f'<rect x="{index * share}" width="{share}" height="{height}" rx="3" fill="{colour}"/>'
        shown = defaults.get("noValue", "–") if value is None else _value(value, defaults)
        middle = (index + 0.5) * share
        yield _text(
            middle, height / 2 + 18, shown, f"text-anchor:middle;font-size:{14 if share < 100 else 24}px;fill:#fff"
        )
        yield _text(middle, height - 10, name, "text-anchor:middle;font-size:9px;fill:#fff")


def _value(value: float, defaults: dict[str, Any]) -> str:
    for mapping in defaults.get("mappings", []):
        found = mapping["options"].get(f"{value:g}")
        if found is not None:
            return str(found["text"])
    if defaults.get("unit") == "percentunit":
        return f"{value * 100:.0f} %"
    return f"{value:.3g} s" if defaults.get("unit") == "s" else f"{value:.3g}"


def _lines(
    panel: dict[str, Any], series: Series, size: tuple[float, float], span: tuple[float, float]
) -> Iterator[str]:
    """A line a series, its values on the left and its name below."""
    (width, height), (start, end) = size, span
    left, right, top, bottom = 56.0, width - 12, 34.0, height - 52
    most = max((value for _, points in series for _, value in points), default=1) or 1
    defaults = panel["fieldConfig"]["defaults"]
    for part in range(5):
        y = bottom - (bottom - top) * part / 4
        yield f'<path d="M{left} {y:.1f}H{right}" stroke="#2c3036"/>'
        yield _text(left - 6, y + 4, _value(most * part / 4, defaults), "text-anchor:end")
    yield from _times(left, right, bottom + 15, span)
    at, line = left, 0
    for index, (name, points) in enumerate(series):
        colour = COLOURS[index % len(COLOURS)]
        path, before = "", None
        for moment, value in points:
            x = left + (right - left) * (moment - start) / (end - start)
            joined = before is not None and moment - before <= 2.5 * STEP_S
            path += f"{'L' if joined else 'M'}{x:.1f} {bottom - (bottom - top) * value / most:.1f}"
            before = moment
        yield f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        length = 26 + 6.2 * len(name)
        if at + length > right and line == 0:
            at, line = left, 1
        y = height - 24 + 15 * line
        yield f'<rect x="{at}" y="{y - 8}" width="12" height="3" fill="{colour}"/>' + _text(at + 16, y - 2, name)
        at += length


def _timeline(
    panel: dict[str, Any], series: Series, size: tuple[float, float], span: tuple[float, float]
) -> Iterator[str]:
    """A bar an alert rule: red while it fires."""
    (width, height), (start, end) = size, span
    left, right, top = 190.0, width - 12, 30.0
    tall = (height - top - 26) / max(1, len(series))
    options = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
    for index, (name, points) in enumerate(sorted(series)):
        y = top + index * tall
        yield _text(left - 6, y + tall / 2 + 3, name, f"text-anchor:end;font-size:{min(10.0, tall):.1f}px")
        for moment, value in points:
            x = left + (right - left) * (moment - start) / (end - start)
            wide = (right - left) * STEP_S / (end - start) + 0.3
            colour = NAMED[options[f"{value:g}"]["color"]]
            yield f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{tall - 1:.1f}" fill="{colour}"/>'
    yield from _times(left, right, height - 10, span)


def _times(left: float, right: float, y: float, span: tuple[float, float]) -> Iterator[str]:
    start, end = span
    for part in range(5):
        shown = time.strftime("%H:%M:%S", time.localtime(start + (end - start) * part / 4))
        yield _text(
            left + (right - left) * part / 4, y, shown, f"text-anchor:{('start', *3 * ('middle',), 'end')[part]}"
        )


def _text(x: float, y: float, text: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" style="{style}">{escape(text)}</text>'


async def board(into: Path, calm_s: float) -> None:
    """Play the demo and draw the board into a directory."""
    with tempfile.TemporaryDirectory(prefix="board-", ignore_cleanup_errors=True) as folder:
        server = await asyncio.to_thread(EmbeddedPostgres, Path(folder))
        try:
            await migrate(server.dsn, roles=True)

            async def watch(settings: Settings) -> None:
                prometheus = Prometheus(Path(folder), urlsplit(settings.relay_url or "").netloc)
                process = await prometheus.start()
                start = time.time()
                try:
                    await asyncio.sleep(2 * calm_s)
                    end = time.time()
                    panels = json.loads(find("grafana").content())["panels"]
                    found = [
                        (
                            panel,
                            [one for target in panel["targets"] for one in await prometheus.series(target, start, end)],
                        )
                        for panel in panels
                    ]
                finally:
                    process.kill()
                    await process.wait()
                (into / "dashboard.svg").write_text(draw(found, start, end), encoding="utf-8")

            with contextlib.chdir(folder):  # the health check leaves its artifact there
                await play(server.dsn, seconds=None, watch=watch, script=phases(calm_s, calm_s + 60))
        finally:
            await asyncio.to_thread(server.close)


def main() -> None:
    """Parse and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calm-s", type=float, default=120, help="seconds of ordinary traffic, and of the outage")
    parser.add_argument("--into", type=Path, default=HERE, help="where the picture goes (default: beside this script)")
    given = parser.parse_args()
    given.into.mkdir(parents=True, exist_ok=True)
    asyncio.run(board(given.into.resolve(), given.calm_s))


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    main()
