"""A client process with many open calls that wait for an event which never comes; tests kill or stop it.

`python waiting_callers.py ADDRESS TOPIC_ID METHOD COUNT` opens the calls, with a deadline of an hour, writes
`open` when all are under way, and stays until it is killed. METHOD is Answer, AnswerStream or Retrieve.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from daemon.rpc.gen.lte.v1 import answer_service_pb2 as pb
from daemon.rpc.gen.lte.v1 import answer_service_pb2_grpc, common_pb2

ROOT = Path(__file__).parents[1]
HOUR_S = 3600.0
NEVER = 1 << 40


@contextmanager
def waiting_callers(address: str, topic_id: str, method: str, count: int) -> Iterator[subprocess.Popen[str]]:
    """The process, once its calls are under way; killed at the end if the test did not."""
    arguments = [sys.executable, __file__, address, topic_id, method, str(count)]
    with subprocess.Popen(arguments, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stdout=-1, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "open\n"
            yield child
        finally:
            child.kill()


def call(stub: Any, method: str, topic_id: str) -> Any:
    request = getattr(pb, f"{method}Request")(
        question="?", at_least=[common_pb2.Position(topic_id=topic_id, partition=0, offset=NEVER)]
    )
    behaviour = getattr(stub, method)
    return (
        behaviour(request, timeout=HOUR_S)
        if method == "AnswerStream"
        else behaviour.future(request, timeout=HOUR_S)
    )


def main(address: str, topic_id: str, method: str, count: int) -> None:
    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result()
        stub = answer_service_pb2_grpc.AnswerServiceStub(channel)
        calls = [call(stub, method, topic_id) for _ in range(count)]
        print("open", flush=True)
        threading.Event().wait()
        assert calls


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
