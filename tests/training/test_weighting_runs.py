"""`tasks.weighting` in an ordinary run: which values are logged, when weighting is off, and what stays the same."""

import copy
import math
import os
import shutil

import pytest
import torch

from knowhue.cells import check_gate
from knowhue.config import Config, Tasks
from knowhue.errors import ConfigError
from knowhue.objectives import weighting
from knowhue.objectives.weighting import (
    GRADIENT_WEIGHTINGS,
    LOSS_WEIGHTINGS,
    TASKS,
    GradNorm,
    LossWeighting,
    TaskConstrained,
    Uncertainty,
    make_weighting,
)
from knowhue.presets import edit, load_config
from knowhue.runs import read_log, training_settings
from knowhue.storage import read_json
from knowhue.training import checkpoint, step
from knowhue.training.phases import TrainState
from knowhue.training.run import run_arm, run_head

ALL = (*LOSS_WEIGHTINGS, *GRADIENT_WEIGHTINGS)
UNSCORED = {"evaluation__networks": (), "evaluation__perceptual": ()}


def weighed(tiny, weighting, **changes):
    """Three epochs of fine-tuning under a weighting."""
    return tiny(
        tasks__weighting=weighting,
        training={"heads": {"epochs": 1}, "finetune": {"epochs": 3}},
        **{"training__batch_size": 9, **UNSCORED, **changes},
    )


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """The folder of the trained heads, which no weighting changes."""
    return tmp_path_factory.mktemp("weighting") / "heads"


@pytest.fixture
def run(tiny, make_work, heads):
    """The folder of a run of both tasks, from heads that are trained once."""

    def run(config, name="work"):
        if not heads.exists():
            work, static = make_work(config, "static", count=24), weighed(tiny, "static")
            for task in TASKS:
                run_head(work, static, task, "multi")
            work.root.rename(heads)
        work = make_work(config, name, count=24)
        shutil.copytree(heads, work.root, copy_function=os.link)
        return run_arm(work, config, "multi")

    return run


@pytest.fixture
def entries(run):
    """The log of a run of both tasks, fine-tuning alone."""
    return lambda config, name="work": read_log(run(config, name), "finetune")


@pytest.mark.parametrize("weighting", ALL)
def test_every_weighting_says_what_each_task_counts(tiny, run, weighting):
    folder = run(weighed(tiny, weighting))
    for entry in read_log(folder):
        named = {"weight_colour", "weight_class"} & set(entry["train"])
        assert len(named) == (2 if entry["phase"] == "finetune" else 0)
        assert all(math.isfinite(entry["train"][name]) and entry["train"][name] >= 0 for name in named)
    assert math.isfinite(read_log(folder)[-1]["validation"]["ab_l1"])


def test_static_is_the_default_and_weighs_nothing(tiny, entries):
    config = weighed(tiny, "static")
    phases = {"heads": {"epochs": 1}, "finetune": {"epochs": 3}}
    assert config == tiny(training=phases, training__batch_size=9, **UNSCORED)
    assert not any(name.startswith("weight") for entry in entries(config) for name in entry["train"])


@pytest.mark.parametrize("weighting", ["gradnorm"])
def test_a_single_task_knows_no_weighting(tiny, make_work, weighting):
    rows = []
    for name in ("static", weighting):
        config = weighed(tiny, name, tasks__names=("colour",))
        rows.append((run_arm(make_work(config, name), config, "colour") / "per_image.csv").read_text())
    assert rows[0] == rows[1]


@pytest.mark.parametrize("weighting", [*LOSS_WEIGHTINGS, "cagrad"])
def test_no_weighting_reaches_the_heads_while_the_encoder_is_frozen(tiny, make_work, weighting):
    config = weighed(tiny, weighting, training__batch_size=4)
    found = check_gate(make_work(config), config)
    assert [each["differ"] for part, each in found.items() if part != "proved"] == [[]] * 3


@pytest.mark.parametrize(("main", "stopped"), [("colour", "class"), ("class", "colour")])
def test_a_stopped_task_counts_nothing_any_more_and_its_head_rests(tiny, run, monkeypatch, main, stopped):
    """The criterion stops a task after the second epoch, when its strip is full; encoder and main head continue."""
    kept = []

    def keep(folder, epoch, modules, *rest):
        if "encoder" in modules:
            kept.append({name: copy.deepcopy(module.state_dict()) for name, module in modules.items()})

    monkeypatch.setattr(checkpoint, "save_checkpoint", keep)
    monkeypatch.setattr(weighting, "criterion", lambda *_: math.inf)
    config = weighed(tiny, "task_constrained", tasks__main=main, tasks__stop_strip_epochs=1)
    config = edit(config, {"training": {"finetune": {"epochs": 4, "learning_rate": 1e-3}}})
    log = read_log(run(config), "finetune")
    assert [entry["train"][f"weight_{stopped}"] for entry in log] == [1.0, 1.0, 0.0, 0.0]
    assert [entry["train"][f"weight_{main}"] for entry in log] == [1.0] * 4
    assert moved(kept[0], kept[1]) >= {"encoder", "colour", "class"}
    assert moved(kept[1], kept[3]) >= {"encoder", main}
    assert stopped not in moved(kept[1], kept[3])


def moved(before, after):
    """Names of the modules with a weight that changed."""
    return {
        name
        for name, state in before.items()
        if any(not torch.equal(v, after[name][k]) for k, v in state.items())
    }


def test_a_high_threshold_stops_nothing(tiny, entries):
    log = entries(weighed(tiny, "task_constrained", tasks__stop_strip_epochs=1, tasks__stop_threshold=1e9))
    assert [entry["train"]["weight_class"] for entry in log] == [1.0] * 3


def test_errors_of_both_parts_come_in_one_unit(tiny, entries, monkeypatch):
    seen = []

    def spy(self, train, validation):
        seen.append((train, validation))

    monkeypatch.setattr(TaskConstrained, "observe_epoch", spy)
    log = entries(weighed(tiny, "task_constrained"))
    for (train, validation), entry in zip(seen, log, strict=True):
        assert train == {"colour": entry["train"]["l1"], "class": entry["train"]["cross_entropy"]}
        assert validation["colour"] == pytest.approx(entry["validation"]["ab_l1"] / 110)
        assert validation["class"] == entry["validation"]["cross_entropy"]


def test_gradnorm_sees_losses_and_norms_before_its_factors(tiny, entries, monkeypatch):
    """With factors of 0.1, GradNorm receives the same norms."""
    told = {}

    def spy(name):
        def observe(self, losses, norms):
            told.setdefault(name, []).append((losses, norms))

        return observe

    for name, factor in (("whole", 1.0), ("tenth", 0.1)):
        monkeypatch.setattr(GradNorm, "observe_step", spy(name))
        monkeypatch.setattr(
            GradNorm, "weights", lambda self, factor=factor: dict.fromkeys(("colour", "class"), factor)
        )
        entries(weighed(tiny, "gradnorm"), name)
    (losses, norms), (tenth_losses, tenth_norms) = told["whole"][0], told["tenth"][0]
    assert losses == tenth_losses
    assert norms == tenth_norms
    assert min(norms.values()) > 0
    assert losses["class"] > 1.0  # 10 x cross-entropy, with its static weight


def test_uncertainty_follows_the_statically_weighted_losses(tiny, entries, monkeypatch):
    """Of the first step, recomputed from its log, with one step an epoch."""
    seen = []
    observe = Uncertainty.observe_step

    def spy(self, losses, norms):
        seen.append((losses, norms, self.weights()))
        observe(self, losses, norms)

    monkeypatch.setattr(Uncertainty, "observe_step", spy)
    weights = {"colour": 0.5, "class": 7.0}
    log = entries(weighed(tiny, "uncertainty", training__batch_size=18, tasks__weights=weights))
    assert len(seen) == len(log)
    for (losses, norms, factors), entry in zip(seen, log, strict=True):
        train = entry["train"]
        colour = 100 * train["l1"] + train["generator"]
        assert losses == pytest.approx(
            {"colour": 0.5 * colour, "class": 7 * train["cross_entropy"]}, rel=1e-5
        )
        assert norms is None
        assert factors == pytest.approx({task: train[f"weight_{task}"] for task in TASKS})
    assert factors != dict.fromkeys(TASKS, 1.0)


def test_dwa_follows_the_epochs(tiny, entries):
    log = entries(weighed(tiny, "dwa", tasks__dwa_temperature=0.5))
    factors = [(entry["train"]["weight_colour"], entry["train"]["weight_class"]) for entry in log]
    assert factors[:2] == [(1.0, 1.0)] * 2
    ratios = torch.tensor([log[1]["train"][name] / log[0]["train"][name] for name in ("l1", "cross_entropy")])
    expected = 2 * torch.softmax(ratios / 0.5, 0)
    assert factors[2] == pytest.approx(expected.tolist(), abs=1e-4)


def test_losses_that_are_no_numbers_are_not_taken_in(tiny, make_work):
    class Proud(LossWeighting):
        every_step = True

        def observe_step(self, losses, norms):
            raise AssertionError(losses)

    engine = make_work(tiny()).engine
    features = (torch.ones(1, requires_grad=True),)
    branches = {"colour": features, "class": features}
    losses = {"colour": torch.tensor(float("nan")), "class": torch.tensor(1.0)}
    assert step.weight_losses(engine, Proud(Tasks()), branches, losses)["weight_class"] == 1


class Stub:
    """An engine of one process, whose averages of tensors without values are 1."""

    @staticmethod
    def average(values):
        return {name: 1.0 if value.is_meta else value.item() for name, value in values.items()}


@pytest.mark.parametrize("weight", [step.weight_losses, step.weight_gradients])
def test_weights_are_logged_from_the_device_of_the_losses(weight):
    """All processes average weights on the device; `meta` replaces an accelerator."""
    features = {task: (torch.ones(2, device="meta", requires_grad=True),) for task in TASKS}
    losses = {task: features[task][0].square().sum() for task in TASKS}
    losses_weighted = weight is step.weight_losses
    found = weight(
        Stub(), LossWeighting(Tasks()) if losses_weighted else lambda _: torch.ones(2), features, losses
    )
    assert {value.device.type for value in found.values()} == {"meta"}


@pytest.mark.parametrize("kind", [Uncertainty, GradNorm])
def test_a_batch_without_any_label_changes_no_loss_weighting(kind):
    features = {task: (torch.ones(2, requires_grad=True),) for task in TASKS}
    with_empty, without = kind(Tasks()), kind(Tasks())
    for empty in (True, False, True):
        size = {"colour": 3.0, "class": 0.0 if empty else 2.0}
        losses = {task: size[task] * features[task][0].square().sum() for task in TASKS}
        step.weight_losses(Stub(), with_empty, features, dict(losses))
        if not empty:
            step.weight_losses(Stub(), without, features, losses)
    assert with_empty.weights() == without.weights() != {"colour": 1.0, "class": 1.0}


@pytest.mark.parametrize("weighting", ["gradnorm"])
def test_few_labels_do_not_stop_a_balanced_run(tiny, make_work, weighting):
    """Most batches have no labels, possibly also the first one."""
    config = weighed(
        tiny,
        weighting,
        training__batch_size=2,
        tasks__weighting_learning_rate=0.05,
    )
    folder = run_arm(make_work(config, unlabelled=11), config, "multi")
    log = read_log(folder, "finetune")
    assert read_json(folder / "status.json")["state"] == "finished"
    assert log[-1]["train"]["weight_class"] != 1.0


@pytest.mark.parametrize("spoilt", ["train", "validation"])
@pytest.mark.parametrize("weighting", ["task_constrained", "dwa"])
def test_an_epoch_that_is_no_number_is_not_taken_in(tiny, weighting, spoilt):
    """A last step can spoil the scores of an epoch whose losses are finite; the next epoch ends the run."""
    config = tiny(tasks__weighting=weighting)
    state = TrainState(None, config, "finetune", None, None, None, weighting=make_weighting(config.tasks))
    seen = {
        "train": {"l1": 0.1, "cross_entropy": 1.0},
        "validation": {"ab_l1": 9.0, "cross_entropy": 1.0},
    }
    before = copy.deepcopy(state.weighting.state_dict())
    state.observe_epoch(**seen | {spoilt: {name: math.nan for name in seen[spoilt]}})
    for name, value in state.weighting.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)
    state.observe_epoch(**seen)
    after = state.weighting.state_dict()
    assert any(not torch.equal(after[name].nan_to_num(-1), before[name].nan_to_num(-1)) for name in after)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["evaluation.every_epochs=2", "tasks.weighting=task_constrained"],
            r"`evaluation\.every_epochs` should be 1",
        ),
        (["colour.gan_loss=hinge", "tasks.weighting=gradnorm"], r"`colour\.gan_loss` should be bce or lsgan"),
        (
            ["colour.gan_loss=hinge", "tasks.weighting=uncertainty"],
            r"never negative. Found `colour\.gan_loss = hinge`",
        ),
        (["tasks.weighting=best"], r"task_constrained, .*Found `tasks\.weighting = best`"),
        (["tasks.main=depth"], r"`tasks\.main` should be one of colour, class"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        load_config(settings=settings)


@pytest.mark.parametrize("change", [{"weighting": "dwa"}, {"weighting": "gradnorm", "gradnorm_alpha": 0.5}])
def test_other_weightings_are_other_runs(change):
    names = [
        training_settings(edit(Config(), {"tasks": each})) for each in ({}, {"weighting": "gradnorm"}, change)
    ]
    assert names[2] not in names[:2]
