"""The target `paper` plans the study's figures and their page; the default target plans neither."""

from collections import Counter

from worlds import World, own_config

MORE = Counter(paper_figures=1, paper_page=1)


def test_the_paper_is_two_jobs_more_than_the_rest_and_the_default_has_none(finished_world: World) -> None:
    assert finished_world.planned(own_config()) == Counter()
    assert finished_world.planned(own_config(), "paper") == MORE


def test_the_paper_of_a_users_own_inputs_is_drawn_and_rerun_only_for_what_it_shows(
    finished_world: World, tmp_path_factory
) -> None:
    world = finished_world.copy(tmp_path_factory.mktemp("paper") / "world")
    world.run("paper", config=own_config())
    assert world.planned(own_config(), "paper") == Counter()
    figures = {path.stem for path in (world.folder / "results/figures").glob("paper-*.svg")}
    assert figures == {"paper-poolings-reviews-96", "paper-scale", "paper-behaviours", "paper-baselines", "paper-binarisation", "paper-top-n"}  # fmt: skip
    page = (world.folder / "results/paper.html").read_text(encoding="utf-8")
    assert page.count("<img ") == len(figures) + 1
    changed = own_config()
    changed["datasets"]["reviews"]["title"] = "Reviews"
    assert world.planned(changed, "paper") == MORE + Counter(figure=5, findings=1, report=1)
