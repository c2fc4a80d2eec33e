"""Selection rules that look at more than one row's score: turns of the queries, what a selection covers, copies.

Plain top-k crowds: one query's favourites, one source, near-copies of one example. These rules spread the budget.
"""

from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import Field
from tyro.conf import Suppress

from playpen.config import Input, PlaypenError, config
from playpen.progress import tqdm
from playpen.row_similarity import Measure, RowVectors, read_row_vectors
from playpen.selection_budget import Row, Walk, best_first, priorities, scores_of

BLOCK = 256
"""Rows compared with all others at once."""
AGAIN = 16
"""Rows whose gain is measured again at once when the best one's is out of date."""


@config
class RoundRobin(Walk):
    """Let the queries take turns; each picks the row that is best for it and still there.

    As LESS and RDS+ do over tasks (Ivison et al. 2025, arXiv 2503.01807, section 3): no query is left out because another has
    larger gradients. A query whose scores are all equal has no turn, for it would pick by the order of the rows.
    """

    kind: Suppress[Literal["round_robin"]] = "round_robin"
    order: Literal["drawn", "split"] = "drawn"
    """Order of the turns, the same in every round: drawn by the seed, or that of the query split, where one task stands after another, so
    that the last round, or the only one, may end before the last task's turns come."""

    def __call__(self, rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        """Return the order of the picks, then that of the scores; whose pick each row is, which of them, and its score there."""
        if "query_scores" not in rows:
            raise PlaypenError(
                "round_robin needs scores for each query: name an artifact of attribute, score or predict made with per_query"
            )
        matrix = np.stack(rows["query_scores"].to_numpy())
        turns = np.flatnonzero(np.ptp(matrix, axis=0) > 0)
        if not len(turns):
            raise PlaypenError(
                f"round_robin: each of {matrix.shape[1]} queries gives all rows the same score, so none has a choice"
            )
        if self.order == "drawn":
            turns = rng.permutation(turns)
        picks = self._picks(matrix, turns, self.cost(rows))
        query, turn = np.full(len(rows), -1), np.full(len(rows), -1)
        query[picks], turn[picks] = turns[np.arange(len(picks)) % len(turns)], np.arange(len(picks)) // len(turns)
        taken = query >= 0
        order = np.concatenate([picks, [row for row in best_first(rows, self.kind) if not taken[row]]]).astype(np.int64)
        there = matrix[np.arange(len(rows)), query]
        frame = {"priority": priorities(order, taken), "query": query, "turn": turn, "there": there, "queries": matrix.shape[1]}
        return pd.DataFrame(frame, index=rows.index)

    def _picks(self, matrix: np.ndarray, turns: np.ndarray, costs: np.ndarray) -> np.ndarray:
        """Return the rows picked, in order, until the budget is full or no row is left."""
        most = min(len(matrix), -(-self.limit // max(1, int(costs.min()))))  # no query is asked for more of its best rows
        favourites = [iter(_best(matrix[:, turn], most)) for turn in turns]
        taken, picks, spent = np.zeros(len(matrix), bool), [], 0
        while spent < self.limit and len(picks) < len(matrix):
            row = next(row for row in favourites[len(picks) % len(favourites)] if not taken[row])
            taken[row], spent = True, spent + costs[row]
            picks.append(row)
        return np.array(picks)

    def reason(self, row: Row, cut: float) -> str:
        """Say why a row is kept or not."""
        if row["query"] < 0:
            return "the budget was full before a query's turn came to it"
        name = f" ({row['query_name']})" if row.get("query_name") else ""
        pick = f"pick {row['turn'] + 1} of query {row['query'] + 1} of {row['queries']}{name}, whose score for it is {row['there']:.4g}"
        return pick if row["kept"] else f"{pick}, but it does not fit the budget"


def _best(values: np.ndarray, most: int) -> np.ndarray:
    """Return the places of the `most` highest values or, where the last of them ties, of more, highest first, ties by place."""
    least = np.partition(values, len(values) - most)[len(values) - most]
    places = np.flatnonzero(values >= least)
    return places[np.argsort(-values[places], kind="stable")]


@config
class FacilityLocation(Walk):
    """Keep helpful rows that together stand for the other helpful rows: greedy choice of the most helpful and most covering.

    With u(i) the share of rows that score lower than row i (ties count half), s(i, j) the cosine of two rows' features (0 where
    negative), n rows expected to be kept, and W the sum of all u, it maximises

        F(S) = (1 - diversity) / n * sum over j in S of u(j)  +  diversity / W * sum over all i of u(i) max over j in S of s(i, j)

    one row at a time, which is within 1 - 1/e of the best for a budget in rows (F is monotone and submodular: Nemhauser,
    Wolsey & Fisher 1978, theorem 4.1; facility location: Lin & Bilmes 2011, section 3). Gains are measured again only where
    they can matter (Minoux 1978), which changes nothing.
    """

    kind: Suppress[Literal["facility_location"]] = "facility_location"
    features: Input
    """What rows are compared by: an artifact of fingerprint, or one with a table `vectors`."""
    diversity: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Weight of what the selection covers; 0 is top-k, 1 looks at the scores only to weigh what is worth covering."""

    def __call__(self, rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        """Return the order of the picks, then that of the gains left; each pick's two gains, or the most that a row could add."""
        vectors, scores, costs = (
            read_row_vectors(self.features, rows, "cosine", self.kind),
            scores_of(rows, self.kind),
            self.cost(rows),
        )
        helpful = ((scores.rank() - 1) / max(len(rows) - 1, 1)).to_numpy()
        own = (1 - self.diversity) * helpful / max(1.0, self.limit / costs.mean())
        weight = self.diversity * helpful / max(helpful.sum(), 1e-12)
        picks, gain = lazy_greedy(vectors, own, weight, costs, self.limit)
        taken = np.zeros(len(rows), bool)
        taken[picks] = True
        order = np.concatenate([picks, [row for row in np.argsort(-gain, kind="stable") if not taken[row]]]).astype(np.int64)
        last = gain[picks[-1]]
        frame = {"priority": priorities(order, taken), "gain": gain, "own": own, "helpful": helpful, "last": last, "taken": taken}
        return pd.DataFrame(frame, index=rows.index)

    def reason(self, row: Row, cut: float) -> str:
        """Say why a row is kept or not."""
        if not row["taken"]:
            return f"adds at most {row['gain']:.3g} to what is kept, the last pick added {row['last']:.3g}"
        parts = f"{row['own']:.3g} by its score, above {row['helpful']:.0%} of rows, and {row['gain'] - row['own']:.3g} by what it covers"
        return f"adds {parts}" + ("" if row["kept"] else ", but it does not fit the budget")


def lazy_greedy(
    vectors: RowVectors, own: np.ndarray, weight: np.ndarray, costs: np.ndarray, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the picks in order, and float64 [n]: what a pick added when it was made, and the most that another row could add.

    A row j adds own[j] + sum over i of weight[i] (s(i, j) - the greatest s of i to a pick so far, or 0)+. Ties go to the row
    that stands first.
    """
    covered = np.zeros(len(vectors), np.float32)

    def gains(some: np.ndarray) -> np.ndarray:
        return own[some] + weight @ np.maximum(vectors.to(some) - covered[:, None], 0)

    blocks = np.split(np.arange(len(vectors)), range(BLOCK, len(vectors), BLOCK))
    bound = np.concatenate([gains(block) for block in tqdm(blocks, desc="comparing rows", disable=None, mininterval=1)])
    fresh, added, picks, spent = np.ones(len(bound), bool), np.zeros(len(bound)), [], 0
    with tqdm(total=limit, desc="facility_location", disable=None, mininterval=1) as bar:
        while spent < limit and len(picks) < len(bound):
            while not fresh[best := int(bound.argmax())]:
                near = np.argsort(-bound, kind="stable")[:AGAIN]
                stale = near[~fresh[near] & np.isfinite(bound[near])]
                bound[stale], fresh[stale] = gains(stale), True
            added[best], bound[best], fresh[:] = bound[best], -np.inf, False
            covered = np.maximum(covered, vectors.to(np.array([best]))[:, 0])
            picks.append(best)
            spent += int(costs[best])
            bar.update(int(costs[best]))
    return np.array(picks), np.where(np.isfinite(bound), bound, added)


@config
class Deduplicated(Walk):
    """Keep the best-scored rows, but none that overlaps a better row that is kept."""

    kind: Suppress[Literal["deduplicated"]] = "deduplicated"
    features: Input
    """What rows are compared by: an artifact of fingerprint, or one with a table `vectors`."""
    above: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Overlap from which on a row is passed over; lower passes more over."""
    measure: Measure = "cosine"
    """cosine of the features' strengths, or jaccard: features shared, of those that either row has."""

    def __call__(self, rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        """Return the order of the scores with what is passed over last; each row's greatest overlap with a better one, and whose."""
        vectors, order = read_row_vectors(self.features, rows, self.measure, self.kind), best_first(rows, self.kind)
        overlap, whose, asked = np.zeros(len(rows), np.float32), np.full(len(rows), -1), np.zeros(len(rows), bool)

        def passes(row: int) -> bool:
            asked[row] = True
            if overlap[row] > self.above:
                return True
            shared = vectors.to(np.array([row]))[:, 0]
            closer = (shared > overlap) & ~asked
            overlap[closer], whose[closer] = shared[closer], row
            return False

        taken = self.walk(rows, order, passes)
        like = np.where(whose >= 0, rows["row_id"].to_numpy()[whose], "")
        frame = {"priority": priorities(order, taken), "overlap": overlap, "like": like, "taken": taken}
        return pd.DataFrame(frame, index=rows.index)

    def reason(self, row: Row, cut: float) -> str:
        """Say why a row is kept or not."""
        if not row["taken"]:
            return f"overlaps row {row['like']}, which is better and kept, by {row['overlap']:.3f}, above {self.above:g}"
        fate = (
            f"overlaps no better row that is kept by more than {row['overlap']:.3f}" if row["kept"] else "but the budget is full"
        )
        return f"score {row['score']:.4g}, {fate}"
