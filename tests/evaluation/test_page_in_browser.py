"""The page in Chromium: from disk, without a network, on a telephone and on a desktop, light and dark."""

import pytest

from medclip_keras.evaluation.pictures import pictures_section
from medclip_keras.evaluation.report import write
from medclip_keras.evaluation.sections import Section, Table
from tests.evaluation.test_report import odd_result

CONTRAST = """() => {
    const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
    const page = light(parse(getComputedStyle(document.body).backgroundColor));
    const letters = [...document.querySelectorAll(
        "figure svg [id*='tick'] [id*='text_'] > g, figure svg [id*='legend'] [id*='text_'] > g," +
        "main p, main td")];
    return Math.min(...letters.map(e => {
        const style = getComputedStyle(e);
        const own = light(parse(e.closest("svg") ? style.fill : style.color));
        return (Math.max(own, page) + .05) / (Math.min(own, page) + .05);
    }));
}"""
SMALLEST = """() => Math.min(...[...document.querySelectorAll("figure > svg")]
    .map(svg => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width))"""


@pytest.fixture(scope="module")
def page_file(measured, tmp_path_factory):
    """The page of two data sets, one of them with fifteen classes of long names, and pictures."""
    folder = tmp_path_factory.mktemp("page")
    strips = pictures_section(
        measured.zero_shot, lambda rows: rows.astype("uint8").repeat(64).reshape(-1, 8, 8, 1)
    )
    many = odd_result([f"finding number {n} of a rather long name" for n in range(15)], 200)
    results = {"world": measured, "<b>many</b> " + "long" * 20: many}
    made_from = {"run": "r", "versions": {"commit": "a" * 40}, "path": "/" + "very-long-name/" * 12}
    columns = tuple(f"column {n}" for n in range(30))
    wide = Section("wide", "Wide", "A table that only scrolls.", (Table("", columns, (columns,)),))
    write(results, folder, made_from, {"seed": 0}, {"world": [strips, wide]})
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_page_opens_alone_and_fits(browser, page_file, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
    page, wrong, asked = context.new_page(), [], []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.as_uri())
    assert wrong == []
    assert [url for url in asked if not url.startswith("data:")] == [page_file.as_uri()]
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("figure svg [id*='tick'] [id*='text_'] > g").count() > 20
    assert page.evaluate(CONTRAST) > 4.5
    frame = "getComputedStyle(document.querySelector(\"figure svg [id*='patch_3'] path\")).stroke"
    shade = {"light": "rgb(196, 206, 215)", "dark": "rgb(67, 82, 95)"}[scheme]
    assert page.evaluate(frame) == shade
    assert page.evaluate(SMALLEST) > 0.95  # letters of 9 to 10 points have at least as many pixels
    broken = "[...document.images].filter(i => !i.naturalWidth).length"
    assert page.evaluate(broken) == 0
    context.close()


def test_every_link_leads_to_its_section(browser, page_file):
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(page_file.as_uri())
    links = page.locator("nav a").all()
    assert len(links) > 5
    for link in links:
        target = link.get_attribute("href")
        page.goto(page_file.as_uri() + target)
        assert page.evaluate("document.querySelector(':target') !== null"), target
    page.close()
