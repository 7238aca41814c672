"""One vLLM server, call by call: its HTTP as values and errors. Keeps nothing of what it hears."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from lte_runtime.errors import NotFound, Refused, Retry

CALL_S = 5.0
"""Seconds in which a server answers a call that computes nothing, or is taken for lost."""
LOAD_S = 120.0
"""Seconds in which a server reads an adapter, or answers a probe behind other work."""
LORA_HINT = "start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
GREEDY = {
    "temperature": 0.0,
    # A server takes what a request leaves out from the model's generation_config.json.
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
MOST_SCORES = 5
"""Scores of a token's likeliest rivals that a server gives (its --max-logprobs is 20)."""


@dataclass(frozen=True, slots=True)
class Served:
    """What a server says it serves: the base model's name, the tokens that it reads at most, the names of its
    adapters."""

    base: str
    context: int
    adapters: frozenset[str]


class VllmServer:
    """Calls raise `Retry` when the server is away, breaks off or fails, and `Refused` when it says no.

    Used on one event loop. `token`: what the server was given as --api-key.
    """

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url.rstrip("/")
        self._http = httpx2.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=CALL_S,
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64),
            trust_env=False,  # a proxy for the internet is none for a server beside us
        )

    async def served(self) -> Served:
        """Asks whether the server's engine lives, and what it serves."""
        await self._call("GET", "/health")
        reply = await self._call("GET", "/v1/models")
        try:
            cards = reply.json()["data"]
            base = next(card for card in cards if not card.get("parent"))
            names = frozenset(str(card["id"]) for card in cards if card.get("parent"))
            return Served(str(base["id"]), int(base.get("max_model_len") or 1 << 20), names)
        except (StopIteration, AttributeError, KeyError, TypeError, ValueError) as error:
            raise Refused(f"{self.url} is no vLLM server with a base model: {reply.text[:200]}") from error

    async def version(self) -> str:
        return str((await self._call("GET", "/version")).json().get("version", "unknown"))

    async def load(self, name: str, directory: Path) -> None:
        """Makes an adapter answer under a name; the server reads the directory itself."""
        body = {"lora_name": name, "lora_path": str(directory)}
        reply = await self._request("POST", "/v1/load_lora_adapter", body, LOAD_S)
        if reply.is_error:
            hint = f"; the server must see {directory} too: {LORA_HINT}" if reply.status_code == 404 else ""
            raise Refused(f"{self._said(reply)}{hint}")

    async def unload(self, name: str) -> None:
        """Afterwards the name is unknown, as it may have been before."""
        try:
            await self._call("POST", "/v1/unload_lora_adapter", {"lora_name": name})
        except NotFound:
            return

    async def tokens(
        self, model: str, prompt: Sequence[int], limit: int, ends: Collection[int] = ()
    ) -> AsyncGenerator[list[int], None]:
        """Greedy tokens as they come, at most `limit`; one of `ends` is the last.

        Raises `NotFound` when the server does not know the model. Closed early, the server stops too.
        """
        body = {
            **self._completion(model, prompt, limit),
            "stream": True,
            "return_token_ids": True,
            # All ends are ours: the server may know others.
            "ignore_eos": True,
            "stop_token_ids": sorted(ends),
        }
        try:
            timeout = httpx2.Timeout(CALL_S, read=None)
            async with self._http.stream("POST", "/v1/completions", json=body, timeout=timeout) as reply:
                if reply.is_error:
                    await reply.aread()
                    self._check(reply)
                async for line in reply.aiter_lines():
                    if line.startswith("data: {"):
                        yield self._token_ids(json.loads(line.removeprefix("data: ")))
        except (httpx2.HTTPError, ValueError, KeyError) as error:
            raise self._lost(error) from error

    async def scores(self, model: str, prompt: Sequence[int]) -> Mapping[str, float]:
        """Log probabilities of the likeliest tokens behind a prompt; raises `Refused` unless finite."""
        body = {**self._completion(model, prompt, 1), "logprobs": MOST_SCORES}
        reply = await self._request("POST", "/v1/completions", body, LOAD_S)
        if reply.is_error:
            raise Refused(f"{self._said(reply)}; a score that is no number has no JSON form")
        scores: Mapping[str, float] = reply.json()["choices"][0]["logprobs"]["top_logprobs"][0]
        if not scores or not all(score is not None and math.isfinite(score) for score in scores.values()):
            raise Refused(f"{model} makes the model's scores infinite")
        return scores

    async def close(self) -> None:
        await self._http.aclose()

    def _completion(self, model: str, prompt: Sequence[int], limit: int) -> dict[str, Any]:
        return {"model": model, "prompt": list(prompt), "max_tokens": limit, **GREEDY}

    def _token_ids(self, event: Mapping[str, Any]) -> list[int]:
        if "error" in event:
            raise Retry(f"vLLM at {self.url} failed: {event['error'].get('message', event['error'])}")
        ids = [token for choice in event["choices"] for token in choice.get("token_ids") or ()]
        if not ids and any("token_ids" not in choice for choice in event["choices"]):
            raise Refused(f"vLLM at {self.url} sends no token ids: it is older than 0.11")
        return ids

    async def _call(self, method: str, path: str, body: object = None) -> httpx2.Response:
        reply = await self._request(method, path, body)
        self._check(reply)
        return reply

    async def _request(
        self, method: str, path: str, body: object, timeout_s: float | None = None
    ) -> httpx2.Response:
        try:
            return await self._http.request(method, path, json=body, timeout=timeout_s or CALL_S)
        except httpx2.HTTPError as error:
            raise self._lost(error) from error

    def _check(self, reply: httpx2.Response) -> None:
        if reply.status_code == httpx2.codes.NOT_FOUND:
            raise NotFound(self._said(reply))
        if reply.status_code == httpx2.codes.TOO_MANY_REQUESTS or reply.is_server_error:
            raise Retry(self._said(reply))
        if reply.is_error:
            raise Refused(self._said(reply))

    def _said(self, reply: httpx2.Response) -> str:
        return f"vLLM at {self.url} answered {reply.status_code}: {reply.text[:500]}"

    def _lost(self, error: Exception) -> Retry:
        return Retry(f"vLLM at {self.url} does not answer: {str(error) or type(error).__name__}")
