"""`AdapterEmbeddingModel`: an embedding with an adapter of the old package for query vectors."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.constants import DEFAULT_EMBED_BATCH_SIZE

if TYPE_CHECKING:
    from llama_index.core.callbacks import CallbackManager


class AdapterEmbeddingModel(BaseEmbedding):
    """Any LlamaIndex embedding, with an adapter that maps its query vectors. Passage vectors do not change.

    It loads adapters of the old package and of `EmbeddingAdapterFinetuneEngine`. For adapters of
    `rag_ft.adapters.train_adapter` use `rag_ft.embedding.AdapterEmbedding`, which also loads their embedding.

    Args:
        base_embed_model: the embedding under the adapter.
        adapter_path: a folder with `config.json` and `pytorch_model.bin`.
        adapter_cls: the class of the adapter; `LinearLayer` if None.
        transform_query: whether to map query vectors.
        device: the torch device of the adapter; the CPU if None, because an adapter is small.
        embed_batch_size: number of texts per batch.
        callback_manager: LlamaIndex's callback manager.

    Raises:
        InputError: if the folder is not an adapter of this class.
    """

    _base_embed_model: BaseEmbedding = PrivateAttr()
    _adapter: Any = PrivateAttr()
    _transform_query: bool = PrivateAttr()
    _target_device: Any = PrivateAttr()

    def __init__(
        self,
        base_embed_model: BaseEmbedding,
        adapter_path: str | PathLike[str],
        adapter_cls: type[Any] | None = None,
        transform_query: bool = True,
        device: str | None = None,
        embed_batch_size: int = DEFAULT_EMBED_BATCH_SIZE,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        import torch

        from rag_ft.compat.adapter_modules import LinearLayer

        super().__init__(
            embed_batch_size=embed_batch_size,
            callback_manager=callback_manager,  # type: ignore[arg-type]
            model_name=f"Adapter for {base_embed_model.model_name}",
        )
        self._base_embed_model = base_embed_model
        self._target_device = torch.device(device or "cpu")
        self._adapter = (adapter_cls or LinearLayer).load(str(adapter_path)).to(self._target_device).eval()
        self._transform_query = transform_query

    @classmethod
    def class_name(cls) -> str:
        """Return the name with which LlamaIndex serialises the class."""
        return "AdapterEmbeddingModel"

    def _transformed(self, vector: list[float]) -> list[float]:
        import torch

        if not self._transform_query:
            return vector
        with torch.inference_mode():
            transformed: list[float] = self._adapter(torch.tensor(list(vector), device=self._target_device)).tolist()
        return transformed

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._transformed(self._base_embed_model._get_query_embedding(query))

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._transformed(await self._base_embed_model._aget_query_embedding(query))

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._base_embed_model._get_text_embedding(text)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await self._base_embed_model._aget_text_embedding(text)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._base_embed_model._get_text_embeddings(texts)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await self._base_embed_model._aget_text_embeddings(texts)


LinearAdapterEmbeddingModel = AdapterEmbeddingModel
"""The older name of the class."""
