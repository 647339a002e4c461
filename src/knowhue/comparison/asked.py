"""What a comparison asks, fixed before its first run: methods, reference, seeds, budget, settings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from knowhue.config import Config, Positive, Section
from knowhue.errors import ConfigError, did_you_mean, shown
from knowhue.plan import Plan
from knowhue.presets import METHODS, PAPER_METHODS, checked, edit, merge
from knowhue.runs import require_format, settled
from knowhue.storage import read_json

FILE = "comparison.json"
KNOWN = METHODS | PAPER_METHODS
CLOCK = "-clock"
"""Ends the folders of runs at equal wall-clock."""

Epochs = tuple[int, int]
"""On the frozen encoder, and fine-tuning; a network from scratch has all in the second."""


class Asked(Section):
    """A comparison before it is run."""

    methods: tuple[str, ...] = Field(
        default=tuple(METHODS), description="two or more ways to colour, see `methods`"
    )
    reference: str = Field(default="gan", description="the method that the others are compared with")
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), description="every method is trained with each")
    budget_s: Positive | None = Field(
        default=None,
        description="seconds of training at equal wall-clock; null is what the reference takes at equal images",
    )
    config: Config = Field(default=Config(), description="the settings that all methods share")

    @model_validator(mode="after")
    def _methods_are_known(self) -> "Asked":
        unknown = set(self.methods) - set(KNOWN)
        if unknown or len(set(self.methods)) < max(len(self.methods), 2):
            raise ValueError(
                f"`methods` should be some of {', '.join(KNOWN)}, two or more, each once. "
                f"Found `methods = {shown(', '.join(self.methods))}`."
                + "".join(did_you_mean(each, KNOWN) for each in self.methods if each in unknown)
            )
        if self.reference not in self.methods:
            raise ValueError(
                f"`reference` should be one of the methods {', '.join(self.methods)}. "
                f"Found `reference = {shown(self.reference)}`. Name one with --reference."
                + did_you_mean(self.reference, self.methods)
            )
        return self

    @property
    def settled(self) -> dict[str, Any]:
        """All that the runs and what is measured of them depend on, as JSON holds it."""
        return self.model_dump(mode="json", exclude={"config"}) | {"config": settled(self.config)}

    def hash(self, parts: Mapping[str, Any]) -> str:
        """SHA-256, 64 hex digits, of what is asked and of what it is asked of, see `Plan.hash`."""
        return self.at_equal_images().hash({"comparison": self.settled, **parts})

    def computed_in(self, precision: str) -> "Asked":
        """The comparison with `training.precision` as an engine resolved it."""
        return self.model_copy(update={"config": edit(self.config, {"training": {"precision": precision}})})

    def epochs(self, method: str) -> Epochs:
        """Of a method at equal images."""
        config = edit(self.config, KNOWN[method].edits)
        heads, tuned = config.training.heads.epochs, config.training.finetune.epochs
        return (0, heads + tuned) if config.colour.is_from_scratch else (heads, tuned)

    def at_equal_images(self) -> Plan:
        """One arm a method, each trained for the epochs of the settings."""
        return self._plan({name: KNOWN[name].edits for name in self.methods})

    def at_equal_clock(self, epochs: Mapping[str, Epochs]) -> Plan:
        """One arm a method, trained for epochs of its own; one that has those of equal images is that run."""
        return self._plan(
            {
                self.clock_arm(name, each): _for_epochs(KNOWN[name].edits, each)
                for name, each in epochs.items()
            }
        )

    def clock_arm(self, method: str, epochs: Epochs) -> str:
        """The folder of a method's runs at equal wall-clock."""
        return method if tuple(epochs) == self.epochs(method) else method + CLOCK

    def _plan(self, arms: Mapping[str, Mapping[str, Any]]) -> Plan:
        return checked(
            Plan, {"arms": dict(arms), "seeds": self.seeds, "config": self.config.model_dump(mode="json")}
        )


def make_comparison(
    config: Config,
    methods: Sequence[str] = tuple(METHODS),
    reference: str | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    budget_s: float | None = None,
) -> Asked:
    """Fill in a comparison from a configuration.

    The validation images are scored at the end of each run alone, and colourings are shown to a classifier of
    true-colour images.

    Args:
        config: the settings that all methods share.
        methods: keys of `METHODS` or `PAPER_METHODS`.
        reference: one of them; None is `gan`, or the first where `gan` is not among them.
        seeds: every method is trained with each.
        budget_s: seconds of training at equal wall-clock; None is what the reference takes at equal images.

    Raises:
        ConfigError: unknown methods, a reference that is none of them, or a method that cannot be trained so.
    """
    shared = edit(
        config,
        {
            "seed": 0,
            "arms": Config().arms,
            "tasks": {"names": ("colour",)},
            "evaluation": {"recognition": True, "every_epochs": 0},
        },
    )
    if shared.colour.is_from_scratch:
        raise ConfigError(
            "The settings of a comparison should leave `colour.method` to its methods. "
            f"Found `colour.method = {shared.colour.method}`. Name methods with --methods."
        )
    values = {
        "methods": list(methods),
        "reference": reference or ("gan" if "gan" in methods else next(iter(methods), "gan")),
        "seeds": list(seeds),
        "budget_s": budget_s,
        "config": shared.model_dump(mode="json"),
    }
    asked = checked(Asked, values)
    asked.at_equal_images()
    return asked


def _for_epochs(edits: Mapping[str, Any], epochs: Epochs) -> dict[str, Any]:
    heads, tuned = epochs
    return merge(edits, {"training": {"heads": {"epochs": heads}, "finetune": {"epochs": tuned}}})


def read_frozen(root: Path) -> dict[str, Any]:
    """`comparison.json` of a folder.

    Raises:
        RunError: there is none, or another version wrote it.
    """
    frozen = read_json(root / FILE)
    require_format(frozen, root / FILE)
    return frozen


def read_asked(frozen: Mapping[str, Any]) -> Asked:
    """What `comparison.json` says was asked.

    Raises:
        ConfigError: it is of another version.
    """
    fields = {name: frozen[name] for name in Asked.model_fields if name in frozen}
    return checked(Asked, fields | {"methods": list(frozen["methods"])})


def read_plans(frozen: Mapping[str, Any]) -> dict[str, Plan]:
    """The plans of the regimes that are set so far, by title."""
    asked = read_asked(frozen)
    plans = {frozen["regimes"]["images"]["title"]: asked.at_equal_images()}
    if "clock" in frozen["regimes"]:
        clock = frozen["regimes"]["clock"]
        plans[clock["title"]] = asked.at_equal_clock({n: (e[0], e[1]) for n, e in clock["epochs"].items()})
    return plans
