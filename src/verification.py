"""Verification: every pair of a test set scored, metrics with intervals that respect shared people.

A score is the cosine of two embeddings; a pair is accepted where its score reaches the threshold. Terms as in
ISO/IEC 19795-1, with the names face recognition uses: a genuine pair shows one person, an impostor pair two;
FAR (false match rate) is the share of impostor pairs accepted, FRR (false non-match rate) that of genuine
pairs rejected, TAR = 1 - FRR; FTE is the share of photos a model gives no embedding for.
"""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import special, stats

from src.pairs import (
    STEPS,
    STRATA,
    Counts,
    Results,
    Trials,
    check_people,
    checked,
    count,
    evaluate,
    genuine_pairs,
    hardest,
    test_sets,
    trials,
)

__all__ = [
    "Trials",
    "at_thresholds",
    "auc",
    "discard",
    "evaluate",
    "given_away",
    "hardest",
    "has_pairs",
    "histogram",
    "interval",
    "no_face",
    "report",
    "roc",
    "summary",
    "test_sets",
    "thresholds",
    "trials",
    "warnings",
]

_TESTS = {"test_seen": "New photos of people in training", "test_unseen": "People who appear nowhere else"}
_CHANCE = 0.6  # AUC from which the no-face control is clearly above chance, if its interval is above 0.5
FARS = {f"tar_far_1e-{digits}": 10.0**-digits for digits in (1, 2, 3, 4)}
_LOG_ODDS = 4.0  # half-width of an interval beyond which log odds are no longer near normal
SUPPORT = (
    30  # impostor pairs that must be expected above a threshold for its FAR to be reported ("rule of 30")
)


def auc(embeddings: np.ndarray, identity: np.ndarray) -> float:
    """AUC over all pairs of unit rows [N, D], of which those with the same identity [N] are genuine."""
    if np.shape(identity) != (len(embeddings),):
        raise ValueError(f"{len(embeddings)} embeddings, but identities {list(np.shape(identity))}")
    codes = pd.factorize(np.asarray(identity))[0].astype(np.int64)
    if (codes < 0).any():
        raise ValueError(f"the identity of row {codes.argmin()} is missing ({(codes < 0).sum()} in all)")
    check_people(codes, "the set of embeddings")
    n = len(codes)
    chosen = Trials("", np.arange(n), codes, (), np.full(n, 2, np.int8), np.full(n, -1))
    vectors = checked(embeddings, chosen.rows, "the model")
    everything = np.ones(n, bool)
    counts = count(vectors, chosen, everything, np.isnan(vectors[:, 0]))["all"]
    return float(_area(*_rates(counts.genuine, counts.impostor)))


def has_pairs(identity: np.ndarray | pd.Series) -> bool:
    """Whether photos of these people [N] make pairs of both kinds: two people, and two photos of one."""
    counts = np.unique(np.asarray(identity), return_counts=True)[1]
    return len(counts) > 1 and counts.max() > 1


def report(results: Results, baseline: str | None = None) -> pd.DataFrame:
    """One row per test set, stratum and model: measures with 95 % intervals, differences to the baseline's.

    baseline: the model that the others are compared with (default: the first). `<measure>_low` and `_high`
    bound the measure, `<measure>_difference` is the model's less the baseline's on the same pairs, with
    `_difference_low`, `_difference_high` and its p-value `_difference_p`. A TAR whose FAR the pairs cannot
    support is NaN, and `unsupported` names it; so is an interval with fewer than three people.
    pauc is the mean TAR over FAR from 0 to 0.1, d_prime that of the pairs without failures to enrol, fte the
    model's own failures per photo, excluded the photos dropped for all models because one of them fails.
    Raises ValueError where there are no results or the baseline is not among the models.
    """
    if not results:
        raise ValueError("there are no results to report")
    rows = []
    for test, models in results.items():
        reference = baseline or next(iter(models))
        if reference not in models:
            raise ValueError(f"the baseline {reference!r} is not among the models: {', '.join(models)}")
        for quality in STRATA:
            measured = {
                name: _measure(strata[quality]) for name, strata in models.items() if quality in strata
            }
            for name, (row, left_out, weights) in measured.items():
                head = {"model": name, "test": test, "quality": quality, "baseline": reference}
                compared = _compare(row, left_out, measured[reference], weights)
                rows.append(head | row | compared)
    return pd.DataFrame(rows)


def thresholds(models: Mapping[str, Mapping[str, Counts]], target_far: float) -> pd.DataFrame:
    """The lowest threshold of each model whose FAR on these results, those of `val`, is at most `target_far`.

    One row per model, with the FAR and TAR there. Scores at or above the threshold are accepted; apply it to
    the test sets with `at_thresholds`. `note` says where the impostor pairs are too few for such a FAR, or
    where there are no scores to choose on; then the threshold is NaN and accepts nothing.
    """
    if not 0 < target_far < 1:
        raise ValueError(f"target_far is {target_far}; it must lie between 0 and 1")
    rows = []
    for name, strata in models.items():
        counts = strata["all"]
        fars = _rates(counts.genuine, counts.impostor)[0][1:]
        allowed = int((fars <= target_far).sum())  # of the scores, from the highest
        scores = counts.score[np.isfinite(counts.score)]
        threshold = np.nan
        if len(scores):
            edges = np.concatenate([scores[:1] - 1 / STEPS, scores, scores[-1:] + 1 / STEPS])
            at = max(len(scores) - allowed, 0)
            threshold = float((edges[at] + edges[at + 1]) / 2)  # half-way to the next, clear of rounding
        far, tar = (_accepted(counts, part, threshold)[0] for part in (counts.impostor, counts.genuine))
        pairs = int(counts.impostor.sum())
        note = "" if pairs * target_far >= SUPPORT else f"{pairs} impostor pairs are few for this FAR"
        note = note if len(scores) else "no pair has a score"
        rows.append((name, target_far, threshold, far, tar, int(counts.genuine.sum()), pairs, note))
    columns = ["model", "target_far", "threshold", "far", "tar", "genuine", "impostor", "note"]
    return pd.DataFrame(rows, columns=columns)


def at_thresholds(results: Results, chosen: pd.DataFrame) -> pd.DataFrame:
    """FAR and TAR, with 95 % intervals, at the thresholds that `thresholds` chose on `val`."""
    rows = []
    for test, models in results.items():
        for line in chosen.to_dict("records"):
            for quality, counts in models[line["model"]].items():
                row = {"model": line["model"], "test": test, "quality": quality}
                row |= {name: line[name] for name in ("threshold", "target_far")}
                for name, part, units in (
                    ("far", counts.impostor, counts.unit_impostor),
                    ("tar", counts.genuine, counts.unit_genuine),
                ):
                    row[name], accepted = _accepted(counts, part, line["threshold"])
                    # of a unit's pairs in the coarse code that the threshold cuts, as many as of all pairs
                    whole = _coarse(counts, part)
                    share = np.nan_to_num(_ratio(_coarse(counts, part * accepted), whole))
                    left_out = _ratio((whole - units) @ share, (whole - units).sum(1))
                    row[f"{name}_low"], row[f"{name}_high"] = interval(row[name], left_out, units.sum(1))
                rows.append(row)
    return pd.DataFrame(rows)


def roc(models: Mapping[str, Mapping[str, Counts]], quality: str = "all", points: int = 200) -> pd.DataFrame:
    """ROC curves for drawing: per model, FAR and TAR with the 95 % interval of the TAR, `low` and `high`.

    The FARs are spaced evenly on a log scale, from the lowest that the pairs support to 1. `auc` is the
    model's own.
    """
    tables = []
    for name, strata in models.items():
        if quality not in strata:
            continue
        counts = strata[quality]
        far, tar = _rates(counts.genuine, counts.impostor)
        fars = np.geomspace(min(1.0, SUPPORT / max(counts.impostor.sum(), 1)), 1, points)
        left_out = np.array(
            [np.interp(fars, *curve) for curve in zip(*_rates(*_without_each(counts)), strict=True)]
        )
        tars = np.interp(fars, far, tar)
        weights = counts.unit_genuine.sum(1)
        bounds = [interval(value, left_out[:, i], weights) for i, value in enumerate(tars)]
        low, high = np.array(bounds).T
        table = {"model": name, "far": fars, "tar": tars, "low": low, "high": high, "auc": _area(far, tar)}
        tables.append(pd.DataFrame(table))
    if not tables:
        raise ValueError(f"there are no {quality} pairs")
    return pd.concat(tables, ignore_index=True)


def histogram(counts: Counts, bins: int = 100) -> pd.DataFrame:
    """Densities of genuine and impostor scores: `score`, the middle of a bin, `genuine` and `impostor`."""
    scored = np.isfinite(counts.score)
    if not scored.any():
        raise ValueError("there are no scores: every pair has a failure to enrol")
    score = counts.score[scored]
    edges = np.linspace(score[0] - 1e-6, score[-1] + 1e-6, bins + 1)
    table = {"score": (edges[1:] + edges[:-1]) / 2}
    for name, part in (("genuine", counts.genuine), ("impostor", counts.impostor)):
        table[name] = (
            np.histogram(score, edges, weights=part[scored])[0] / max(part.sum(), 1) / np.diff(edges)
        )
    return pd.DataFrame(table)


def discard(
    embeddings: Mapping[str, np.ndarray],
    test: Trials,
    measure: np.ndarray,
    chosen: pd.DataFrame,
    steps: int = 20,
) -> pd.DataFrame:
    """Error versus discard: each model's FRR at its threshold when the worst photos are dropped.

    measure: [N], a quality of each row of the embeddings, higher is better. chosen: as of `thresholds`.
    One row per model and share of photos `discarded`, from 0 up: `frr`, NaN where too few pairs are left to
    tell, and how many `genuine` pairs there are.
    The method is that of Grother & Tabassi, "Performance of biometric quality measures", 2007.
    """
    if len(measure) != len(next(iter(embeddings.values()))):
        raise ValueError(
            f"{len(measure)} quality values, but {len(next(iter(embeddings.values())))} embeddings"
        )
    quality = np.nan_to_num(np.asarray(measure, float)[test.rows], nan=-np.inf)
    step = np.argsort(np.argsort(quality, kind="stable"), kind="stable") * steps // len(quality)
    rows = []
    for line in chosen.itertuples():
        vectors = checked(embeddings[str(line.model)], test.rows, str(line.model))
        counts = np.zeros((2, steps), np.int64)  # [rejected, accepted] by the step that drops the pair
        for a, b in genuine_pairs(test):  # NaN, where a photo has no embedding, is not accepted
            accepted = np.einsum("id,id->i", vectors[a], vectors[b]) >= line.threshold
            np.add.at(counts, (accepted.astype(int), np.minimum(step[a], step[b])), 1)
        left = counts[:, ::-1].cumsum(1)[:, ::-1]
        frrs = np.where(left.sum(0) >= SUPPORT, _ratio(left[0], left.sum(0)), np.nan)
        for i, frr in enumerate(frrs):
            rows.append((line.model, i / steps, frr, left[:, i].sum()))
    return pd.DataFrame(rows, columns=["model", "discarded", "frr", "genuine"])


def no_face(crops: np.ndarray, ring: int = 12, levels: int = 8) -> np.ndarray:
    """The no-face control: unit rows [N, levels**3] from the colours of a ring along each crop's border.

    crops: uint8 [N, H, W, 3] RGB. The face is left out, so that what this tells apart is background, light
    and camera. Rows are square roots of colour histograms; their cosine is the Bhattacharyya coefficient.
    """
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[-1] != 3:
        raise ValueError(f"crops must be uint8 [N, H, W, 3] RGB, not {crops.dtype} {list(crops.shape)}")
    border = np.ones(crops.shape[1:3], bool)
    border[ring:-ring, ring:-ring] = False
    rows = np.empty((len(crops), levels**3), np.float32)
    for i, crop in enumerate(crops):
        pixels = crop[border].astype(np.int64)
        pixels = pixels[pixels.any(1)]  # aligning fills with black what lies outside the photo
        rows[i] = np.bincount(pixels * levels // 256 @ (levels**2, levels, 1), minlength=levels**3)
        rows[i] += not len(pixels)
    return np.sqrt(rows / rows.sum(1, keepdims=True))


def given_away(control: np.ndarray, faces: pd.DataFrame, least: float = 0.75) -> pd.DataFrame:
    """Folders whose photos the no-face control recognises: where background or light give people away.

    control: unit rows [N, D] of `no_face`, row i of `faces`. For every folder with two photos or more, the
    AUC of the pairs inside it (near-duplicates aside) against those of its photos with other people's.
    Columns folder, photos, auc, the highest first; folders below `least` are left out.
    """
    folders = faces["path"].str.rpartition("/")[0]
    identity, group = faces["identity"].to_numpy(), faces["group"].to_numpy()
    edges = np.linspace(-1, 1, 4097)
    rows = []
    for folder, inside in folders.groupby(folders).indices.items():
        scores = np.clip(control[inside] @ control.T, -1, 1)
        first = np.tri(len(inside), k=-1, dtype=bool)
        apart = group[inside][:, None] != group[inside]
        genuine = np.histogram(scores[:, inside][first & apart], edges)[0]
        impostor = np.histogram(scores[:, identity != identity[inside[0]]], edges)[0]
        if genuine.any() and impostor.any():
            rows.append((folder, len(inside), float(_area(*_rates(genuine, impostor)))))
    table = pd.DataFrame(rows, columns=["folder", "photos", "auc"])
    return table[table["auc"] >= least].sort_values("auc", ascending=False, ignore_index=True)


def warnings(table: pd.DataFrame, control: str = "no face") -> list[str]:
    """A sentence for each test set of the report where the no-face control is clearly above chance."""
    sentences = []
    able = table[(table["model"] == control) & (table["auc"] >= _CHANCE) & (table["auc_low"] > 0.5)]
    for test, part in able.groupby("test", sort=False):
        reached = [f"{_bounded(line, 'auc')} on {line['quality']} pairs" for line in part.to_dict("records")]
        sentences.append(
            f"The colours of the crops' borders alone reach AUC {', '.join(reached)} of {test}: background "
            "and light tell people apart there, and any model's AUC may owe them a part."
        )
    return sentences


def summary(
    table: pd.DataFrame, rates: pd.DataFrame | None = None, model: str | None = None, control: str = "no face"
) -> str:
    """The report in words, as Markdown: which model is better, by how much, how sure, at which threshold.

    table: of `report`; rates: of `at_thresholds`; model: the one compared with the baseline (default:
    the last that is not the control). Pairs of high with low quality are the headline where they are enough
    for an interval, else all pairs. Where another model does best of all, it is named, with how many times
    less its error, 1 - AUC, is; where there are pairs of good photos, what the model gains or loses there.
    """
    names = [name for name in table["model"].unique() if name != control]
    model, baseline = model or names[-1], str(table["baseline"].iloc[0])
    parts = []
    for test in (name for name in table["test"].unique() if name != "val"):
        lines = table[(table["test"] == test) & table["auc"].notna()].set_index(["quality", "model"])
        able = lines[np.isfinite(lines["auc_low"])].index
        quality = "high-low" if ("high-low", model) in able else "all"
        if (quality, model) not in lines.index:
            parts.append(f"- {_TESTS.get(test, test)}: there are no pairs to compare.")
            continue
        new, old = (dict(lines.loc[(quality, name)]) for name in (model, baseline))
        text = f"- {_TESTS.get(test, test)}, {quality} pairs of {new['people']} people: "
        text += _verdict(new, old, model, baseline)
        for name, line in ((baseline, old), (model, new)):
            if line["fte"] > 0:
                text += f" {name} gives no embedding for {line['fte']:.1%} of the photos: they match nothing."
        if rates is not None:
            at = rates[(rates["test"] == test) & (rates["quality"] == quality)].set_index("model")
            for name in (model, baseline):
                line = dict(at.loc[name])
                text += (
                    f" At threshold {line['threshold']:.3f}, chosen on val for FAR {line['target_far']:.2%}, "
                    f"{name} accepts {_bounded(line, 'tar', '.2%')} of genuine and "
                    f"{_bounded(line, 'far', '.2%')} of impostor pairs."
                )
        ranked = lines.loc[quality].drop(index=control, errors="ignore")["auc"]
        best = str(ranked.idxmax())
        if best not in (model, baseline) and ranked[best] > max(new["auc"], old["auc"]):
            top = dict(lines.loc[(quality, best)])
            text += f" Best of all models there: {best}, AUC {_bounded(top, 'auc')}, "
            text += f"{(1 - old['auc']) / max(1 - top['auc'], 1e-6):.1f} times less error than {baseline}."
        if ("high-high", model) in able:
            good, before = (dict(lines.loc[("high-high", name)]) for name in (model, baseline))
            text += f" On pairs of two good photos: {_verdict(good, before, model, baseline)}"
        parts.append(text)
    return "\n".join([*parts, *(f"- **Beware.** {sentence}" for sentence in warnings(table, control))])


def _verdict(new: Mapping[Hashable, Any], old: Mapping[Hashable, Any], model: str, baseline: str) -> str:
    p, low, high = (new[f"auc_difference_{end}"] for end in ("p", "low", "high"))
    scores = f"AUC {_bounded(new, 'auc')} against {_bounded(old, 'auc')}"
    if not np.isfinite(p):
        return f"{scores}; the people are too few to say whether {model} and {baseline} really differ."
    certainty = f"95 % interval {low:+.3f} to {high:+.3f}, p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}"
    if p >= 0.05:
        return f"**no significant difference** between {model} and {baseline}: {scores} ({certainty})."
    better = "better" if new["auc_difference"] > 0 else "worse"
    by = abs(new["auc_difference"])
    return f"**{model} is {better} than {baseline}** by {by:.3f} ({certainty}): {scores}."


def _bounded(line: Mapping[Hashable, Any], name: str, form: str = ".3f") -> str:
    value, low, high = (line[f"{name}{end}"] for end in ("", "_low", "_high"))
    return f"{value:{form}}" + (f" [{low:{form}}, {high:{form}}]" if np.isfinite(low + high) else "")


Measured = tuple[dict[str, Any], dict[str, np.ndarray], np.ndarray]


def _measure(counts: Counts) -> Measured:
    """A row of the report, and what its differences need: measures with a unit left out, units' weights."""
    genuine, impostor = int(counts.genuine.sum()), int(counts.impostor.sum())
    row: dict[str, Any] = {
        "people": counts.people,
        "photos": counts.photos,
        "excluded": counts.excluded,
        "genuine": genuine,
        "impostor": impostor,
        "left_out": counts.left_out,
        "fte": counts.failed / max(counts.photos, 1),
    }
    values = _measures(*_rates(counts.genuine, counts.impostor))
    left_out = _measures(*_rates(*_without_each(counts)))
    weights = counts.unit_genuine.sum(1)
    missing = [name for name, far in FARS.items() if impostor * far < SUPPORT]
    for name, value in values.items():
        if name in missing:
            left_out[name] = np.full(len(weights), np.nan)
        row[name] = np.nan if name in missing else float(value)
        bounds = _auc_interval if name == "auc" else interval
        row[f"{name}_low"], row[f"{name}_high"] = bounds(row[name], left_out[name], weights)
    row["d_prime"] = _d_prime(counts)
    row["unsupported"] = ", ".join(missing)
    return row, left_out, weights


def _compare(
    row: dict[str, Any], left_out: dict[str, np.ndarray], reference: Measured, weights: np.ndarray
) -> dict[str, float]:
    compared: dict[str, float] = {}
    for name, values in left_out.items():
        old, old_values = reference[0][name], reference[1][name]
        difference = row[name] - old
        if name == "auc":
            low, high, p = _auc_difference(old, row[name], old_values, values, weights)
        else:
            low, high, p = _difference(difference, values - old_values, weights)
        key = f"{name}_difference"
        compared |= {key: difference, f"{key}_low": low, f"{key}_high": high, f"{key}_p": p}
    return compared


# ---------------------------------------------------------------- measures


def _rates(genuine: np.ndarray, impostor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """FAR and TAR [..., K + 1] of counts [..., K], from no pair accepted to all."""
    rates = []
    for counts in (impostor, genuine):
        accepted = np.zeros((*counts.shape[:-1], counts.shape[-1] + 1))
        np.cumsum(counts[..., ::-1], -1, out=accepted[..., 1:])
        with np.errstate(invalid="ignore", divide="ignore"):
            rates.append(accepted / accepted[..., -1:])
    return rates[0], rates[1]


def _area(far: np.ndarray, tar: np.ndarray, until: float = 1.0) -> np.ndarray:
    """Mean TAR over the FARs from 0 to `until`; pairs of equal score count half."""
    steps = np.diff(np.minimum(far, until), axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = np.nan_to_num(np.diff(tar, axis=-1) / np.diff(far, axis=-1), posinf=0.0)
    area = (steps * (tar[..., :-1] + slope * steps / 2)).sum(-1) / until
    return np.where(np.isnan(tar[..., -1]), np.nan, area)


def _measures(far: np.ndarray, tar: np.ndarray) -> dict[str, np.ndarray]:
    """Every measure of ROC curves [..., K + 1]."""
    curves = zip(far.reshape(-1, far.shape[-1]), tar.reshape(-1, far.shape[-1]), strict=True)
    at = np.array([np.interp(list(FARS.values()), *curve) for curve in curves]).reshape(*far.shape[:-1], -1)
    measures = {"auc": _area(far, tar), "pauc": _area(far, tar, 0.1), "eer": _crossing(far + tar - 1, far)}
    return measures | {name: at[..., i] for i, name in enumerate(FARS)}


def _crossing(rising: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`values` [..., K] where `rising` [..., K], which does not fall, passes 0, linear between two points."""
    after = np.clip((rising <= 0).sum(-1, keepdims=True), 1, rising.shape[-1] - 1)
    x0, x1 = (np.take_along_axis(rising, at, -1)[..., 0] for at in (after - 1, after))
    y0, y1 = (np.take_along_axis(values, at, -1)[..., 0] for at in (after - 1, after))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(x1 > x0, np.clip(-x0 / (x1 - x0), 0, 1), 0.0)
    return np.where(np.isnan(rising[..., -1]), np.nan, y0 + share * (y1 - y0))


def _d_prime(counts: Counts) -> float:
    """Distance of the mean scores in standard deviations; failures to enrol have no score."""
    scored = np.isfinite(counts.score)
    moments = []
    for weights in (counts.genuine[scored], counts.impostor[scored]):
        if not weights.sum():
            return np.nan
        mean = np.average(counts.score[scored], weights=weights)
        moments.append((mean, np.average((counts.score[scored] - mean) ** 2, weights=weights)))
    (g, g_variance), (i, i_variance) = moments
    spread = np.sqrt((g_variance + i_variance) / 2)
    return float((g - i) / spread) if spread else np.nan


# ---------------------------------------------------------------- uncertainty


def _coarse(counts: Counts, fine: np.ndarray) -> np.ndarray:
    at = np.searchsorted(counts.unit_score, counts.score, side="right") - 1
    return np.bincount(at, fine, minlength=len(counts.unit_score))


def _without_each(counts: Counts) -> tuple[np.ndarray, np.ndarray]:
    """Genuine and impostor counts with each unit left out in turn: [U, C]."""
    return (
        _coarse(counts, counts.genuine) - counts.unit_genuine,
        _coarse(counts, counts.impostor) - counts.unit_impostor,
    )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)


def _accepted(counts: Counts, part: np.ndarray, threshold: float) -> tuple[float, np.ndarray]:
    """Share of the pairs `part` [K] with scores at or above the threshold, and the scores that are."""
    accepted = counts.score >= threshold
    total = part.sum()
    return float(part[accepted].sum() / total) if total else np.nan, accepted


def _error(left_out: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Standard error by the delete-one jackknife, and its degrees of freedom; NaN with fewer than 3 units.

    left_out: the estimate without each unit [U]; weights: [U], the pairs of each. A few people with most of
    the pairs are worth few degrees of freedom (Kish's effective number).
    """
    n = len(left_out)
    if n < 3 or not weights.any() or not np.isfinite(left_out).all():
        return np.nan, np.nan
    error = np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum())
    return float(error), max(1.0, float(weights.sum() ** 2 / (weights.astype(float) ** 2).sum()) - 1)


def interval(value: float, left_out: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """95 % interval of a rate, from the rate with each unit left out and the units' weights, both [U].

    Wilson's interval for as many independent trials as would give the rate its standard error, after Fogliato
    et al., "Confidence intervals for error rates in 1:1 matching tasks" (arXiv 2306.01198). A rate of 0 or 1
    shows no error to go by: each person is then one trial, which is cautious.
    """
    error, freedom = _error(left_out, weights)
    if not np.isfinite(value + error):
        return np.nan, np.nan
    t = stats.t.ppf(0.975, freedom)
    n = value * (1 - value) / error**2 if error > 0 and 0 < value < 1 else freedom + 1
    centre = (value + t**2 / (2 * n)) / (1 + t**2 / n)
    half = t / (1 + t**2 / n) * np.sqrt(value * (1 - value) / n + t**2 / (4 * n**2))
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def _auc_interval(value: float, left_out: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """95 % interval of an AUC, from the jackknife of its log odds, which are closer to normal."""
    if not 0 < value < 1 or not ((left_out > 0) & (left_out < 1)).all():
        return interval(value, left_out, weights)
    error, freedom = _error(special.logit(left_out), weights)
    if error == 0:
        return interval(value, left_out, weights)
    middle, half = special.logit(value), stats.t.ppf(0.975, freedom) * error
    if half > _LOG_ODDS:  # one person has all of the errors, and log odds without them run off
        return interval(value, left_out, weights)
    return float(special.expit(middle - half)), float(special.expit(middle + half))


def _difference(value: float, left_out: np.ndarray, weights: np.ndarray) -> tuple[float, float, float]:
    """95 % interval and p-value of a difference between two models, by Student's t."""
    error, freedom = _error(left_out, weights)
    if not np.isfinite(value + error):
        return np.nan, np.nan, np.nan
    if error < 1e-12:  # that of rounding
        return value, value, 1.0 if abs(value) < 1e-12 else 0.0
    half = stats.t.ppf(0.975, freedom) * error
    return value - half, value + half, 2 * float(stats.t.sf(abs(value) / error, freedom))


def _auc_difference(
    old: float, new: float, old_left_out: np.ndarray, new_left_out: np.ndarray, weights: np.ndarray
) -> tuple[float, float, float]:
    """95 % interval and p-value of the difference of two AUCs; left out: each unit in turn, [U].

    Few hard people make the AUCs, their difference and its error rise and fall together, so that Student's
    interval ends too soon on one side. The log odds of both AUCs are therefore moved along the direction in
    which their difference varies (DiCiccio & Efron, "More accurate confidence intervals in exponential
    families", Biometrika 1992, least favourable direction), and the interval holds what either way gives.
    """
    low, high, p = _difference(new - old, new_left_out - old_left_out, weights)
    values, left_out = np.array([old, new]), np.stack([old_left_out, new_left_out])
    inside = all(((part > 0) & (part < 1)).all() for part in (values, left_out))
    if not low < high or not inside:
        return low, high, p
    n, freedom = len(weights), _error(new_left_out, weights)[1]
    t, odds = stats.t.ppf(0.975, freedom), special.logit(values)
    covariance = (n - 1) ** 2 / n * np.cov(special.logit(left_out))
    slope = values * (1 - values) * (-1, 1)
    variance = slope @ covariance @ slope
    if variance <= 0 or t * np.sqrt(covariance.diagonal().max()) > _LOG_ODDS:
        return low, high, p
    direction = covariance @ slope / np.sqrt(variance)
    ends = [float(np.diff(special.expit(odds + steps * direction))[0]) for steps in (-t, t)]
    apart, closer = np.diff(odds)[0], np.diff(direction)[0]
    to_equal = abs(apart) / closer if closer > 0 else np.inf  # steps until the two AUCs are the same
    return min(low, ends[0]), max(high, ends[1]), max(p, 2 * float(stats.t.sf(to_equal, freedom)))
