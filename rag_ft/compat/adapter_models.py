"""`AdapterEmbeddingModel`: an embedding with an adapter of the old package's form over its queries."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.constants import DEFAULT_EMBED_BATCH_SIZE

if TYPE_CHECKING:
    from llama_index.core.callbacks import CallbackManager


class AdapterEmbeddingModel(BaseEmbedding):
    """Any LlamaIndex embedding whose query vectors go through an adapter; passages stay as they are.

    For folders of the old package and of `EmbeddingAdapterFinetuneEngine`. `rag_ft.AdapterEmbedding` is the one for
    adapters of `rag_ft.train_adapter`: it knows which embedding it belongs to.

    Args:
        base_embed_model: the embedding below.
        adapter_path: a folder with `config.json` and `pytorch_model.bin`.
        adapter_cls: the adapter's class; `LinearLayer` where None.
        transform_query: whether queries go through the adapter.
        device: a torch device of the adapter; the CPU where None, since it is small.
        embed_batch_size: texts that are embedded at once.
        callback_manager: LlamaIndex's.

    Raises:
        InputError: where the folder is no adapter of this class.
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
        """The name under which LlamaIndex serialises it."""
        return "AdapterEmbeddingModel"

    def _changed(self, vector: list[float]) -> list[float]:
        import torch

        if not self._transform_query:
            return vector
        with torch.inference_mode():
            found: list[float] = self._adapter(torch.tensor(list(vector), device=self._target_device)).tolist()
        return found

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._changed(self._base_embed_model._get_query_embedding(query))

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._changed(await self._base_embed_model._aget_query_embedding(query))

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._base_embed_model._get_text_embedding(text)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await self._base_embed_model._aget_text_embedding(text)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._base_embed_model._get_text_embeddings(texts)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await self._base_embed_model._aget_text_embeddings(texts)


LinearAdapterEmbeddingModel = AdapterEmbeddingModel
"""The older name."""
