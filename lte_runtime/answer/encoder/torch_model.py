"""Any encoder that transformers can load, in torch and float32: right for every architecture, and slower."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from lte_runtime.answer.encoder.model_files import ModelFiles
from lte_runtime.types import Vectors


class TorchModel:
    """Token vectors by `AutoModel`; safetensors only, no remote code, nothing from the network."""

    precision = "f32"
    streams = 1

    def __init__(self, files: ModelFiles) -> None:
        import torch
        from transformers import AutoModel

        self._torch = torch
        self._model = AutoModel.from_pretrained(
            files.transformer,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        ).eval()

    def run(
        self, batches: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]
    ) -> Iterator[Vectors]:
        """For each (ids, mask) [n, length] the token vectors [n, length, d], in order."""
        torch = self._torch
        for ids, mask in batches:
            with torch.inference_mode():
                out = self._model(
                    input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask.astype(np.int64))
                )
            yield np.asarray(out.last_hidden_state.numpy(), np.float32)
