"""The report as a reader meets it: in a browser, from disk, wide and narrow, light and dark, by mouse and by keyboard."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import EVIL, PHONE, WIDE, Open, Report
from playwright.sync_api import Page, expect

SIZES = pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
PAGES = ("front", "scores", "figures", "datasets", "dataset.requests", "models", "explore", "failures", "methods")
TASK = "#explore.demo-large.docstrings"
HOSTILE = "#explore.demo-large.requests"


def shown(page: Page) -> list[str]:
    return page.locator("section.page:visible").evaluate_all("pages => pages.map(page => page.id)")


def rows(page: Page, table: str) -> list[str]:
    """The first cell of each row that is to be seen."""
    return [row.strip() for row in page.locator(f'[id="{table}"] tbody tr:visible th').all_inner_texts()]


# --- pages -----------------------------------------------------------------------------------------------------------


@SIZES
def test_one_page_is_shown_at_a_time_and_its_link_is_marked(opened: Open, size: tuple[int, int]) -> None:
    page = opened(size=size)
    assert shown(page) == ["front"]
    page.get_by_role("link", name="Scores", exact=True).first.click()
    # An address that changes is acted upon a moment later.
    expect(page.locator("section.page:visible")).to_have_id("scores")
    assert page.locator("nav a[aria-current]").all_inner_texts() == ["Scores"]
    assert page.title() == "Scores \u2013 Tessera"
    page.go_back()
    expect(page.locator("section.page:visible")).to_have_id("front")


@SIZES
def test_no_page_is_wider_than_the_window(opened: Open, size: tuple[int, int]) -> None:
    page = opened(size=size)
    for place in (*PAGES, TASK[1:], "sae.demo-large-l1-512"):
        page.evaluate("place => { location.hash = place }", place)
        expect(page.locator("section.page.shown")).to_have_id(place)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), place


@SIZES
def test_a_deep_link_opens_at_its_page_its_figure_and_its_feature(opened: Open, size: tuple[int, int]) -> None:
    page = opened("#figure-saes", size)
    assert shown(page) == ["figures"]
    expect(page.locator('[id="figure-saes"]')).to_be_in_viewport()
    first = page_of_first_feature(opened(TASK, size))
    page = opened(first, size)
    assert page.locator("article:visible").evaluate_all("views => views.map(view => '#' + view.id)") == [first]
    expect(page.locator("article:visible h3")).to_be_in_viewport()
    assert not page.locator(".listing:visible").count()


def test_an_address_that_leads_nowhere_opens_the_first_page(opened: Open) -> None:
    assert shown(opened("#nobody-lives-here")) == ["front"]


def test_all_pages_stand_in_a_row_if_asked_and_without_a_script(opened: Open) -> None:
    every = opened("#all")
    total = every.locator("section.page").count()
    assert every.locator("section.page:visible").count() == total
    plain = opened(scripts=False)
    assert plain.locator("section.page:visible").count() == total
    assert plain.locator("article.view:visible").count() == plain.locator("article.view").count()
    assert not plain.locator("#theme:visible, .filters:visible").count()


def test_a_theme_is_the_systems_until_one_is_chosen_and_is_kept(opened: Open, finished: Report) -> None:
    page = opened(theme="dark")

    def ground() -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    assert ground() == "rgb(22, 25, 29)"
    page.get_by_role("button", name="Light theme").click()
    assert ground() == "rgb(255, 255, 255)"
    page.reload()
    assert ground() == "rgb(255, 255, 255)"
    page.get_by_role("button", name="Dark theme").click()
    assert ground() == "rgb(22, 25, 29)"


def test_on_paper_there_is_what_is_chosen_in_black_and_no_controls(opened: Open) -> None:
    page = opened(TASK, theme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav:visible, button#theme:visible, .filters:visible").count()
    assert shown(page) == [TASK[1:]]


def test_a_link_to_a_figure_shows_it_though_those_above_are_drawn_later(opened: Open) -> None:
    page = opened("#figure-saes")
    image = page.locator("#figures figure").nth(1).locator("img")
    page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=image.element_handle())
    assert image.get_attribute("loading") == "lazy"
    # Without its size a picture that is drawn later would push away what is below it.
    assert not page.locator("#figures img:not([width][height])").count()
    expect(page.locator("#figure-saes")).to_be_in_viewport()


def test_the_numbers_of_a_figure_can_be_saved(opened: Open) -> None:
    page = opened("#figures")
    with page.expect_download() as download:
        page.locator("#figures figure").nth(1).locator("a[download]").click()
    assert download.value.suggested_filename == "saes.csv"
    assert download.value.path().read_text(encoding="utf-8").startswith("sae,")


# --- the explorer ----------------------------------------------------------------------------------------------------


@SIZES
def test_a_search_finds_features_by_the_words_of_their_examples(opened: Open, size: tuple[int, int]) -> None:
    page = opened(TASK, size)
    table = f"{TASK[1:]}/list"
    everything = rows(page, table)
    page.locator(f"{css(TASK)} input[type=search]").first.fill(everything[3])
    assert everything[3] in rows(page, table)
    assert len(rows(page, table)) < len(everything)
    page.locator(f"{css(TASK)} input[type=search]").first.fill("no such word anywhere")
    assert rows(page, table) == []
    assert page.locator(f"{css(TASK)} output").first.inner_text() == "0 of 30 features"


@SIZES
def test_a_list_sorts_both_ways_by_number(opened: Open, size: tuple[int, int]) -> None:
    page = opened(TASK, size)
    table = f"{TASK[1:]}/list"
    head = page.locator(f'[id="{table}"] thead th', has_text="Feature")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    numbers = [int(row) for row in rows(page, table)]
    assert numbers == sorted(numbers)
    head.get_by_role("button").click()
    assert [int(row) for row in rows(page, table)] == numbers[::-1]
    weights = page.locator(f'[id="{table}"] thead th', has_text="Weight")
    weights.get_by_role("button").click()
    cells = page.locator(f'[id="{table}"] tbody td:nth-child(4)').all_inner_texts()
    found = [float(re.split(r"\s", cell.replace("\N{MINUS SIGN}", "-"))[0]) for cell in cells]
    assert found == sorted(found, reverse=True)


@SIZES
def test_filters_keep_what_fits_all_of_them(opened: Open, size: tuple[int, int]) -> None:
    page = opened(TASK, size)
    table = f"{TASK[1:]}/list"
    page.locator(f"{css(TASK)} select").first.select_option("scipy")
    page.locator(f"{css(TASK)} input[type=checkbox]").first.check()
    kept = page.locator(f'[id="{table}"] tbody tr:visible')
    assert 0 < kept.count() < 30
    for row in kept.all():
        cells = row.locator("td").all_inner_texts()
        assert cells[1] == "scipy"
        assert cells[2].startswith("+")
        assert cells[4] == "100%"


def test_the_predictions_that_are_wrong_are_found(opened: Open) -> None:
    page = opened(TASK)
    table = f"{TASK[1:]}/examples"
    page.locator(f'{css(TASK)} [data-key="sae"]').select_option("wrong")
    wrong = rows(page, table)
    assert wrong
    page.locator(f'[id="{table}"] tbody tr:visible th a').first.click()
    expect(page.locator("article.why:visible tbody tr").first).to_contain_text("wrong")


@SIZES
def test_a_feature_opens_steps_in_the_order_of_its_list_and_goes_back(opened: Open, size: tuple[int, int]) -> None:
    page = opened(TASK, size)
    table = f"{TASK[1:]}/list"
    page.locator(f'[id="{table}"] thead th', has_text="Feature").get_by_role("button").click()
    order = rows(page, table)
    page.locator(f'[id="{table}"] tbody th a').first.click()
    expect(page.locator("article:visible h3")).to_have_text(f"Feature {order[0]}")
    page.locator("article:visible .after").click()
    expect(page.locator("article:visible h3")).to_have_text(f"Feature {order[1]}")
    page.locator("article:visible").get_by_text("All features").click()
    expect(page.locator(f'[id="{table}"]')).to_be_visible()
    assert rows(page, table) == order


def test_the_explorer_can_be_used_with_keys_alone(opened: Open) -> None:
    page = opened(TASK)
    table = f"{TASK[1:]}/list"
    order = rows(page, table)
    page.locator(f'[id="{table}"] tbody th a').first.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowUp", "Enter"):
        page.keyboard.press(key)
    heading = page.locator("article:visible h3")
    expect(heading).to_have_text(f"Feature {order[1]}")
    page.keyboard.press("ArrowRight")
    expect(heading).to_have_text(f"Feature {order[2]}")
    page.keyboard.press("ArrowLeft")
    expect(heading).to_have_text(f"Feature {order[1]}")
    page.keyboard.press("Escape")
    # An address that changes is acted upon a moment later.
    expect(page.locator("th a:focus")).to_have_text(order[1])


def test_every_control_is_reached_by_tab(opened: Open) -> None:
    page = opened(TASK)
    controls = page.locator("a:visible, button:visible, input:visible, select:visible, summary:visible").count()
    reached = set()
    for _ in range(controls + 20):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("[...document.querySelectorAll('*')].indexOf(document.activeElement)"))
    kinds = page.evaluate(
        "all => all.map(place => document.querySelectorAll('*')[place]).filter(each => each.matches('a, button, input, select, summary')).length",
        [place for place in reached if place >= 0],
    )
    # The link that skips to the page is there for those who tab, and not to be seen until then.
    assert kinds == controls + page.locator("a.skip:not(:visible)").count()


def test_values_are_written_beside_tokens_if_asked(opened: Open) -> None:
    page = opened(page_of_first_feature(opened(TASK)))
    mark = page.locator("article:visible mark").first
    assert page.evaluate("mark => getComputedStyle(mark, '::after').content", mark.element_handle()) == "none"
    page.locator(css(TASK)).get_by_label("write the values beside the tokens").check()
    value = mark.get_attribute("title")
    assert f'" {value}"' == page.evaluate("mark => getComputedStyle(mark, '::after').content", mark.element_handle())


def test_a_task_beside_the_report_opens_from_disk_and_leads_back(opened: Open, finished: Report) -> None:
    page = opened("#explore")
    page.locator("section.page.shown tbody th a").nth(2).click()
    expect(page.locator("h2:visible")).to_have_text("digits: features of Demo, large")
    page.locator('[id="explore.demo-large.digits/list"] tbody th a').first.click()
    expect(page.locator("article:visible")).to_be_visible()
    size = page.locator("article:visible .patches svg").first.bounding_box()
    assert size is not None
    assert size["height"] > 60
    page.locator("nav a", has_text="Report").click()
    expect(page.locator("section.page.shown")).to_have_id("front")


# --- what other people wrote -----------------------------------------------------------------------------------------


@SIZES
def test_words_of_other_people_are_shown_as_text_and_do_nothing(opened: Open, size: tuple[int, int]) -> None:
    page = opened(HOSTILE, size)
    text = page.locator("main").text_content() or ""
    for words in (EVIL[0], EVIL[1], EVIL[2], EVIL[3], "[U+202E]back to front", "\u2400\u241b[31m", EVIL[6]):
        assert words in text, words
    for link in page.locator(f'[id="{HOSTILE[1:]}/list"] tbody th a').all()[:3]:
        page.goto(finished_place(page, link.get_attribute("href") or ""))
        assert page.title().endswith("Tessera")
    assert page.locator("script").count() == 1
    assert not page.locator("main img[src=x]").count()


def test_the_policy_stops_a_script_and_a_request_that_markup_would_bring(opened: Open) -> None:
    page = opened(complains=True)
    blocked = page.evaluate(
        """async () => {
            const stopped = [];
            addEventListener("securitypolicyviolation", (event) => stopped.push(event.effectiveDirective));
            document.body.insertAdjacentHTML("beforeend", '<img src=x onerror="window.taken = 1"><p style="color: red">x</p>');
            document.body.append(Object.assign(document.createElement("script"), { textContent: "window.taken = 2" }));
            await new Promise((done) => setTimeout(done, 200));
            return [stopped, window.taken ?? null];
        }"""
    )
    assert set(blocked[0]) == {"img-src", "style-src-attr", "script-src-attr", "script-src-elem"}
    assert blocked[1] is None


# --- for everyone ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
@SIZES
def test_no_page_has_a_fault_that_axe_knows(opened: Open, size: tuple[int, int], theme: str) -> None:
    page = opened(size=size, theme=theme)
    axe = Axe()
    feature = page_of_first_feature(opened(TASK))
    for place in (*PAGES, TASK[1:], feature[1:], f"{TASK[1:]}/example/1"):
        page.evaluate("place => { location.hash = place }", place)
        page.wait_for_function("place => document.getElementById(place).closest('.page').matches('.shown')", arg=place)
        found = axe.run(page).response["violations"]
        assert not found, [(place, fault["id"], fault["nodes"][0]["html"][:200]) for fault in found]


# --- helpers ---------------------------------------------------------------------------------------------------------


def css(place: str) -> str:
    return f'[id="{place[1:]}"]'


def page_of_first_feature(page: Page) -> str:
    return page.locator(f'[id="{TASK[1:]}/list"] tbody th a').first.get_attribute("href") or ""


def finished_place(page: Page, place: str) -> str:
    return page.url.split("#")[0] + place
