"""What a comparison asks is checked before anything runs, and each method keeps to its own settings."""

import pytest

from knowhue.comparison.asked import KNOWN, make_comparison
from knowhue.config import Config
from knowhue.errors import ConfigError
from knowhue.presets import METHODS, PAPER_METHODS, edit


def test_every_method_is_trained_for_the_same_images():
    asked = make_comparison(Config(), tuple(KNOWN))
    totals = {name: sum(asked.epochs(name)) for name in KNOWN}
    assert set(totals.values()) == {30 + 15}
    assert {name for name in KNOWN if asked.epochs(name)[0] == 0} == {
        name for name in KNOWN if name.startswith(("pix2pix", "palette"))
    }


@pytest.mark.parametrize("name", KNOWN)
def test_a_method_is_its_edits_of_the_shared_settings(name):
    asked = make_comparison(edit(Config(), {"images": {"size_px": 128}}), tuple(KNOWN))
    config = asked.at_equal_images().run_config(name, 5)
    assert config == edit(asked.config, {**KNOWN[name].edits, "seed": 5})
    assert (config.images.size_px, config.tasks.names) == (128, ("colour",))


def test_no_two_methods_are_the_same_model():
    plan = make_comparison(Config(), tuple(KNOWN)).at_equal_images()
    configs = [plan.run_config(name, 0) for name in KNOWN]
    assert all(one != other for i, one in enumerate(configs) for other in configs[:i])


def test_small_and_paper_sizes_differ_in_size_and_rates_alone():
    small, paper = (
        edit(Config(), method.edits).colour.palette
        for method in (METHODS["palette-rgb"], PAPER_METHODS["palette-rgb-paper"])
    )
    assert small.space == paper.space == "rgb"
    assert (paper.width, paper.multipliers, paper.blocks, paper.attentive) == (256, (1, 1, 2, 2, 4, 4), 2, 3)


def test_at_equal_clock_a_method_with_unchanged_epochs_is_the_run_that_is_there():
    asked = make_comparison(Config(), ("l1", "gan", "pix2pix"))
    plan = asked.at_equal_clock({"l1": (40, 20), "gan": (30, 15), "pix2pix": (0, 12)})
    assert list(plan.arms) == ["l1-clock", "gan", "pix2pix-clock"]
    assert plan.run_config("gan", 1) == asked.at_equal_images().run_config("gan", 1)
    phases = plan.run_config("pix2pix-clock", 1).training
    assert (phases.heads.epochs, phases.finetune.epochs) == (0, 12)
    assert phases.finetune.learning_rate == 2e-4  # its own


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": ("gan", "best")}, "`methods` should be some of l1, l2, .*Found `methods = gan, best`"),
        ({"methods": ("gan", "gan")}, "each once"),
        (
            {"methods": ("l1", "l2"), "reference": "gan"},
            r"`reference` should be one of the methods l1, l2\. .*--reference",
        ),
        ({"methods": ("gan",)}, "two or more, each once. Found `methods = gan`"),
        ({"seeds": ()}, r"`seeds` should be different whole numbers\. Found `seeds = \[\]`"),
        ({"budget_s": -1.0}, "`budget_s` should be greater than 0"),
    ],
)
def test_what_cannot_be_compared_is_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        make_comparison(Config(), **arguments)


def test_settings_that_choose_a_method_themselves_are_refused():
    config = edit(Config(), {"tasks": {"names": ["colour"]}, "colour": {"method": "palette"}})
    with pytest.raises(ConfigError, match=r"leave `colour\.method` to its methods"):
        make_comparison(config)


def test_without_the_gan_the_first_method_is_the_reference():
    assert make_comparison(Config()).reference == "gan"
    assert make_comparison(Config(), ("unet", "l1")).reference == "unet"


def test_hash_covers_what_is_trained():
    asked = make_comparison(Config())
    others = [
        make_comparison(Config(), seeds=(0, 1)),
        make_comparison(Config(), reference="unet"),
        make_comparison(edit(Config(), {"images": {"size_px": 64}})),
        make_comparison(Config(), tuple(METHODS)[:-1]),
        make_comparison(Config(), budget_s=10.0),
        make_comparison(edit(Config(), {"evaluation": {"networks": []}})),
    ]
    parts = {"images": "0a1b2c3d", "encoder_weights": {}}
    assert asked.hash(parts) not in {other.hash(parts) for other in others}
    assert asked.hash(parts) != asked.hash(parts | {"images": "11111111"})
    assert asked.hash(parts) == make_comparison(edit(Config(), {"training": {"cache_gib": 0}})).hash(parts)
    assert len(asked.hash(parts)) == 64
