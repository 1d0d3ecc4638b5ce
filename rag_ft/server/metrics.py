"""What the server counts, in Prometheus' form."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self.requests = Counter(
            "rag_ft_requests", "Answers, by path and status.", ["path", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "rag_ft_request_seconds", "From request to answer.", ["path"], buckets=SECONDS, registry=self._registry
        )
        self.texts = Counter("rag_ft_texts", "Texts that were embedded.", ["role"], registry=self._registry)
        self.tokens = Counter("rag_ft_tokens", "Tokens that the model read.", ["role"], registry=self._registry)
        self.turn_texts = Histogram(
            "rag_ft_turn_texts", "Texts that were encoded together.", buckets=TEXTS, registry=self._registry
        )
        self.turn_seconds = Histogram(
            "rag_ft_turn_seconds", "For texts that were encoded together.", buckets=SECONDS, registry=self._registry
        )
        self.queued = Gauge("rag_ft_queued_texts", "Texts that wait for the model.", registry=self._registry)

    def turn(self, texts: int, seconds: float) -> None:
        """Note what the model did at once."""
        self.turn_texts.observe(texts)
        self.turn_seconds.observe(seconds)

    def text(self) -> bytes:
        """All of them, to be scraped."""
        return generate_latest(self._registry)
