"""`knowhue serve`: a web page and an HTTP API for trained models."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field

from knowhue.apps.models import announce, open_model
from knowhue.apps.program import Options, Rare, rare_option, say
from knowhue.errors import ConfigError, needing, should_be
from knowhue.inference.description import Fast, ModelChoice
from knowhue.runs import BUILT_IN, FROZEN, path_hint
from knowhue.serving.settings import ServerSettings


class ServeArguments(Options):
    """Options of `knowhue serve`; fields that `ServerSettings` has as well are passed on to it."""

    model: list[str] | None = None
    """model to serve, `NAME=PATH` or a path as for `knowhue colorize`; may be repeated. Requests use the first by
    default; without this option it is the built-in model"""
    recipe: Rare[list[str] | None] = None
    """`NAME=RECIPE` of a model that is a published .onnx file, see `knowhue colorize`; may be repeated"""
    studies: Annotated[list[Path] | None, typer.Option("--study")] = None
    """folder of a study whose progress the page shows; may be repeated"""
    host: str = "127.0.0.1"
    """address to listen on; addresses that other machines can reach need --token or --no-auth"""
    port: Annotated[int, Field(ge=0, le=65535)] = 7860
    """port to listen on; 0 for any free one"""
    token: Annotated[str | None, typer.Option(envvar="KNOWHUE_TOKEN")] = None
    """token that clients must send, 16 characters or more"""
    no_auth: Rare[bool] = False
    """allow access without a token from every machine that can reach the server"""
    hosts: Annotated[list[str] | None, rare_option("--allowed-host")] = None
    """host name, besides localhost, that browsers can use; may be repeated"""
    fast: Rare[Fast] = False
    page: Annotated[bool, rare_option("--page/--no-page")] = True
    """serve the page, or only the API"""
    batch_size: Annotated[Rare[int], Field(ge=1)] = 8
    """most images in a batch of the network"""
    queue_length: Annotated[Rare[int], Field(ge=1)] = 64
    """requests accepted at once; further ones are answered with 429"""


def serve_command(arguments: ServeArguments) -> None:
    """Serve trained models as a web page and an HTTP API."""
    # checked before models are opened, which takes seconds
    values = {name: value for name, value in arguments if name in ServerSettings.model_fields}
    settings = ServerSettings(**{name: value for name, value in values.items() if value is not None})
    for folder in settings.studies:
        if not folder.is_dir():
            names = "--study names the folder of a study, which may be empty until `knowhue study` has begun"
            raise ConfigError(f"{folder}: no such folder; {names}.{path_hint(folder)}")
        if not (folder / FROZEN).exists():  # the study may be about to begin
            shown = "the page shows it once `knowhue study` has begun there"
            say(f"{folder} holds no study yet: {shown}", err=True)
    _serve(_choices(arguments), settings, arguments.page)


def _serve(choices: Mapping[str, ModelChoice], settings: ServerSettings, page: bool) -> None:
    with needing("`knowhue serve`", "serve"):
        from knowhue.serving.run import listening
        from knowhue.serving.run import serve as run

    listening(settings).close()  # report a wrong address before models are opened
    announce(choices.values())
    models = {name: open_model(choice) for name, choice in choices.items()}
    for name, colorizer in models.items():
        if name != colorizer.network.description.name:
            say(f"{name}: {colorizer.network.description.name}", err=True)
    run(
        models, settings, lambda address: say(f"Knowhue is at {address}"), page,
        lambda: say("Stopping; accepted requests are finished first ...", err=True),
    )  # fmt: skip
    say("Knowhue has stopped.", err=True)


def _choices(arguments: ServeArguments) -> dict[str, ModelChoice]:
    choices = {name: ModelChoice(path, fast=arguments.fast) for name, path in _named(arguments.model).items()}
    for text in arguments.recipe or []:
        name, _, recipe = text.partition("=")
        if name not in choices:
            wanted = f"NAME=RECIPE, where NAME is {' or '.join(choices)}, as --model names them"
            raise ConfigError(should_be("recipe", wanted, text))
        choices[name] = choices[name]._replace(recipe=recipe)
    return choices


def _named(models: list[str] | None) -> dict[str, str]:
    """Return paths by name; the name of a path without one is its last part."""
    named: dict[str, str] = {}
    for text in models or [BUILT_IN]:
        name, equals, path = text.partition("=")
        key = name if equals else Path(text).stem
        if not key or (equals and not path):
            raise ConfigError(should_be("model", "NAME=PATH or a path", text))
        if key in named:
            remedy = "Give names as NAME=PATH."
            raise ConfigError(f"`--model` should give each model another name. Found `{key}` twice. {remedy}")
        named[key] = path if equals else text
    return named
