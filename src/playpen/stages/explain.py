"""Explain a selection: which features moved each prediction, on which tokens they fire, and what the kept rows have in common.

    playpen explain --classifier runs/demo/classifier --sae runs/demo/sae --model runs/demo/base --data runs/demo/data \\
        --splits large_pool --selection runs/demo/pick_sae

Every row offered is fingerprinted again and its prediction taken apart: baseline plus contributions is its log-odds. For some kept
and some rejected rows the contributions are spread over the tokens on which the features fire. Written in shards, so that
a killed run goes on where it was.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PositiveInt

from playpen.config import Input, PlaypenError, config

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from playpen.feature_names import FeatureNames
    from playpen.fingerprints import Fingerprinter
    from playpen.machine import Machine
    from playpen.saved_classifier import SavedClassifier

VERSION = 1
RESUMABLE = True
SHARD_ROWS = 2000
TELLING = 0.99
"""Above this a prediction in float32 says less of its log-odds than the contributions do, so the two are not compared there."""


@config
class Config:
    """Why was each row picked, or not, and what do the picked ones have in common?"""

    classifier: Input
    """The classifier whose predictions are explained, of classify."""
    sae: Input
    """The SAE on whose features it was trained."""
    model: Input
    """The base model of the SAE; an adapter in it is left out."""
    data: Input
    """The data, of build-data."""
    splits: Annotated[tuple[str, ...], Field(min_length=1)] = ("large_pool",)
    """The splits that were selected from."""
    selection: Input
    """The selection to explain, of select."""
    names: Input | None = None
    """A dashboard of the SAE, of features: names each feature and is linked to; left out, the rows shown name the features."""
    neuronpedia: Annotated[str, Field(pattern=r"^[^/\s]+/\d+-[^/\s]+$")] | None = None
    """What Neuronpedia calls this SAE, as gemma-3-270m/12-gemmascope-2-res-16k; left out, nothing links there."""
    shown: PositiveInt = 50
    """Kept rows to explain token by token, and as many rejected ones, at even distances of rank from the first to the last."""


@dataclass(frozen=True)
class Job:
    """An explanation under way."""

    classifier: "SavedClassifier"
    fingerprinter: "Fingerprinter"
    text: Any
    """Tells the text of token ids."""
    rows: "pd.DataFrame"
    """Every row offered, by row_id: kept, rank, score, shown, in_sample, stratum."""
    out: Path

    @property
    def of_features(self) -> bool:
        """Whether contributions are of SAE features, which fire on tokens, not of statistics of the whole example."""
        return self.classifier.info["model"] != "statistics"


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write the tables `explained`, `contributions`, `firings`, `tokens` and `selection_features`, and `metrics.json`."""
    import pyarrow as pa

    from playpen.feature_names import open_names
    from playpen.fingerprints import COLUMNS
    from playpen.progress import tqdm
    from playpen.tables import iter_table, write_json, write_table

    job, names = open_job(config, out, machine), open_names(config.names, config.neuronpedia, config.sae, out)
    made, started = 0, time.monotonic()
    tables = (table for split in config.splits for table in iter_table(config.data, split, SHARD_ROWS, COLUMNS))
    with tqdm(total=len(job.rows), desc="explain", unit="row", disable=None, mininterval=1) as progress:
        for i, table in enumerate(tables):
            made += table.num_rows if explain_shard(job, table, f"shard-{i:05d}.parquet") else 0
            progress.update(table.num_rows)
    seconds = time.monotonic() - started
    features = selection_features(job, names)
    # Without pandas' own notes in the file, a link that is not there is read as none.
    write_table(
        out / "selection_features.parquet", pa.Table.from_pandas(features, preserve_index=False).replace_schema_metadata(None)
    )
    speed = {"seconds": round(seconds, 2), "rows_per_second": round(made / max(seconds, 1e-9), 2)}
    write_json(out / "metrics.json", {**measure(job, len(features)), **speed})


def open_job(config: Config, out: Path, machine: "Machine") -> Job:
    """Open everything, and refuse what does not fit before any work is done."""
    from playpen.contributions import check_explained
    from playpen.dashboard_data.token_text import TokenText
    from playpen.fingerprints import open_fingerprinter
    from playpen.models import check_tokens, load_tokenizer
    from playpen.saved_classifier import load_classifier
    from playpen.stages import predict

    check_tokens(config.data, config.model)
    classifier = load_classifier(config.classifier)
    check_explained(classifier, config.classifier)
    made, parts = classifier.info["fingerprint"], {name: getattr(config, name) for name in ("classifier", "sae", "model", "data")}
    predict.check_fingerprint(predict.Config(**parts), made)
    rows = read_rows(config, set(predict.held_out_predictions(config.classifier, classifier.info["name"])))
    fingerprinter = open_fingerprinter(config.sae, config.model, made["tokens"], made["k"], machine)
    return Job(classifier, fingerprinter, TokenText(load_tokenizer(config.model)), rows, out)


def read_rows(config: Config, learnt: set[str]) -> "pd.DataFrame":
    """Return every row offered, by row_id: kept, rank, score, shown, in_sample (in `learnt`) and stratum (source and length bin).

    Raises when the selection was made from other rows, or leaves nothing to compare.
    """
    from playpen.selection_budget import length_bin
    from playpen.tables import join, read_splits, read_table

    offered = read_splits(config.data, config.splits, ["row_id", "source", "num_tokens"])
    where = f"explain: {' + '.join(config.splits)} of {config.data} and the selection {config.selection}"
    chosen = read_table(config.selection, "selection", ["row_id", "kept", "rank", "score"])
    join(chosen, offered, where)
    rows = join(offered, chosen, where)
    if rows["kept"].all() or not rows["kept"].any():
        kept = "every row" if rows["kept"].all() else "no row"
        raise PlaypenError(
            f"{config.selection} keeps {kept}, so nothing tells kept rows from rejected ones; explain another selection"
        )
    rows["shown"] = rows["row_id"].isin(spread_ranks(rows, config.shown))
    rows["in_sample"] = rows["row_id"].isin(learnt)
    rows["stratum"] = rows["source"].astype(str) + "/" + length_bin(rows["num_tokens"]).astype(str)
    return rows.set_index("row_id", drop=False).rename_axis(None)


def spread_ranks(rows: "pd.DataFrame", shown: int) -> "set[str]":
    """Return the row_ids of `shown` kept and `shown` rejected rows (all, if there are fewer), at even distances of rank."""
    import numpy as np

    found: set[str] = set()
    for _, side in rows.sort_values("rank").groupby("kept"):
        places = np.linspace(0, len(side) - 1, min(shown, len(side))).round().astype(int)
        found |= set(side["row_id"].iloc[places])
    return found


def explain_shard(job: Job, table: "pa.Table", name: str) -> bool:
    """Write one shard of each table, unless it is there already; return whether it was made now."""
    import numpy as np
    import pyarrow as pa

    from playpen import explained_rows as tables
    from playpen.contributions import explain
    from playpen.fingerprints import fingerprint_rows
    from playpen.tables import write_table

    if (job.out / "explained" / name).exists():
        return False
    rows = job.rows.loc[table["row_id"].to_pylist()]
    # The rows shown go through the model by themselves, so that their tokens come from the same batches as their fingerprints.
    parts = [table.filter(pa.array(mask)) for mask in (rows["shown"].to_numpy(), ~rows["shown"].to_numpy())]
    order = np.argsort(np.argsort(~rows["shown"].to_numpy(), kind="stable"), kind="stable")
    prints = pa.concat_tables([fingerprint_rows(job.fingerprinter, part) for part in parts]).take(pa.array(order))
    found = explain(job.classifier, prints)
    contributions = tables.contribution_table(found, rows["row_id"].to_numpy())
    firings = tables.firing_table(job.fingerprinter, parts[0] if job.of_features else parts[0].slice(0, 0), contributions)
    explained = rows.assign(prediction=job.classifier.predict(prints), log_odds=found.log_odds, baseline=found.baseline)
    write_table(job.out / "firings" / name, firings)
    write_table(job.out / "tokens" / name, tables.token_table(parts[0], firings, job.text))
    write_table(job.out / "contributions" / name, contributions)
    write_table(
        job.out / "explained" / name, tables.as_table(explained, tables.EXPLAINED)
    )  # last: it tells that the shard is whole
    return True


def selection_features(job: Job, names: "FeatureNames") -> "pd.DataFrame":
    """Return the features that moved any prediction, compared between kept and rejected rows, named and linked."""
    from playpen.over_representation import compare_features, tally

    found = compare_features(tally(job.out, job.rows))
    if not job.of_features:
        from playpen.fingerprints import STATISTICS

        tokens = [[STATISTICS[i]] for i in found["feature"]]
        return with_names(found, [-1] * len(found), [""] * len(found), tokens, [{}] * len(found))
    d_sae, pooled = job.classifier.info["fingerprint"]["d_sae"], job.fingerprinter.tokens
    own = [int(i) % d_sae for i in found["feature"]]
    parts = [("prompt", "answer")[i // d_sae] if pooled == "both" else pooled for i in found["feature"]]
    seen = tokens_of(job) if names.tokens is None else {}
    tokens = [
        seen.get(int(i), []) if names.tokens is None else names.tokens.get(s, [])
        for i, s in zip(found["feature"], own, strict=True)
    ]
    return with_names(found, own, parts, tokens, [names.links(i) for i in own])


def with_names(
    found: "pd.DataFrame", own: list[int], parts: list[str], tokens: list[list[str]], links: list[dict[str, str]]
) -> "pd.DataFrame":
    """Add what a feature is called and where it is shown; its own number in the SAE is -1 for a statistic."""
    import pandas as pd

    places = {key: pd.array([link.get(key) for link in links], dtype="string") for key in ("dashboard", "neuronpedia")}
    return found.assign(sae_feature=pd.array(own, dtype="int32"), part=parts, tokens=pd.Series(tokens, dtype=object), **places)


def tokens_of(job: Job) -> dict[int, list[str]]:
    """Return the tokens on which each feature fires the most in the rows shown."""
    from playpen.feature_names import strongest_tokens
    from playpen.tables import read_table

    firings, tokens = read_table(job.out, "firings"), read_table(job.out, "tokens", ["row_id", "position", "token"])
    return strongest_tokens(firings.merge(tokens, on=["row_id", "position"]))


def measure(job: Job, features: int) -> dict[str, Any]:
    """Return what the tables hold in sum, and whether the explained predictions part kept rows from rejected ones at all."""
    import numpy as np
    from sklearn.metrics import roc_auc_score

    from playpen.tables import read_table

    rows = read_table(job.out, "explained")
    kept, told = rows[rows["kept"]], rows[(rows["prediction"] > 0) & (rows["prediction"] <= TELLING)]
    prediction = told["prediction"].to_numpy(np.float64)
    gaps = np.abs(told["log_odds"] - np.log(prediction / (1 - prediction)))
    return {
        "model": job.classifier.info["model"],
        "of": "features" if job.of_features else "statistics",
        "rows": len(rows),
        "kept": len(kept),
        "shown_kept": int(kept["shown"].sum()),
        "shown_rejected": int(rows["shown"].sum() - kept["shown"].sum()),
        "in_sample_rows": int(rows["in_sample"].sum()),
        "features": features,
        "baseline": float(rows["baseline"].iloc[0]),
        "kept_log_odds": float(kept["log_odds"].mean()),
        "rejected_log_odds": float(rows.loc[~rows["kept"], "log_odds"].mean()),
        "kept_auroc": float(roc_auc_score(rows["kept"], rows["log_odds"])),
        "compared_rows": len(told),
        "largest_gap": float(gaps.max()) if len(told) else None,
    }
