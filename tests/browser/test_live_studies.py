"""Studies on the page while they run: curves, axes, cells, and the address of the view."""

import pytest

from knowhue.serving.studies import CHARTS

playwright = pytest.importorskip("playwright.sync_api", reason="needs `pip install playwright`")
expect = playwright.expect
expect.set_options(timeout=60_000)  # as long as a click may take


def test_a_chart_of_a_study_has_different_numbers_at_its_ends(visit, log_epoch):
    log_epoch("multi", 1, 2, ab_l1=12.04, balanced_accuracy=0.467)
    log_epoch("colour", 1, 2, ab_l1=12.01, balanced_accuracy=0.468)
    page = visit().page
    page.get_by_role("tab", name="Studies").click()
    page.locator(".charts figure").first.wait_for()
    for chart in page.locator(".charts svg").all():
        ends = chart.locator("text").all_text_contents()[:2]
        assert ends[0] != ends[1]
        assert all("." in end and len(end) >= 5 for end in ends)  # units of a hundredth


def test_a_study_is_followed_while_it_runs(visit, log_epoch, served):
    log_epoch("multi", 0, 1, ab_l1=14.0, balanced_accuracy=0.6)
    page = visit().page
    page.get_by_role("tab", name="Studies").click()
    expect(page.get_by_text("0 of 6 runs done")).to_be_visible()
    first = page.locator(".cells td.running, .cells td.missing").all_inner_texts()
    log_epoch("multi", 0, 3, ab_l1=12.0, balanced_accuracy=0.7)
    expect(page.locator(".charts figure")).to_have_count(2)
    expect(page.locator(".charts text", has_text="epoch 3").first).to_be_visible()
    assert first
    assert page.locator(".study h2").inner_text() == "small"


def test_numbers_of_a_chart_are_written_as_in_the_report_and_its_ends_are_outside_all_values(visit):
    """Shares are shown in per cent with one decimal, CIELAB units with two decimals, everywhere."""
    families = [
        [0.0],
        [1.0],
        [0.467],
        [0.467, 0.4671],
        [12.0, 12.000001],
        [12.004, 12.006],
        [0.1, 0.9],
        [1 / 3, 2 / 3],
    ]
    page = visit().page
    found = page.evaluate(
        """async ([charts, families]) => {
            const { axisEnds, formatValue } = await import("./page/studies.js");
            return charts.map((metric) => [metric, formatValue(metric, 0.467), families.map((values) => {
                const [low, high] = axisEnds(metric, values);
                return [low, high, formatValue(metric, low), formatValue(metric, high)];
            })]);
        }""",
        [CHARTS, families],
    )
    assert [text for _, text, _ in found] == ["0.47", "46.7 %"]
    for metric, _, all_ends in found:
        for values, (low, high, first, last) in zip(families, all_ends, strict=True):
            assert low - 1e-6 / metric["scale"] <= min(values) <= max(values) <= high + 1e-6 / metric["scale"]
            assert first != last
            for end, text in ((low, first), (high, last)):
                assert float(text.removesuffix(metric["unit"])) == pytest.approx(metric["scale"] * end)
            assert low >= 0
            assert high <= 1 or max(values) > 1  # never 100.1 %


def test_a_chart_names_what_is_had_without_a_model_and_lays_the_only_epoch_above_its_number(visit):
    page = visit().page
    drawn = page.evaluate(
        """async (charts) => {
        const { draw } = await import("./page/studies.js");
        const texts = (figure) => [...figure.querySelectorAll("text")].map((each) => each.textContent);
        const line = (values) => [{ style: "multi", values }];
        const many = draw({ ...charts[0], level: 14.256 }, line([13, 12])), one = draw({ ...charts[1], level: null }, line([0.3]));
        return {
            many: texts(many), levels: many.querySelectorAll(".level").length, path: many.querySelector(".multi").getAttribute("d"),
            one: texts(one), none: one.querySelectorAll(".level").length, across: one.querySelector("circle").cx.baseVal.value,
            label: many.querySelector("svg").getAttribute("aria-label"),
        };
    }""",
        CHARTS,
    )
    assert drawn["many"][:2] == ["14.26", "12.00"]
    assert "gray 14.26" in drawn["many"]
    assert (drawn["levels"], drawn["none"]) == (1, 0)
    assert len(drawn["path"].split("L")) == 2
    assert drawn["label"].endswith("from 13.00 to 12.00")
    assert drawn["one"][3] == "epoch 1"
    assert drawn["across"] == pytest.approx(440, abs=10)


def test_curves_that_are_alike_are_all_seen(visit):
    page = visit().page
    drawn = page.evaluate(
        """async (charts) => {
        const { draw } = await import("./page/studies.js"), styles = ["single", "single dash1", "multi", "multi dash1"];
        const of = (values) => draw({ ...charts[0], level: null }, styles.map((style) => ({ style, values })));
        const figure = of([13, 12]), root = document.createElement("div");
        root.className = "charts";
        root.append(figure);
        document.body.append(root);
        const lines = [...figure.querySelectorAll(".single, .multi")], dots = [...of([13]).querySelectorAll("circle")];
        const sizes = [...lines.map((line) => parseFloat(getComputedStyle(line).strokeWidth)), ...dots.map((dot) => dot.r.baseVal.value)];
        return [...lines, ...dots].map((each, place) => [each.getAttribute("class"), sizes[place]]);
    }""",
        CHARTS,
    )
    for shown in (drawn[:4], drawn[4:]):  # lines, and the dots of a single epoch
        assert [style for style, _ in shown] == ["multi", "multi dash1", "single", "single dash1"]
        sizes = [size for _, size in shown]
        assert min(sizes[:2]) >= 2 * max(sizes[2:])


def test_the_address_names_the_view_so_that_loading_again_keeps_it(visit):
    page = visit(height=300).page
    tabs = {name: page.get_by_role("tab", name=name) for name in ("Studies", "Colour")}
    for name, end in (("Studies", "/#studies"), ("Colour", "/")):
        tabs[name].click()
        assert page.url.endswith(end)
        page.reload()
        page.locator("body[data-ready]").wait_for()
        expect(tabs[name]).to_have_attribute("aria-selected", "true")
        assert page.evaluate("scrollY") == 0
    page.evaluate("location.hash = '#studies'")
    expect(page.get_by_role("heading", name="Studies", exact=True)).to_be_visible()
    page.evaluate("window.isAsItWas = true")
    for go, name in ((page.go_back, "Colour"), (page.go_forward, "Studies")):
        go()
        expect(tabs[name]).to_have_attribute("aria-selected", "true")
    assert page.evaluate("window.isAsItWas"), "the page was loaded again"
