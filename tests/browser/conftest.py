"""A real server with the page, and a real browser, which must not contact any other host."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="needs `pip install playwright`")
axe_playwright = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="needs `pip install axe-playwright-python`"
)

from fake_network import FakeNetwork  # noqa: E402
from fake_server import running  # noqa: E402

from knowhue.config import Config  # noqa: E402
from knowhue.inference.colorizer import Colorizer  # noqa: E402
from knowhue.inference.networks import Predictions  # noqa: E402
from knowhue.plan import Plan, make_plan  # noqa: E402
from knowhue.runs import STUDY_SCHEMA, run_folder, write_log  # noqa: E402
from knowhue.storage import write_json  # noqa: E402

GOOD = range(400)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class ColourOnly(FakeNetwork):
    """Has no class head, and paints everything blue."""

    def predict(self, lightness: np.ndarray) -> Predictions:
        answers = super().predict(lightness)
        assert answers.chroma is not None
        return answers._replace(chroma=answers.chroma * np.float32(-0.5), probabilities=None)


class Served(NamedTuple):
    """A running server: its address, and the study that it shows."""

    address: str
    study: Path
    plan: Plan


class Visit(NamedTuple):
    """An open page, and the addresses that it has requested."""

    page: Any
    requests: list[str]


@pytest.fixture(scope="module")  # the driver's event loop must not outlive these tests
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"needs a browser, none of {', '.join(BROWSERS)} is there: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def context_of(browser: Any) -> Callable[..., Any]:
    """Browser contexts by screen: `context_of(viewport={"width": 390, "height": 900}, is_mobile=True)`.

    The first page of a context stays open to keep its process, because starting one takes two thirds of a page's time.
    """
    made: dict[str, Any] = {}

    def find(**screen: Any) -> Any:
        key = json.dumps(screen, sort_keys=True)
        if key not in made:
            made[key] = browser.new_context(**screen)
            made[key].new_page()
        return made[key]

    return find


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    study, plan = tmp_path_factory.mktemp("studies") / "small", make_plan(Config(), seeds=(0, 1))
    write_json(study / "study.json", {**STUDY_SCHEMA, "hash": "0" * 64, **plan.model_dump(mode="json")})
    models = {"alone": Colorizer(ColourOnly(tasks=("colour",))), "both": Colorizer(FakeNetwork())}
    with running(models, with_page=True, stop_seconds=1, studies=(study,)) as (host, port, _):
        yield Served(f"http://{host}:{port}", study, plan)


@pytest.fixture
def opened(context_of: Callable[..., Any]) -> Iterator[Callable[..., Visit]]:
    """Open an address: `opened(url, width=390, color_scheme="dark")`.

    Afterwards, every opened page must have contacted only its own host, without errors in the console or in responses.
    Responses with the status `refused` are allowed, because the test provokes them.
    """
    visits: list[tuple[Any, Visit, str]] = []
    errors: list[str] = []

    def go(url: str, width: int = 1280, height: int = 900, refused: int = 0, **options: Any) -> Visit:
        context = context_of(viewport={"width": width, "height": height}, **options)
        page = context.new_page()
        page.bring_to_front()
        seen = Visit(page, [])
        visits.append((context, seen, _origin(url)))
        page.set_default_timeout(60_000)  # long, because the machine may be busy
        page.on("request", lambda request: seen.requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "response",
            lambda got: (
                errors.append(f"{got.status} {got.url}") if got.status not in (refused, *GOOD) else None
            ),
        )
        expected = f"status of {refused} "
        page.on(
            "console",
            lambda line: (
                errors.append(line.text) if line.type == "error" and expected not in line.text else None
            ),
        )
        page.goto(url)
        return seen

    yield go
    for context, seen, origin in visits:
        for page in context.pages[1:]:
            page.close()
        context.clear_cookies()
        foreign = [url for url in seen.requests if not url.startswith((origin, "data:", "blob:"))]
        assert foreign == []
    assert errors == []


def _origin(url: str) -> str:
    """The prefix of all requests of a page: its host, or for a file its own address."""
    found = urlsplit(url)
    return url if found.scheme == "file" else f"{found.scheme}://{found.netloc}/"


@pytest.fixture
def axe() -> Callable[[Any], list[str]]:
    """Serious and critical accessibility problems of a page (WCAG 2 A, AA and others), by axe: `axe(page)`."""

    def find(page: Any) -> list[str]:
        found = axe_playwright.Axe().run(page).response["violations"]
        return [
            f"{each['id']}: {node['html'][:100]}"
            for each in found
            if each["impact"] in ("serious", "critical")
            for node in each["nodes"]
        ]

    return find


@pytest.fixture
def visit(opened: Callable[..., Visit], served: Served) -> Callable[..., Visit]:
    """Open the server's page: `visit(width=360, color_scheme="dark")`."""

    def go(**options: Any) -> Visit:
        seen = opened(served.address, **options)
        seen.page.locator("body[data-ready]").wait_for()
        return seen

    return go


@pytest.fixture
def log_epoch(served: Served) -> Callable[..., None]:
    """Write the log of a run with some number of epochs: `log_epoch("multi", 0, 3, ab_l1=12.5)`."""

    def log(arm: str, seed: int, epochs: int, **validation: float) -> None:
        folder = run_folder(served.study, arm, served.plan.run_config(arm, seed))
        lines = [
            {"phase": "finetune", "epoch": epoch, "validation": validation, "seconds": 1.0}
            for epoch in range(1, epochs + 1)
        ]
        write_log(folder, json.loads(json.dumps(lines)))

    return log
