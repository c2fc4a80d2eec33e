"""Show the features of a SAE: a dashboard of what each is active on, promotes and tells apart.

    playpen features --sae runs/demo/sae --model runs/demo/base --data runs/demo/data --splits train pool

The base runs once over rows of the data, up to the SAE's hook; every active entry goes to disk, a chunk at a time. From these
files everything is computed exactly, a few features at a time: memory grows by 9 bytes a token, and by 12 for each active entry
of the features of one shard. The result is a page that opens from disk, `index.html`, and the files that it reads:
docs/dashboard_format.md.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from playpen.config import Input, PlaypenError, config

if TYPE_CHECKING:
    import numpy as np

    from playpen.dashboard_data.corpus import Corpus
    from playpen.dashboard_data.describe import Study
    from playpen.dashboard_data.entries import Chunk
    from playpen.dashboard_data.exports import Batches, Neuronpedia
    from playpen.dashboard_data.near_misses import NearMisses
    from playpen.dashboard_data.opening import Opened
    from playpen.dashboard_data.shards import Maker
    from playpen.dashboard_data.stopwatch import Stopwatch
    from playpen.machine import Machine

VERSION = 3
RESUMABLE = True
PARTNERS = 10
"""Neighbours and correlated features listed of each feature."""


@config
class Config:
    """What is each feature of a SAE active on, what does it promote, and what does it tell apart?"""

    sae: Input
    """The SAE, of train-sae or load-sae."""
    model: Input
    """The base model that the SAE was made for; an adapter in it is left out."""
    data: Input
    """Where the rows come from: a corpus of mix-corpus or the data of build-data."""
    splits: tuple[str, ...] = ("train", "pool")
    """Splits of the data; a corpus is read whole."""
    tokens: PositiveInt | None = 1_000_000
    """Tokens to look at, in whole rows drawn at random; null (None) takes all."""
    features: PositiveInt | tuple[NonNegativeInt, ...] | None = None
    """Features to show: one number takes the first so many, several are ids; null (None) takes all."""
    top: PositiveInt = 20
    """Strongest examples of a feature, at most one a document."""
    group: NonNegativeInt = 3
    """Examples of each of its ten quantile groups and ten intervals."""
    random: NonNegativeInt = 10
    """Examples drawn from all of its active tokens."""
    near: NonNegativeInt = 10
    """Near misses, at most one a document."""
    window: PositiveInt = 16
    """Tokens shown on either side of the peak."""
    shard_features: PositiveInt = 32
    """Features in one data file of the page."""
    exports: tuple[Literal["json", "neuronpedia"], ...] = ()
    """Copies for other programs: features.jsonl.gz, and SAEDashboard's neuronpedia/batch-N.json."""
    neuronpedia: Annotated[str, Field(pattern=r"^[^/\s]+/\d+-[^/\s]+$")] | None = None
    """What Neuronpedia calls this SAE, as gemma-3-270m/12-gemmascope-2-res-16k; left out, the page does not link to it."""
    title: str = "Features"
    """Title of the page."""
    seed: NonNegativeInt = 0
    """Seed of the rows, the random examples and the map."""


@dataclass(frozen=True)
class Job:
    """A dashboard under way."""

    config: Config
    opened: "Opened"
    corpus: "Corpus"
    features: "np.ndarray"
    """int64 [f]: ids of the features to show, ascending."""
    named: "Neuronpedia | None"
    """How Neuronpedia calls the SAE, when its format is wanted."""
    out: Path
    work: Path
    """Where the passes keep what they need; removed at the end."""
    machine: "Machine"
    watch: "Stopwatch"


def run(config: Config, out: Path, machine: "Machine") -> None:
    """Write `index.html`, `data/`, `features.parquet`, `serve.json`, the exports and `metrics.json`."""
    from playpen.tables import write_json

    work = out / "work"
    if not (out / "metrics.json").exists():  # else a run was killed while it cleared up
        job = start(config, out, work, machine)
        maker = prepare(job, *encode(job))
        rows, places = describe(job, maker)
        write_dashboard(job, maker, rows, places)
        write_json(out / "metrics.json", measure(job, maker, rows))
    shutil.rmtree(work, ignore_errors=True)


def start(config: Config, out: Path, work: Path, machine: "Machine") -> Job:
    """Open everything, and refuse what does not fit before any work is done."""
    from playpen.dashboard_data.opening import open_parts
    from playpen.dashboard_data.stopwatch import Stopwatch

    opened = open_parts(config.sae, config.model, config.data, machine)
    features, named = choose_features(config.features, opened.d_sae), export_name(config, opened)
    corpus = read_corpus(config, opened)
    work.mkdir(exist_ok=True)
    return Job(config, opened, corpus, features, named, out, work, machine, Stopwatch(work / "seconds.json"))


def choose_features(wanted: int | tuple[int, ...] | None, d_sae: int) -> "np.ndarray":
    """Return the ids of the features to show, ascending. Raises when one is not there or stands twice."""
    import numpy as np

    ids = np.arange(d_sae) if wanted is None else np.arange(wanted) if isinstance(wanted, int) else np.unique(wanted)
    if not isinstance(wanted, int | None) and len(ids) != len(wanted):
        raise PlaypenError(f"features: {len(wanted)} ids are given, but only {len(ids)} different ones; name each once")
    if not len(ids) or ids[-1] >= d_sae:
        raise PlaypenError(f"features: the SAE has features 0 to {d_sae - 1}, found {f'id {ids[-1]}' if len(ids) else 'none'}")
    return ids


def read_corpus(config: Config, opened: "Opened") -> "Corpus":
    """Read the rows to look at."""
    from playpen.dashboard_data.corpus import draw_rows, make_corpus
    from playpen.token_rows import read_token_rows

    rows = draw_rows(read_token_rows(config.data, config.splits), opened.bos, config.tokens, config.seed)
    if not len(rows):
        raise PlaypenError(f"{config.data} holds no row of tokens; give a corpus, or splits that are not empty")
    longest = max(map(len, rows.ids))
    if longest > opened.longest:
        raise PlaypenError(
            f"{config.data} has a row of {longest} tokens, but {config.model} reads at most {opened.longest}; make shorter rows"
        )
    return make_corpus(rows, opened.bos)


def encode(job: Job) -> "tuple[list[Chunk], NearMisses]":
    """Pass one: run the model and the SAE over the corpus, a chunk at a time; whole chunks are kept."""
    from playpen.dashboard_data.entries import encode_chunk, plan_chunks
    from playpen.dashboard_data.near_misses import NearMisses
    from playpen.progress import tqdm

    opened, corpus = job.opened, job.corpus
    chunks = plan_chunks(corpus, job.work, opened.d_sae)
    near = NearMisses(job.features, job.config.near, corpus, job.machine.torch_device())
    with tqdm(total=len(corpus.ids), desc="features: encode", unit="token", unit_scale=True, disable=None, mininterval=1) as bar:
        for i, chunk in enumerate(chunks):
            if not chunk.path.exists():
                with job.watch("encode"):
                    encode_chunk(opened.model, opened.hook, opened.sae, corpus, chunk, near, job.machine)
            elif i + 1 == len(chunks) or not chunks[i + 1].path.exists():
                near.load(chunk.near_file())
            bar.update(int(corpus.starts[chunk.rows.stop] - corpus.starts[chunk.rows.start]))
    return chunks, near


def prepare(job: Job, chunks: "list[Chunk]", near: "NearMisses") -> "Maker":
    """Relate the features to each other, and gather what they are described with."""
    import numpy as np

    from playpen.dashboard_data.describe import Study
    from playpen.dashboard_data.encoding import decoder_directions
    from playpen.dashboard_data.examples import Amounts
    from playpen.dashboard_data.logit_lens import find_lens
    from playpen.dashboard_data.relations import correlated, neighbours
    from playpen.dashboard_data.shards import Maker
    from playpen.dashboard_data.statistics import bin_positions
    from playpen.dashboard_data.token_text import TokenText

    config, opened, corpus, directions = job.config, job.opened, job.corpus, decoder_directions(job.opened.sae)
    with job.watch("relate"):
        closest = neighbours(directions, job.features, PARTNERS)
        together = correlated(chunks, job.features, corpus.num_tokens, PARTNERS)
    amounts = Amounts(config.top, config.group, config.random, config.near, config.window)
    study = Study(
        corpus=corpus,
        features=job.features,
        occurrences=np.bincount(corpus.ids[corpus.counted], minlength=opened.vocabulary),
        positions=bin_positions(corpus),
        near_value=near.value,
        near_token=near.token,
        neighbours=closest,
        correlated=together,
        amounts=amounts,
        seed=config.seed,
    )
    lens, text = find_lens(opened.model, opened.hook, len(opened.tokenizer)), TokenText(opened.tokenizer)
    return Maker(study, chunks, directions, lens, text, config.shard_features, job.out, job.work, batches(job, study, directions))


def batches(job: Job, study: "Study", directions: Any) -> "Batches | None":
    """Return what writes Neuronpedia's files, when they are wanted."""
    from playpen.dashboard_data.exports import Batches
    from playpen.models import model_name

    if job.named is None:
        return None
    place = directions.cpu().numpy()
    name = model_name(job.config.data)
    return Batches(job.named, study.features, study.correlated, place, study.corpus, name, job.out / "neuronpedia")


def describe(job: Job, maker: "Maker") -> "tuple[list[dict[str, Any]], np.ndarray]":
    """Pass two: write the shards; whole ones are kept. Returns the rows of the list and the places [f, 2] on the map."""
    from playpen.progress import tqdm

    places = maker.start_map(job.config.seed)
    with tqdm(total=len(job.features), desc="features: describe", unit="feature", disable=None, mininterval=1) as bar:
        for number in range(maker.count()):
            if maker.script(number).exists():
                bar.update(len(maker.places(number)))
                continue
            with job.watch("describe"):
                maker.make(number, bar.update)
    with job.watch("map"):
        return maker.rows(), places()


def write_dashboard(job: Job, maker: "Maker", rows: "list[dict[str, Any]]", places: "np.ndarray") -> None:
    """Write all that is not a shard: the list, the page, what the local server needs, and the exports."""
    from playpen.dashboard.page import write_page
    from playpen.dashboard_data.exports import write_lines
    from playpen.dashboard_data.listing import write_list
    from playpen.tables import write_json

    config, out = job.config, job.out
    if "json" in config.exports:
        write_lines([maker.script(number) for number in range(maker.count())], out / "features.jsonl.gz")
    write_list(out, make_meta(job, maker), rows, places, maker.search())
    beside = {name: os.path.relpath(path, out.resolve()) for name, path in (("sae", config.sae), ("model", config.model))}
    write_json(out / "serve.json", beside)
    write_page(out, config.title)


def export_name(config: Config, opened: "Opened") -> "Neuronpedia | None":
    """Return how Neuronpedia calls the SAE, when its format is wanted."""
    from playpen.dashboard_data.exports import neuronpedia_name
    from playpen.models import model_name

    if "neuronpedia" not in config.exports:
        return None
    return neuronpedia_name(config.neuronpedia, opened.hook.name, model_name(config.model), model_name(config.sae))


def make_meta(job: Job, maker: "Maker") -> dict[str, Any]:
    """Return what the meta file says, but its format."""
    from playpen.artifact import read_manifest
    from playpen.dashboard_data.encoding import WITH_PRE_ACTIVATIONS
    from playpen.dashboard_data.listing import categories, columns, sides_length_auroc, sources
    from playpen.models import model_name
    from playpen.tables import read_metrics

    config, corpus, info = job.config, job.corpus, job.opened.info
    sae = {"hook": job.opened.hook.name, "architecture": info.architecture, "d_in": info.d_in, "d_sae": info.d_sae}
    sae |= {"fingerprint": read_manifest(config.sae)["fingerprint"], "metrics": read_metrics(config.sae)}
    link = None if config.neuronpedia is None else f"https://www.neuronpedia.org/{config.neuronpedia}/{{id}}"
    return {
        "title": config.title,
        "sae": sae,
        "model": model_name(config.model),
        "corpus": {"tokens": corpus.num_tokens, "rows": len(corpus.document_of), "documents": len(corpus.documents)},
        "sources": sources(corpus),
        "categories": categories(corpus),
        "length_auroc": sides_length_auroc(corpus),
        "num_features": len(job.features),
        "shard_features": maker.size,
        "num_shards": maker.count(),
        "columns": columns(corpus),
        "lens": maker.lens if isinstance(maker.lens, str) else None,
        "near": None
        if info.architecture in WITH_PRE_ACTIVATIONS
        else f"a SAE of kind {info.architecture} has no pre-activations",
        "neuronpedia": link,
    }


def measure(job: Job, maker: "Maker", rows: "list[dict[str, Any]]") -> dict[str, float | None]:
    """Return sizes, speeds and shares; seconds are of all runs that it took."""
    from playpen import resident_memory
    from playpen.dashboard_data.describe import DEAD, DENSE, SINGLE_TOKEN

    corpus, n, phases = job.corpus, len(rows), job.watch.seconds
    shares = {"dead_fraction": DEAD, "dense_fraction": DENSE, "single_token_fraction": SINGLE_TOKEN}
    page = [maker.out / "index.html", *(maker.out / "data").iterdir()]
    return {
        "tokens": corpus.num_tokens,
        "rows": len(corpus.document_of),
        "documents": len(corpus.documents),
        "features": n,
        **{name: sum(bool(row["flags"] & flag) for row in rows) / n for name, flag in shares.items()},
        **{f"seconds/{phase}": round(value, 2) for phase, value in phases.items()},
        "seconds": round(sum(phases.values()), 2),
        "features_per_second": round(n / max(sum(phases.values()), 1e-9), 2),
        "tokens_per_second": round(corpus.num_tokens / max(phases.get("encode", 0), 1e-9)),
        "peak_rss": resident_memory.peak(),
        "page_bytes": sum(file.stat().st_size for file in page),
    }
