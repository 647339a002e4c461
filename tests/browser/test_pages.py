"""Every page opens in a browser, shows content, contacts no other host and logs no error.

The server's main page has tests of its own; here are the API's documentation and the reports.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

playwright = pytest.importorskip("playwright.sync_api", reason="needs `pip install playwright`")
from synthetic_comparison import write_comparison  # noqa: E402
from synthetic_study import write_study  # noqa: E402

from knowhue.report.page import write_report, write_verdict  # noqa: E402
from knowhue.report.results import conclude  # noqa: E402
from knowhue.report.table_study import TableOptions, read_table  # noqa: E402
from knowhue.storage import read_json, write_json  # noqa: E402

expect = playwright.expect
SCREENS = {
    "desktop": {"width": 1280},
    "dark": {"width": 1280, "color_scheme": "dark"},
    "phone": {"width": 390, "height": 800, "is_mobile": True, "has_touch": True},
}


@pytest.fixture(params=SCREENS)
def screen(request: pytest.FixtureRequest) -> dict[str, Any]:
    return SCREENS[request.param]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(write_study(tmp_path_factory.mktemp("report") / "demo", seeds=(0, 1)))


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(write_comparison(tmp_path_factory.mktemp("comparison")))


def test_the_documentation_shows_every_route_and_its_answers(opened, served, screen):
    page = opened(f"{served.address}/docs", **screen).page
    for path in ("/v1/colorize", "/v1/classify", "/v1/models", "/healthz", "/readyz", "/metrics"):
        expect(page.locator(f'.opblock [data-path="{path}"]')).to_be_visible()
    page.locator('[data-path="/v1/colorize"]').click()
    expect(
        page.locator(".opblock.is-open").get_by_text("factor for the chroma of the colours").first
    ).to_be_visible()
    expect(
        page.locator(".opblock.is-open .responses-table").get_by_text("Knowhue-Class").first
    ).to_be_visible()
    expect(page.locator(".errors-wrapper")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") <= screen["width"]


def test_the_documentation_sends_requests(opened, served):
    page = opened(f"{served.address}/docs").page
    page.locator('[data-path="/v1/models"]').click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table").get_by_text('"alone"').first).to_be_visible()


@pytest.mark.parametrize("kind", ["report", "comparison"])
def test_a_report_shows_all_of_its_figures(opened, request, kind, screen):
    file: Path = request.getfixturevalue(kind)
    page = opened(file.as_uri(), **screen).page
    expect(page.locator("h1")).to_be_visible()
    assert page.locator("figure").count() >= 1
    assert_drawn(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= screen["width"]


def test_a_command_is_code_and_breaks_between_its_words(opened, tmp_path, screen):
    folder = write_study(tmp_path / "demo", seeds=(0, 1))
    command = (
        "knowhue study --preset demo --set training.heads.epochs=3 --tuned-on runs/other --out runs/demo"
    )
    frozen = read_json(folder / "study.json")
    write_json(folder / "study.json", frozen | {"command": command})
    for status in folder.glob("class/seed-*/status.json"):
        write_json(status, read_json(status) | {"state": "running"})
    page = opened(write_report(folder).as_uri(), **screen).page
    page.locator("details").evaluate_all("all => all.forEach(e => e.open = true)")
    sentence = page.locator(".answer p").filter(has_text="Make it with")
    for code in (sentence.locator("code"), page.locator("pre code")):
        expect(code).to_have_text(command)
        heights = code.locator("span").evaluate_all("all => all.map(e => e.offsetHeight)")
        # no word is broken over two lines
        assert (len(heights), len({*heights})) == (len(command.split()), 1)


def test_a_number_of_rows_stays_in_one_piece_on_a_phone(opened, tmp_path):
    runs = [f"{arm},{seed},ab_l1,{place + seed / 10}" for place, arm in enumerate("ab") for seed in range(10)]
    table = tmp_path / "runs-of-our-laboratory-from-the-cluster.csv"
    table.write_text("\n".join(["arm,seed,metric,value", *runs]), encoding="utf-8")
    found = conclude(read_table([table], TableOptions(against="b", sesoi={"ab_l1": 0.1})))
    write_verdict(found, tmp_path / "v.html", tmp_path / "v.json")
    page = opened((tmp_path / "v.html").as_uri(), **SCREENS["phone"]).page
    lines = """e => { const text = document.createRange(); text.selectNodeContents(e); return text.getClientRects().length }"""
    cells = page.get_by_role("columnheader", name="Rows").or_(page.get_by_role("cell", name="20"))
    assert cells.evaluate_all(f"all => all.map({lines})") == [1, 1]


def test_no_table_of_a_report_is_cut_on_a_desktop(opened, report):
    page = opened(report.as_uri(), width=1280).page
    page.locator("details").evaluate_all("all => all.forEach(e => e.open = true)")
    cut = page.evaluate(
        "[...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth + 1).length"
    )
    assert cut == 0


@pytest.mark.parametrize("kind", ["report", "comparison"])
def test_axe_finds_nothing_serious_on_a_report_with_everything_unfolded(opened, request, kind, screen, axe):
    page = opened(request.getfixturevalue(kind).as_uri(), **screen).page
    page.locator("details").evaluate_all("all => all.forEach(e => e.open = true)")
    assert axe(page) == []


def test_a_report_of_one_seed_is_three_screens_long(opened, tmp_path):
    page = opened(write_report(write_study(tmp_path)).as_uri(), width=1280, height=800).page
    assert page.evaluate("document.documentElement.scrollHeight") <= 3 * 800
    page.locator("details.section > summary").first.click()
    expect(page.locator("#warnings")).to_be_visible()


def test_a_warning_is_unfolded_by_the_link_to_it(opened, report):
    page = opened(report.as_uri(), width=1280).page
    expect(page.locator("#warnings")).not_to_be_visible()
    page.locator('a[href="#warnings"]').click()
    expect(page.locator("#warnings")).to_be_visible()


def test_no_drawing_of_a_report_is_scrolled_sideways_on_a_phone(opened, report):
    page = opened(report.as_uri(), **SCREENS["phone"]).page
    page.locator("details").evaluate_all("all => all.forEach(e => e.open = true)")
    wide = page.locator(".drawing svg").evaluate_all("all => all.filter(e => e.clientWidth > 390).length")
    assert wide == 0


def test_the_server_shows_a_report_as_it_is(opened, served, report):
    """The report is in a sandbox, with a policy that must allow its styles, drawings and images."""
    (served.study / "report.html").write_bytes(report.read_bytes())
    page = opened(f"{served.address}/page/studies/0/report.html").page
    expect(page.locator("h1")).to_be_visible()
    assert_drawn(page)


def assert_drawn(page: Any) -> None:
    """No image is broken, and every drawing has more than one colour."""
    broken = page.locator("img").evaluate_all("all => all.filter(e => !e.naturalWidth).map(e => e.alt)")
    assert broken == []
    page.locator("details").evaluate_all("all => all.forEach(e => e.open = true)")
    for figure in page.locator("figure svg, figure img").all():
        shown = np.asarray(Image.open(io.BytesIO(figure.screenshot())).convert("L"))
        assert shown.std() > 2, figure.evaluate("e => e.outerHTML.slice(0, 200)")
