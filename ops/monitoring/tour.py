"""`make dashboards`: a broker, a daemon and a Prometheus for a minute, and a picture of each dashboard.

python -m ops.monitoring.tour [DIRECTORY]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from ops.kafka.broker import free_ports
from ops.monitoring import dashboards
from ops.monitoring.load import SETTINGS, Load
from ops.monitoring.panels import BOARDS
from ops.monitoring.render import Window, picture
from ops.monitoring.server import Prometheus
from ops.stack import Stack

PICTURES = Path(__file__).resolve().parents[2] / "docs"
_SCRAPE_S = 2.0


def main(pictures: Path = PICTURES) -> None:
    dashboards.main()
    with tempfile.TemporaryDirectory() as place, Stack(Path(place) / "lte", settings=SETTINGS) as stack:
        stack.start_broker()
        stack.start_daemon()
        stack.start_gateway()
        (port,) = free_ports(1)
        targets = {"target": stack.addresses.metrics, "gateway": stack.addresses.gateway_metrics}
        with Prometheus(Path(place) / "p", **targets, port=port, scrape_s=_SCRAPE_S) as prometheus:
            start = time.time()
            Load(stack).run(note=lambda step: print(f"{time.time() - start:5.0f} s  {step}", flush=True))
            time.sleep(2 * _SCRAPE_S)
            window = Window(start, time.time(), _SCRAPE_S)
            for board in BOARDS:
                path = pictures / f"dashboard-{board.uid}.svg"
                svg = picture(
                    board,
                    lambda query: prometheus.series(query, window.start, window.end, _SCRAPE_S),
                    window,
                )
                path.write_text(svg, encoding="utf-8")
                print(path)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
