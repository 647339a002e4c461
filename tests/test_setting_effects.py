"""Settings without effect are refused, and the error names the setting that they need."""

from pathlib import Path

import pytest

from knowhue.config import METHOD_LOSSES, Config
from knowhue.errors import ConfigError
from knowhue.plan import Plan, check_new_plan, make_comparison, make_plan
from knowhue.presets import ALL_METHODS, ARMS, PRESETS, checked, edit, load_config
from knowhue.setting_effects import DEFAULTS, NEEDS, changed, require_effect, without_effect
from knowhue.settings_text import read_yaml

STUDIES = sorted(Path(__file__).parents[1].glob("studies/*/*.yaml"))


@pytest.mark.parametrize("need", NEEDS, ids=lambda need: f"{need.settings.split()[0]} needs {need.other}")
def test_every_need_names_settings_and_is_met_by_some_method_or_setting(need):
    known = list(DEFAULTS)
    assert need.other in known
    assert [
        name for name in need.settings.split() if not any(f"{each}.".startswith(f"{name}.") for each in known)
    ] == []
    first, last = need.wanted.split()[0].rstrip(","), need.wanted.split()[-1]
    own = {
        "images.source": f"images.source={first}",
        "tasks.weighting": f"tasks.weighting={first}",
        "evaluation.networks": f"evaluation.networks=[{last}]",
        "evaluation.perceptual": f"evaluation.perceptual=[{last}]",
    }
    settings = [own[need.other]] if need.other in own else []
    found = [load_config(preset) for preset in PRESETS] + [load_config(settings=settings)]
    assert any(need.is_met(config) for config in found)


def test_what_comes_of_following_a_remedy_is_enough():
    config = load_config(
        settings=["colour.loss=classification", "colour.method=feedforward", "colour.temperature=1"]
    )
    require_effect(changed(config), [config])


def test_where_images_may_come_without_a_label_their_share_of_a_batch_counts():
    make_plan(load_config(settings=["supervision.labelled_batch_share=0.3"]))
    make_plan(
        load_config(
            settings=[
                "supervision.labelled_batch_share=0.3",
                "supervision.labelled_share=0.5",
                "images.source=drawn",
            ]
        )
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_everything_that_a_preset_says_has_an_effect(preset):
    config = load_config(preset)
    require_effect(changed(config), [config])


def test_everything_that_arms_methods_and_kept_plans_say_has_an_effect():
    check_new_plan(make_plan(Config(), tuple(ARMS)))
    check_new_plan(make_comparison(Config(), tuple(ALL_METHODS)))
    assert STUDIES
    for path in STUDIES:
        check_new_plan(checked(Plan, read_yaml(path)))


@pytest.mark.parametrize(
    ("method", "loss"), [(method, loss) for method, losses in METHOD_LOSSES.items() for loss in losses]
)
def test_every_loss_that_a_method_may_learn_by_has_an_effect(method, loss):
    arm = {"tasks": {"names": ["colour"]}}
    config = edit(load_config(settings=[f"colour.method={method}", f"colour.loss={loss}"]), arm)
    require_effect(changed(config), [config])


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        (["colour.temperature=0.5"], "`colour.loss` is classification"),
        (["colour.logit_adjustment=1", "colour.method=gan"], "`colour.loss` is classification"),
        (
            ["colour.logit_adjustment=1", "colour.method=palette"],
            "`colour.loss` is classification and `colour.method` is unet, gan or feedforward",
        ),
        (
            ["colour.adversarial_weight=9", "colour.method=feedforward"],
            "`colour.method` is unet, gan or pix2pix",
        ),
        (["colour.gan_loss=bce", "colour.adversarial_weight=0"], "`colour.adversarial_weight` is above 0"),
        (["colour.decoder=transposed", "colour.method=gan"], "`colour.method` is unet or feedforward"),
        (
            ["supervision.labelled_batch_share=0.3", "images.source=drawn"],
            "`supervision.labelled_share` is below 1",
        ),
        (["tasks.weighting=pcgrad", "training.finetune.epochs=0"], "`training.finetune.epochs` is above 0"),
        (["tasks.weights.class=5", "training.finetune.epochs=0"], "`training.finetune.epochs` is above 0"),
        (
            ["colour.l1_weight=9", "colour.method=feedforward", "colour.loss=classification"],
            "`colour.loss` is l1 or l2",
        ),
        (["training.shift_px=3", "training.finetune.epochs=0"], "`training.finetune.epochs` is above 0"),
        (["training.heads.learning_rate=1", "training.heads.epochs=0"], "`training.heads.epochs` is above 0"),
        (["colour.palette.width=8"], "`colour.method` is palette"),
        (["encoder.name=resnet34", "colour.method=pix2pix"], "`colour.method` is unet, gan or feedforward"),
        (["images.class_colour=1"], "`images.source` is drawn"),
        (["tasks.dwa_temperature=1", "tasks.weighting=gradnorm"], "`tasks.weighting` is dwa"),
        (
            ["tasks.dwa_temperature=1", "training.finetune.epochs=0"],
            "`tasks.weighting` is dwa and `training.finetune.epochs` is above 0",
        ),
        (["evaluation.lpips_weights=alex.pth"], "`evaluation.perceptual` is a list with lpips"),
    ],
)
def test_a_setting_without_effect_is_refused_with_what_it_needs(settings, needed):
    config, name = load_config(settings=settings), settings[0].partition("=")[0]
    with pytest.raises(ConfigError) as caught:
        make_plan(config, ["colour", "multi"])
    (problem,) = caught.value.args
    assert problem.startswith(f"`{name}` should be left at ")
    assert f" unless {needed}; otherwise it has no effect. Found `{name} = " in problem
    assert without_effect(changed(Config()), [config]) == {}


def test_a_shared_setting_may_serve_one_arm_alone_or_the_arms_of_another_study():
    config = load_config(settings=["colour.temperature=0.5", "colour.pix2pix.width=8"])
    assert make_comparison(config, ("unet", "classification", "pix2pix")).config.colour.temperature == 0.5
    with pytest.raises(ConfigError, match=r"`colour\.temperature` should be left at"):
        make_comparison(config, ("l1", "pix2pix"))
    assert make_plan(load_config("poster", settings=["colour.width=8"]), ["class"]).config.colour.width == 8


def test_what_an_arm_says_has_to_have_an_effect_in_that_arm():
    tasks = {"names": ["colour"]}
    l2 = {"method": "feedforward", "loss": "l2", "adversarial_weight": 30}
    arms = {"colour": {"tasks": tasks}, "l2": {"tasks": tasks, "colour": l2}}
    with pytest.raises(
        ConfigError, match=r"^arm `l2`: `colour\.adversarial_weight` should be left at 1\.0 unless "
    ):
        check_new_plan(checked(Plan, {"arms": arms}))


@pytest.mark.parametrize(
    ("place", "plan"),
    [
        ("config", {"config": {"seed": 7}}),
        ("arms.colour", {"arms": {"colour": {**ARMS["colour"], "seed": 7}}}),
    ],
)
def test_a_plan_sets_no_seed_beside_its_seeds(place, plan):
    with pytest.raises(ConfigError, match=rf"^`{place}\.seed` should be left to `seeds`\. Found 7\."):
        check_new_plan(checked(Plan, {"seeds": [1, 2], **plan}))
    assert check_new_plan(Plan(seeds=(1, 2))).seeds == (1, 2)


def test_an_arm_may_spell_out_a_default():
    arms = {"plain": {"tasks": {"names": ["colour"], "weighting": DEFAULTS["tasks.weighting"]}}}
    assert check_new_plan(Plan(arms=arms)).arms == arms


def test_what_only_a_preset_says_gives_way_where_it_has_no_effect():
    assert PRESETS["demo"]["training"]["shift_px"] != Config().training.shift_px
    config = load_config("demo", settings=["training.finetune.epochs=0"])
    assert config.training.shift_px == Config().training.shift_px
    assert make_plan(config).config.training.finetune.epochs == 0
    assert load_config("demo", settings=["training.heads.epochs=0"]).training.shift_px == 4


@pytest.mark.parametrize("make", [make_plan, make_comparison])
def test_tasks_are_left_to_the_arms(make):
    with pytest.raises(ConfigError, match=r"Found `tasks.names = \[class\]`. Choose arms instead: --arms"):
        make(load_config(settings=["tasks.names=[class]"]))
