"""The server's metrics for Prometheus."""

from __future__ import annotations

from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

SECONDS_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
TEXTS_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Metrics of one server, in a separate registry."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        counter, histogram = partial(Counter, registry=registry), partial(Histogram, registry=registry)
        self.requests = counter("rag_ft_requests", "Responses, by path and status.", ["path", "status"])
        self.seconds = histogram(
            "rag_ft_request_seconds", "Time from request to response.", ["path"], buckets=SECONDS_BUCKETS
        )
        self.texts = counter("rag_ft_texts", "Embedded texts.", ["role"])
        self.tokens = counter("rag_ft_tokens", "Tokens that the model read.", ["role"])
        self.batch_texts = histogram("rag_ft_turn_texts", "Texts in a batch.", buckets=TEXTS_BUCKETS)
        self.batch_seconds = histogram("rag_ft_turn_seconds", "Time to encode a batch.", buckets=SECONDS_BUCKETS)
        self.queued = Gauge("rag_ft_queued_texts", "Texts waiting for the model.", registry=registry)

    def observe_batch(self, texts: int, seconds: float) -> None:
        """Record a batch that the model encoded."""
        self.batch_texts.observe(texts)
        self.batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
