"""A plan's cells as jobs: what arms share is asked for once, and before them."""

from knowhue.cells import cell_jobs
from knowhue.engines.executor import each_once
from knowhue.plan import make_plan


def kinds(jobs):
    return [job.id.rsplit("/", 1)[0] for job in jobs]


def test_arms_need_their_heads_and_share_them(tiny):
    plan = make_plan(tiny(), ["colour", "class", "multi"], [0])
    jobs = each_once(cell_jobs(plan, gated={0}, do=print))
    assert kinds(jobs) == [
        "head/colour", "arm/colour", "head/class", "arm/class", "gate/multi", "arm/multi",
    ]  # fmt: skip
    by_id = {job.id: job for job in jobs}
    multi = jobs[-1]
    assert kinds([by_id[need] for need in multi.needs]) == ["head/colour", "head/class"]


def test_every_seed_has_its_own_jobs_and_the_gate_only_where_it_is_tried(tiny):
    plan = make_plan(tiny(), ["colour", "class", "multi"], [0, 7])
    jobs = each_once(cell_jobs(plan, gated={7}, do=print))
    assert len(jobs) == 5 + 6
    assert kinds(jobs).count("gate/multi") == 1
    assert len({job.id for job in jobs}) == len(jobs)


def test_an_id_names_the_same_work_in_every_call(tiny):
    plan = make_plan(tiny(), ["multi"], [0])
    one, two = (cell_jobs(plan, gated=(), do=print) for _ in range(2))
    assert [job.id for job in one] == [job.id for job in two]
    other = cell_jobs(make_plan(tiny(training__batch_size=8), ["multi"], [0]), gated=(), do=print)
    assert not {job.id for job in one} & {job.id for job in other}


def test_jobs_say_which_cell_they_are_done_for(tiny):
    plan = make_plan(tiny(), ["class", "multi"], [3])
    jobs = cell_jobs(plan, gated=(), do=lambda step: step.cell)
    assert [job.run() for job in jobs] == [("class", 3)] * 2 + [("multi", 3)] * 3


def test_arms_that_are_whole_ask_for_no_heads(tiny):
    plan = make_plan(tiny(), ["colour", "class", "multi"], [0])
    jobs = each_once(cell_jobs(plan, gated={0}, do=print, whole={("colour", 0), ("multi", 0)}))
    assert kinds(jobs) == ["arm/colour", "head/class", "arm/class", "gate/multi", "arm/multi"]
    assert [len(job.needs) for job in jobs] == [0, 0, 1, 0, 0]
    assert "head/" not in " ".join(kinds(cell_jobs(plan, {0}, print, {(arm, 0) for arm in plan.arms})))
