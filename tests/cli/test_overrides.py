"""Overrides: paths are taken as they are, and jobs of sweeps get short names of their own."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from scalefp.cli.overrides import LONGEST, SAFE, job_name, literal, unnamed
from scalefp.evaluation.options import results_name


def values(override: str) -> list[str]:
    """What Hydra reads of an override, one value or those of a sweep."""
    (found,) = OverridesParser.create().parse_overrides([override])
    if found.is_sweep_override():
        return [text.strip("'") for text in found.sweep_string_iterator()]
    value = found.value()
    return [getattr(value, "text", value)]


@pytest.mark.parametrize(
    "path",
    [
        "runs/s/seed=1/state.pt", "runs/a,b/state.pt", "runs/s/model.n_bits=8,seed=1/state.pt",
        "mum's/photos", "a[1]/x", "b(c)/d", "ü/é", "~/x", "a#b;c&d/e", "two words/x=1",
        "C:\\photos=1\\", "a\\'b=", "x=y",
    ],
)  # fmt: skip
def test_a_path_is_taken_as_it_is(path: str) -> None:
    assert values(literal(f"start_from={path}", multirun=False)) == [path]


@pytest.mark.parametrize(
    "override",
    [
        "seed=1,2", "seed=range(1,3)", "name=x", "measure.pools=[1,4]", "a={b:1}", "name='a=b'",
        'name="a=b"', "seed", "~perturb.jpeg", "+perturb.jpeg=0.3", "name=", "a=choice(b/c,d/e)",
    ],
)  # fmt: skip
@pytest.mark.parametrize("multirun", [False, True])
def test_what_hydra_reads_is_left_to_it(override: str, multirun: bool) -> None:
    assert literal(override, multirun=multirun) == override


def test_a_sweep_over_paths_needs_no_quotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = ["runs/s/model.n_bits=8,seed=1/x", "runs/s/seed=2/x"]
    for path in paths:
        Path(path).mkdir(parents=True)
    for several in (paths, paths[:1], [*paths[1:], "runs/new=3/x"]):
        assert values(literal(f"a={','.join(several)}", multirun=True)) == several


# Names.


def name(*overrides: str, job: tuple[str, ...] = (), never: tuple[str, ...] = ("name",)) -> str:
    """The name of a job of ``-m overrides``, in which the swept ones became those of ``job``."""
    return job_name(job or overrides, unnamed(overrides, never))


def test_a_job_is_named_by_what_is_swept_over() -> None:
    command = ("experiment=tiny", "name=s", "run.log_steps=5", "seed=1,2", "model.n_bits=8,16")
    job = ("experiment=tiny", "name=s", "run.log_steps=5", "seed=2", "model.n_bits=8")
    assert name(*command, job=job) == "model.n_bits=8,seed=2"
    # What is swept over names the job, whatever it is: else two jobs would share a folder.
    assert name("run.threads=1,2", "name=s", job=("run.threads=1", "name=s")) == "run.threads=1"
    # A job alone is named by what it sets, to stand beside others, but not by how it runs.
    assert name("name=s", "seed=3", "run.device=cpu") == "seed=3"
    assert name("name=s", "run.device=cpu") == ""
    assert name("+perturb.jpeg=0.1,0.2", job=("+perturb.jpeg=0.2",)) == "+perturb.jpeg=0.2"


def test_what_a_study_varies_names_its_jobs_be_it_one_value() -> None:
    """Else two calls with a value each would share a folder."""
    grid = {"seed": "0,1", "+ablation": "nothing,no_bits"}
    command = ["+study=ablation", "+ablation=nothing", "seed=2"]
    assert job_name(command, unnamed(command, ["name"], grid)) == "+ablation=nothing,seed=2"


@pytest.mark.parametrize(
    "value", ["a/b", "/x/../y/b", "'two words'", "[1,4]", "'$(rm)'", "'a;b'", "x" * 300, "'ü'"]
)
def test_names_are_short_and_safe(value: str) -> None:
    found = job_name([f"data.source={value}"], [])
    assert SAFE.fullmatch(found) and len(found) <= LONGEST
    assert found.startswith("data.source=")


def test_different_values_have_different_names() -> None:
    different = ["a/b", "c/b", "'a_b'", "'a b'", "'a,b'", "[a,b]", "b", "x" * 300, "x" * 301]
    assert len({job_name([f"data.source={value}"], []) for value in different}) == len(different)


# Results.


def test_results_of_different_releases_lie_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert results_name("emoji", {}) == "emoji"
    assert results_name("runs/first/release.safetensors", {}) == "first"
    assert results_name("runs/a/seed=1/release.safetensors", {}) == "a/seed=1"
    assert results_name(str(tmp_path / "runs/b/seed=1/release.safetensors"), {}) == "b/seed=1"
    elsewhere = ["x/m.safetensors", "y/m.safetensors", "x/seed=1/release.safetensors"]
    names = [results_name(path, {}) for path in [*elsewhere, "runs/emoji/release.safetensors"]]
    assert [text.rpartition("-")[0] for text in names] == ["m", "m", "seed=1", "emoji"]
    assert len({*names}) == 4 and results_name(elsewhere[0], {}) == names[0]
    methods = [{"_target_": "mine.Spread", "strength": x} for x in (1, 2)]
    assert len({results_name("", method) for method in methods}) == 2
    assert results_name("", methods[0]).startswith("Spread-")
