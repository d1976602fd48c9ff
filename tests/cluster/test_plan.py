"""The plan of a trial: what is said to fit does fit, and a refusal says what would."""

import functools
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from doppel_ray.cluster.plan import Node, Plan, plan_trial
from doppel_ray.config.experiment import Experiment, read_experiment
from doppel_ray.config.search import Space
from doppel_ray.core.errors import ConfigError

TWO_CORES = (Node("this machine", 2.0, 0.0),)


def experiment(**overrides: str) -> Experiment:
    return read_experiment(None, {key.replace("__", "."): value for key, value in overrides.items()})


def refusal(wanted: Experiment, nodes: tuple[Node, ...] = TWO_CORES) -> str:
    with pytest.raises(ConfigError) as refused:
        plan_trial(wanted, nodes)
    return str(refused.value)


def test_the_plan_says_what_a_trial_needs_and_how_many_fit() -> None:
    made = plan_trial(
        experiment(train__cpus_per_worker="0.5", generators__0__num_cpus="0.25", probes__cpus="0.1"), TWO_CORES
    )
    assert made.concurrent == 2
    asked, found = made.lines()
    assert "1 train worker x 0.5 CPU, 1 generator x 0.25 CPU, 1 probe x 0.1 CPU" in asked
    assert "the cluster has 2 CPUs, 0 GPUs on 1 node: 2 trials side by side" in found


def test_each_pool_of_generators_has_its_own_line() -> None:
    pools = "[{actors: 2..4, num_cpus: 0.5}, {device: cuda, actors: 0..2, num_cpus: 0.5, num_gpus: 0.25}]"
    made = plan_trial(experiment(generators=pools, probes__cpus="0.1"), (Node("a", 4.0, 1.0),))
    assert "2 cpu generator x 0.5 CPU (up to 4), 0 cuda generator x 0.5 CPU + 0.25 GPU (up to 2)" in made.lines()[0]


def test_eight_cpus_a_worker_on_two_cores_are_refused_with_asked_found_and_what_would_fit() -> None:
    message = refusal(experiment(train__cpus_per_worker="8"))
    assert "1 train worker x 8 CPU" in message
    assert "train.cpus_per_worker is 8, but the largest node has 2 CPUs" in message
    assert "the cluster has 2 CPUs" in message


def test_a_gpu_that_is_not_there_is_refused() -> None:
    assert "train.gpus_per_worker is 1, but the largest node has 0 GPUs" in refusal(
        experiment(train__gpus_per_worker="1")
    )


def test_a_process_must_fit_whole_on_one_node() -> None:
    wanted = experiment(train__cpus_per_worker="3")
    assert "largest node has 2 CPUs" in refusal(wanted, (Node("a", 2.0, 0.0), Node("b", 2.0, 0.0)))
    assert plan_trial(wanted, (Node("a", 3.0, 0.0), Node("b", 2.5, 0.0))).concurrent == 1


def test_a_gpu_node_keeps_its_gpus_for_those_that_need_them() -> None:
    wanted = experiment(train__gpus_per_worker="1", probes__cpus="1")
    assert plan_trial(wanted, (Node("gpu", 2.1, 1.0), Node("cpu", 2.0, 0.0))).concurrent == 1


def test_no_more_trials_side_by_side_than_asked_for() -> None:
    wanted = experiment(tune__concurrent="3", train__cpus_per_worker="1")
    assert plan_trial(wanted, (Node("large", 64.0, 0.0),)).concurrent == 3


def test_without_probes_none_is_planned() -> None:
    assert not any(
        "probe" in line
        for line in plan_trial(experiment(probes__tasks="[]", generators__0__num_cpus="0.5"), TWO_CORES).lines()
    )


def test_fractions_of_gpus_are_planned_on_single_devices() -> None:
    """0.75 + 0.75 + 0.5 is the sum of two GPUs, and needs three: no process spans two."""
    wanted = experiment(
        train__gpus_per_worker="0.75",
        generators="[{device: cuda, num_gpus: 0.75, num_cpus: 0.5}]",
        probes__gpus="0.5",
    )
    assert "no trial fits" in refusal(wanted, (Node("a", 8.0, 2.0),))
    assert plan_trial(wanted, (Node("a", 8.0, 3.0),)).concurrent == 1


@pytest.mark.parametrize("key", ["train.gpus_per_worker", "probes.gpus", "generators.0.num_gpus"])
def test_gpus_above_one_are_whole(key: str) -> None:
    device = {"generators.0.device": "cuda"} if key.startswith("generators") else {}
    with pytest.raises(ConfigError, match=r"1\.5.*whole number"):
        read_experiment(None, device | {key: "1.5"})
    read_experiment(None, device | {key: "2"})


def test_two_train_workers_on_one_gpu_are_refused() -> None:
    """NCCL, which they talk through, takes one process per GPU."""
    with pytest.raises(ConfigError, match=r"train.*share a GPU"):
        experiment(train__gpus_per_worker="0.5", train__workers="1..2")
    experiment(train__gpus_per_worker="0.75", train__workers="1..2")


@pytest.mark.parametrize(
    ("key", "values", "fault"),
    [
        ("train.workers", [1, 3], "train.workers 3"),
        ("train.cpus_per_worker", [0.5, 8.0], "train.cpus_per_worker 8"),
        ("probes.cpus", [0.1, 8.0], "probes.cpus 8"),
        ("generators.0.num_cpus", [0.5, 4.0], "generators.0.num_cpus 4"),
        ("generators", [[{"actors": 1, "num_cpus": 0.5}], [{"actors": 8, "num_cpus": 0.5}]], "generators"),
    ],
)
def test_plan_covers_searched_resources(key: str, values: list[object], fault: str) -> None:
    base = experiment(train__cpus_per_worker="0.5", generators__0__num_cpus="0.5", probes__cpus="0.1")
    fits = base.model_copy(update={"search": {key: Space(grid=tuple(values[:1]))}})
    assert plan_trial(fits, TWO_CORES).concurrent == 1
    message = refusal(base.model_copy(update={"search": {key: Space(grid=tuple(values))}}))
    assert f"no trial with {fault}" in message


def test_plan_counts_the_heaviest_trials_side_by_side() -> None:
    base = experiment(train__cpus_per_worker="0.5", generators__0__num_cpus="0.5", probes__cpus="0.1")
    searched = base.model_copy(update={"search": {"train.cpus_per_worker": Space(choice=(0.5, 2.0))}})
    nodes = (Node("large", 4.4, 0.0),)
    assert plan_trial(base, nodes).concurrent == 3
    assert plan_trial(searched, nodes).concurrent == 1


quarters = st.integers(1, 12).map(lambda n: n / 4)
clusters = st.lists(
    st.builds(Node, st.just("node"), quarters.map(lambda c: 2 * c), st.sampled_from([0.0, 1.0, 2.0])),
    min_size=1,
    max_size=3,
).map(tuple)


@st.composite
def experiments(draw: st.DrawFn) -> Experiment:
    workers = draw(st.integers(1, 3))
    gpus = draw(st.sampled_from(["0", "0", "0.5" if workers == 1 else "0.75", "1"]))
    return read_experiment(
        None,
        {
            "train.workers": str(workers),
            "train.batch_size": str(16 * workers),
            "train.cpus_per_worker": str(draw(quarters)),
            "train.gpus_per_worker": gpus,
            "generators.0.num_cpus": str(draw(quarters)),
            "generators.0.actors": str(draw(st.integers(1, 3))),
            "probes.cpus": str(draw(quarters)),
            "tune.concurrent": str(draw(st.integers(1, 2))),
        },
    )


def placeable(made: Plan, nodes: tuple[Node, ...]) -> bool:
    """Whether all trials' processes can be placed at once, by trying every way."""
    pieces = sorted([(s.cpus, s.gpus) for s in made.requests for _ in range(s.count)] * made.concurrent, reverse=True)

    @functools.cache
    def place(k: int, free: tuple[tuple[float, tuple[float, ...]], ...]) -> bool:
        if k == len(pieces):
            return True
        cpus, gpus = pieces[k]
        for n, (c, devices) in enumerate(free):
            for device in range(len(devices)) if gpus else (-1,):
                if c >= cpus - 1e-6 and (not gpus or devices[device] >= gpus - 1e-6):
                    less = tuple(sorted(g - gpus * (d == device) for d, g in enumerate(devices)))
                    if place(k + 1, tuple(sorted((*free[:n], (round(c - cpus, 6), less), *free[n + 1 :])))):
                        return True
        return False

    return place(0, tuple(sorted((node.cpus, (1.0,) * int(node.gpus)) for node in nodes)))


@given(experiments(), clusters)
def test_what_is_said_to_fit_does_fit(wanted: Experiment, nodes: tuple[Node, ...]) -> None:
    try:
        made = plan_trial(wanted, nodes)
    except ConfigError:
        assume(False)
    assert placeable(made, nodes)


@given(experiments(), clusters)
def test_the_change_that_a_refusal_proposes_fits(wanted: Experiment, nodes: tuple[Node, ...]) -> None:
    try:
        plan_trial(wanted, nodes)
    except ConfigError as error:
        message = str(error)
    else:
        assume(False)
    proposal = re.search(r"--([\w.]+) ([\d.]+)", message)
    if proposal is None:
        assert "the cluster lacks" in message
    else:
        assert plan_trial(wanted.with_values({proposal[1]: float(proposal[2])}), nodes).concurrent >= 1
