"""The judge judged: every bug of the corpus fails at its clause, and nothing that is right fails, whatever the seed."""

import pytest

from braintools_adadelta.conformance import adapters, command, corpus, runner
from braintools_adadelta.conformance.cases import ALIKE, HYPER, NARROW, SHAPES, rng_of, runs
from braintools_adadelta.conformance.judge import run_and_examine


def rows_of(classes, *arguments, more=()):
    """Run the clause tests on `classes`, with `more` arguments of pytest; return {class: {clause: rows}}."""
    targets = {f"braintools_adadelta.conformance.corpus:{cls.__name__}": cls for cls in classes}
    options = command.parser().parse_args([*targets, "--examples", "1", *arguments])
    collector, _ = runner.collect(list(targets), options, more)
    return {targets[target]: rows for target, rows in collector.rows.items()}


@pytest.mark.parametrize("clause", sorted({cls.clause for cls in corpus.WRONG}))
def test_every_bug_fails_at_its_clause(clause):
    wrong = [cls for cls in corpus.WRONG if cls.clause == clause]
    found = rows_of(wrong, "--clause", clause, more=["--adadelta-first"])
    missed = [c.__name__ for c in wrong if not any(row["status"] == "fail" for row in found[c].get(clause, ()))]
    assert not missed
    reasons = {row["reason"] for rows in found.values() for row in rows[clause] if row.get("reason")}
    assert all("not offered" in r or "already" in r or "shown" in r or "Error" in r for r in reasons), reasons


def test_nothing_right_fails():
    """Every clause test, for a few: each that is unlike the others in what it shows or offers."""
    kinds = [getattr(corpus, name) for name in ("Native", "Lagged", "WideInside", "InPlace", "HiddenNative")]
    for cls, clauses in rows_of(kinds).items():
        rows = [row for rows in clauses.values() for row in rows]
        assert [row for row in rows if row["status"] in ("fail", "known")] == [], cls
        assert sum(row["status"] == "pass" for row in rows) > 50


def test_a_float16_state_is_told_by_extreme_input():
    """At level range, which decides for ours alone: in native 16 bits it may be what is meant."""
    narrow, wide = corpus.Float16State, corpus.WideAccumulators
    found = rows_of([narrow, wide], "--clause", "X1")
    status = {cls: {row["status"] for row in rows["X1"] if row["test"] == "X1_narrow"} for cls, rows in found.items()}
    assert status == {narrow: {"range"}, wide: {"pass", "range"}}
    assert [row["status"] for row in found[wide]["X1"] if row["variant"] == "float16"] == ["pass"]


ORDER = {"grad_clip_norm": 2.0, "grad_clip_value": 1.5, "weight_decay": 0.5}


@pytest.mark.parametrize("cls", corpus.RIGHT, ids=lambda cls: cls.__name__)
def test_no_alarm_over_twenty_seeds(cls):
    it = adapters.Subject(cls.__name__, cls())
    for seed in range(20):
        dtypes = ["float32", *(d for d in ("float16", "bfloat16", "complex64") if d in it.supports)]
        dtype = dtypes[seed % len(dtypes)]
        rng, table = rng_of(cls.__name__, seed=seed), NARROW if dtype in ("float16", "bfloat16") else HYPER
        options = table[list(table)[seed % len(table)]]
        if seed % 4 == 3 and dtype != "complex64":
            case = runs(rng, dtype, table["large_eps"] | ORDER, shapes=ALIKE, steps=3, regions="near_eps")
        else:
            case = runs(rng, dtype, options, shapes=SHAPES if seed % 4 == 1 else ALIKE, steps=3)
        assert not run_and_examine(it, case).misses, (seed, dtype, options)
