"""Arguments of a wrong type are refused by name before any work."""

import importlib
import inspect
import re
from functools import reduce

import numpy as np
import pytest

import knowhue
from knowhue import ColorizeOptions, Colorizer, Config, Hint, load_config, make_plan, read_image, run_study
from knowhue.arguments import _MAKERS
from knowhue.errors import ArgumentError
from knowhue.images.image import Image

# valid arguments by the first name in the annotation; text and paths are not tested here
FITTING = {
    "Config": Config(), "Plan": make_plan(Config()), "Images": Config().images,
    "Image": Image.of(np.zeros((1, 1, 3), np.uint8)),
}  # fmt: skip


def _public_functions():
    functions = [value for name in knowhue.__all__ if inspect.isfunction(value := getattr(knowhue, name))]
    methods = [getattr(Colorizer, name) for name in ("load", "colorize", "classify", "reference")]
    return {each.__qualname__: each for each in [*functions, *methods]}


@pytest.mark.parametrize("name", _public_functions())
def test_every_public_function_refuses_what_does_not_fit_its_annotations(name, tmp_path, monkeypatch):
    """Each argument in turn must be refused before the function runs and Python's own errors arise."""
    monkeypatch.chdir(tmp_path)
    function = _public_functions()[name]
    parameters = inspect.signature(function).parameters
    fitting = {
        name: FITTING.get(getattr(each.annotation, "__name__", ""), "x")
        for name, each in parameters.items()
        if each.default is inspect.Parameter.empty and name != "self"
    }
    own = {"self": Colorizer.load()} if "self" in parameters else {}
    for parameter in parameters.keys() - {"self"}:
        with pytest.raises(ArgumentError, match=rf"^`{parameter}` should be .* Found `{parameter} = .*`"):
            function(**own, **{**fitting, parameter: object()})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_plan("demo"), r"`config` should be a `Config`\. Found `config = 'demo'`, of the type `str`"),
        (lambda: make_plan(Config(), "multi"), r"`arms` should be a list, each text or None\. Found `arms = 'multi'`"),
        (lambda: make_plan(Config(), seeds=3), r"`seeds` should be a list, each a whole number\. Found `seeds = 3`"),
        (lambda: make_plan(Config(), seeds=["3"]), r"`seeds\[0\]` should be a whole number\. Found `seeds\[0\] = '3'`"),
        (lambda: run_study(Config(), "x"), r"`plan` should be .*Make a `Plan` by `make_plan\(load_config\(\)\)`"),
        (lambda: run_study(make_plan(Config()), "x", "slurm"), "`executor` should .*Make an `Executor` by .*engine"),
        (lambda: load_config(settings="seed=3"), r"`settings` should .*Put it into a list: `settings = \['seed=3'\]`"),
        (lambda: make_plan(Config(), seeds=np.array(3)), r"`seeds` should be a list, each a whole number\. Found"),
        (lambda: Colorizer("built-in"), r"Found `network = 'built-in'`\. `Colorizer\.load` opens one"),
        (lambda: Colorizer(None), r"Found `network = None`\. `Colorizer\.load` opens one"),
        (lambda: load_config(None), "`preset` should be text. Found `preset = None`, of the type `NoneType`"),
        (lambda: read_image(np.zeros((2, 2, 3), np.uint8)), r"`source` should be text or a .*Image\.of\(pixels\)"),
    ],
)  # fmt: skip
def test_a_wrong_type_is_told_with_what_makes_the_right_one(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: make_plan(confg=Config(), seed=[0]),
            r"^`make_plan` should be given config, .* Found `confg`\. Did you mean",
        ),
        (
            lambda: Colorizer.load(sourc="x"),
            "^`load` should be given source, recipe, .* Found `sourc`. Did you mean `source`",
        ),
        (
            lambda: Colorizer.load().colorize(FITTING["Image"], saturation=1),
            r"given source, options\. Found `saturation`\. Give it as `options = ColorizeOptions\(saturation=\.\.\.\)`",
        ),
        (
            lambda: Colorizer.load().colorize(""),
            "^`source` should name a file or a folder. Found `source = ''`",
        ),
        (lambda: load_config(files=[""]), r"^`files\[0\]` should name a file or a folder"),
        (lambda: make_plan(""), r"^`config` should be a `Config`\. Found `config = ''`"),
        (
            lambda: Config("demo"),
            "^`Config` should be given its settings by name. Found `demo`. `load_config` reads",
        ),
    ],
)
def test_what_has_no_name_or_another_is_told_with_what_is_right(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (make_plan, r"^make_plan\(\) missing 1 required positional argument: 'config'"),
    ],
)
def test_of_another_number_of_arguments_python_says_which_function(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize(
    "maker", [name for text in _MAKERS.values() for name in re.findall(r"`([\w.]+)", text)]
)
def test_what_is_said_to_make_an_argument_is_there(maker):
    """By its place, or by the name that is public."""
    *modules, last = maker.split(".")
    if modules and modules[0] == "knowhue":
        inner = [name for name in modules if name[0].isupper()]
        home = importlib.import_module(".".join(modules[: len(modules) - len(inner)]))
        assert callable(reduce(getattr, [*inner, last], home))
    else:
        assert reduce(getattr, [*modules, last], knowhue)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ColorizeOptions(saturation="x"), r"`options\.saturation` should be a number\. Found `.* = 'x'`"),
        (ColorizeOptions(hints="30%,40%=red"), r"`options\.hints` should be a list, each a `Hint`\. Found"),
        (ColorizeOptions(hints=["30%,40%=red"]), r"`options\.hints\[0\]` should be a `Hint`\. .*parse_hint"),
        (ColorizeOptions(hints=[Hint(0.5, "x", 3, 4)]), r"`options\.hints\[0\]\.y` should be a number\."),
        (ColorizeOptions(sample=None), r"`options\.sample` should be a whole number\. Found `.* = None`"),
        (
            ColorizeOptions(reference="red.jpg"),
            r"`options\.reference` .*Make a `Reference` by `Colorizer\.reference`",
        ),
        (
            ColorizeOptions(reference=FITTING["Image"]),
            r"`options\.reference` .*Make a `Reference` by `Colorizer\.reference`",
        ),
        (
            {"saturation": 2},
            r"`options` should be a `ColorizeOptions`\. Found .*`ColorizeOptions\(saturation=1\.2\)`",
        ),
    ],
)
def test_what_stands_in_options_is_checked_too(options, message):
    with pytest.raises(ArgumentError, match=message):
        Colorizer.load().colorize(FITTING["Image"], options)


def test_what_numbers_and_lists_others_have_is_taken():
    config = load_config("demo", files=(), settings=("training.heads.epochs=3",))
    plan = make_plan(
        config, dict.fromkeys(("colour", "class")).keys(), seeds=np.arange(2), task_weight_grid=()
    )
    assert (list(plan.arms), plan.seeds) == (["colour", "class"], (0, 1))
    options = ColorizeOptions(saturation=np.float32(1.5), hints=(Hint(0.5, np.float64(0.5), 3, 4),))
    assert Colorizer.load().colorize(FITTING["Image"], options).image.pixels.shape == (1, 1, 3)
