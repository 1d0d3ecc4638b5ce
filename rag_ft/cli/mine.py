"""`rag-ft mine`."""

from __future__ import annotations

from collections import Counter

from rag_ft.cli import options
from rag_ft.cli.console import begin, say
from rag_ft.cli.inputs import named_fields
from rag_ft.embedding.loading import DEFAULT_BASE_MODEL


def mine(
    dataset: options.Dataset,
    output: options.MinedDataset,
    by: options.MineBy = "both",
    model: options.MiningModel = DEFAULT_BASE_MODEL,
    count: options.NegativeCount = 3,
    margin: options.Margin = 0.95,
    cross_encoder: options.CrossEncoder = None,
    device: options.Device = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    field: options.Fields = None,
) -> None:
    """Find hard negatives: passages that look like an answer to a training question but are not one.

    A dataset without a dev split gets one, so that answers to dev questions do not become negatives.
    """
    show_progress = begin(quiet)
    from rag_ft.dataset.formats.beir import check_output, write_beir
    from rag_ft.dataset.formats.load import load_dataset
    from rag_ft.dataset.splitting import hold_out_dev
    from rag_ft.embedding.loading import load_sentence_transformer
    from rag_ft.training.examples.cross_encoder_filter import load_cross_encoder
    from rag_ft.training.examples.hard_negatives import mine_negatives

    check_output(output)
    mined = mine_negatives(
        hold_out_dev(load_dataset(dataset, fields=named_fields(field)), seed=seed),
        load_sentence_transformer(model, device=device) if by != "bm25" else None,
        by=by,
        count=count,
        margin=margin,
        cross_encoder=load_cross_encoder(cross_encoder, device) if cross_encoder is not None else None,
        show_progress=show_progress,
    )
    write_beir(mined, output)
    miners = Counter(miner for miners in mined.negative_sources.values() for miner in miners.values())
    counts = ", ".join(f"{number} by {miner}" for miner, number in sorted(miners.items())) or "none"
    say(f"negatives: {counts}, of {len(mined.require('train'))} questions\n{output}")
