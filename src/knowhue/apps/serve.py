"""`knowhue serve`: the page and the HTTP API."""

from pathlib import Path
from typing import Annotated

import typer

from knowhue.apps.printing import say
from knowhue.errors import ConfigError


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="`NAME=PATH`, or a path as for `knowhue colorize`; may be repeated. The first is the usual one."
        ),
    ] = None,
    study: Annotated[
        list[Path] | None, typer.Option(help="Study folder that the page shows, live; may be repeated.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address; others than this machine's need --token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 is any free one.")] = 7860,
    token: Annotated[
        str | None,
        typer.Option(envvar="KNOWHUE_TOKEN", help="What a client must show, 16 characters or more."),
    ] = None,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Let everybody in who can reach it.")] = False,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="Further name by which browsers may call it; may be repeated.")
    ] = None,
    page: Annotated[bool, typer.Option("--page/--no-page", help="The page, or the API alone.")] = True,
    batch_size: Annotated[int, typer.Option(min=1, help="Images that the network looks at together.")] = 8,
    queue_length: Annotated[
        int, typer.Option(min=1, help="Requests accepted at once; more are answered 429.")
    ] = 64,
) -> None:
    """Open a page and an HTTP API over trained models, for one photo or a program."""
    from knowhue.serving.settings import ServerSettings

    settings = ServerSettings(
        host=host,
        port=port,
        token=token,
        no_auth=no_auth,
        hosts=tuple(allowed_host or ()),
        batch_size=batch_size,
        queue_length=queue_length,
        studies=_existing(study or []),
    ).check()
    paths = _named(model or ["built-in"])
    say(f"Opening {', '.join(paths)} ...", err=True)  # what follows takes seconds
    from knowhue.apps.use import load
    from knowhue.serving.run import serve as run

    models = {name: load(path) for name, path in paths.items()}
    for name, colorizer in models.items():
        typer.echo(f"{name}: {colorizer.network.description.name}", err=True)
    run(models, settings, lambda address: typer.echo(f"Knowhue is at {address}"), page)


def _existing(studies: list[Path]) -> tuple[Path, ...]:
    for study in studies:
        if not study.is_dir():
            raise ConfigError(f"`--study` should be a study folder. Found no folder `{study}`.")
    return tuple(studies)


def _named(models: list[str]) -> dict[str, str]:
    """Names to paths; a path alone is called by its last part."""
    named: dict[str, str] = {}
    for text in models:
        name, equals, path = text.partition("=")
        key = name if equals else Path(text).stem
        if not key or (equals and not path):
            raise ConfigError(f"`--model` should be NAME=PATH or a path. Found `--model {text}`.")
        if key in named:
            raise ConfigError(
                f"`--model` should give each model a name of its own. Found `{key}` twice: NAME=PATH."
            )
        named[key] = path if equals else text
    return named
