"""A stand-in for a vLLM server: its HTTP over a real (tiny) model on transformers, in this process.

As far as the engine uses it: /health, /version, /v1/models, completions by token ids with and without SSE,
adapters that are loaded and unloaded at run time and lost at a restart, and its answers to what is wrong. The
same suite runs on the real one (`make test-vllm`).
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from lte_runtime.answer.engine import lora
from lte_runtime.answer.engine.files import base_fingerprint, verify_adapter
from lte_runtime.errors import LteError

BASE = "tiny"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


class StandIn:
    """Serves the model of `directory` at `url`; `kill` drops connections and adapters."""

    def __init__(
        self, directory: Path, *, base: str = BASE, token_s: float = 0.0, max_rank: int = 16
    ) -> None:
        self.base, self.token_s, self.max_rank = base, token_s, max_rank
        self.adapters: dict[str, lora.Halves] = {}
        self.loads: list[str] = []
        self.asked: list[str] = []
        """Names of all adapters that were loaded, and of the models of all completions, in order."""
        self.stuck = threading.Event()
        """While it is set nothing is answered, as by a process that was stopped."""
        self.fail_loads = ""
        self._compute = threading.Lock()
        self.serve(directory)
        self._server: _Server | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def serve(self, directory: Path) -> None:
        """The model of another directory from now on."""
        self._model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        self.context = self._model.config.max_position_embeddings
        self._unmerged = lora.Unmerged(self._model)
        self._fingerprint = base_fingerprint(directory)

    def start(self) -> None:
        self._server = _Server(("127.0.0.1", self.port), self)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def kill(self) -> None:
        """As SIGKILL: nothing is ended in good order."""
        server, self._server = self._server, None
        if server is not None:
            server.drop()
            self.adapters = {}

    def load(self, name: str, path: str) -> tuple[int, str]:
        if self.fail_loads:
            return 500, self.fail_loads
        if name in self.adapters:
            return 400, f"The lora adapter '{name}' has already been loaded."
        if not (Path(path) / "adapter_config.json").is_file():
            return 404, f"Loading lora {name} failed: No adapter found for {path}"
        try:
            adapter = verify_adapter(Path(path), self._fingerprint)
            if adapter.rank > self.max_rank:
                return 500, f"LoRA rank {adapter.rank} is greater than max_lora_rank {self.max_rank}."
            pairs = lora.read_pairs(adapter, self._model)
            with self._compute:
                self._unmerged.reach(pairs)
        except LteError as error:
            return 500, str(error)
        self.adapters[name] = self._unmerged.halves(pairs, adapter.scale)
        self.loads.append(name)
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def unload(self, name: str) -> tuple[int, str]:
        if self.adapters.pop(name, None) is None:
            return 404, f"The lora adapter '{name}' cannot be found."
        return 200, f"Success: LoRA adapter '{name}' removed successfully."

    def knows(self, model: str) -> bool:
        return model == self.base or model in self.adapters

    def greedy(self, model: str, prompt: Sequence[int]) -> Iterator[tuple[int, torch.Tensor]]:
        """Tokens with the scores that they were chosen by."""
        halves: lora.Halves = {} if model == self.base else self.adapters[model]
        ids = list(prompt)
        while True:
            time.sleep(self.token_s)
            while self.stuck.is_set():
                time.sleep(0.01)
            with self._compute, torch.inference_mode():
                inputs = {"input_ids": torch.tensor([ids]), "use_cache": False}
                scores = self._unmerged.forward(halves, **inputs).logits[0, -1].float()
            ids.append(int(scores.argmax()))
            yield ids[-1], scores


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], stand_in: StandIn) -> None:
        self.stand_in = stand_in
        self._open: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hangs up is nothing to tell of."""

    def drop(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in [*self._open]:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it has just ended by itself


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        stand_in = self.server.stand_in
        while stand_in.stuck.is_set():
            time.sleep(0.01)
        if self.path == "/v1/models":
            cards = [{"id": stand_in.base, "max_model_len": stand_in.context, "parent": None}]
            cards += [{"id": name, "parent": stand_in.base} for name in stand_in.adapters]
            return self._json(200, {"object": "list", "data": cards})
        if self.path == "/version":
            return self._json(200, {"version": "0.0-stand-in"})
        return self._json(200, {}) if self.path == "/health" else self._error(404, "Not Found")

    def do_POST(self) -> None:
        stand_in = self.server.stand_in
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/load_lora_adapter":
            return self._done(*stand_in.load(body["lora_name"], body["lora_path"]))
        if self.path == "/v1/unload_lora_adapter":
            return self._done(*stand_in.unload(body["lora_name"]))
        if self.path != "/v1/completions":
            return self._error(404, "Not Found")
        stand_in.asked.append(body["model"])
        if not stand_in.knows(body["model"]):
            return self._error(404, f"The model `{body['model']}` does not exist.")
        if len(body["prompt"]) + body["max_tokens"] > stand_in.context:
            return self._error(400, f"This model's maximum context length is {stand_in.context} tokens.")
        return self._stream(body) if body.get("stream") else self._scores(body)

    def _scores(self, body: dict[str, Any]) -> None:
        token, scores = next(self.server.stand_in.greedy(body["model"], body["prompt"]))
        logs = scores.log_softmax(-1)
        if not torch.isfinite(logs).all():
            return self._error(500, "Out of range float values are not JSON compliant: nan")
        best = logs.topk(body["logprobs"])
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        top = {f"token_id:{index}": score for index, score in pairs}
        choice = {"text": "", "token_ids": [token], "logprobs": {"top_logprobs": [top]}}
        return self._json(200, {"choices": [choice]})

    def _stream(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        tokens = self.server.stand_in.greedy(body["model"], body["prompt"])
        for number, (token, _) in enumerate(tokens, 1):
            ended = token in body["stop_token_ids"]
            reason = "stop" if ended else "length" if number == body["max_tokens"] else None
            choice = {"index": 0, "text": "", "token_ids": [token], "finish_reason": reason}
            self._event(json.dumps({"choices": [choice]}))
            if reason:
                break
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, data: str) -> None:
        piece = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    def _done(self, status: int, text: str) -> None:
        self._send(status, "text/plain", text.encode()) if status == 200 else self._error(status, text)

    def _error(self, status: int, message: str) -> None:
        self._json(status, {"error": {"message": message, "code": status}})

    def _json(self, status: int, value: object) -> None:
        self._send(status, "application/json", json.dumps(value).encode())

    def _send(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
