"""Which pools end before which, at the stop of a site."""

from pathlib import Path

from chansup.config import load
from chansup.supervisor.plan.building import build
from chansup.supervisor.pool.pool import Pool
from chansup.supervisor.pool.stop_order import dependents, levels

PROGRAMS = """
[programs.redis]
command = "true"

[programs.celery]
command = "true"
after = ["seed"]

[programs.clock]
command = "true"

[tasks.seed]
command = "true"
after = ["redis"]
"""


def test_a_pool_ends_after_those_that_need_it_through_a_task(tmp_path: Path) -> None:
    path = tmp_path / "chansup.toml"
    path.write_text(PROGRAMS)
    generation = build(1, load.load(path, {}), {})
    pools = {name: Pool(None, one) for name, one in generation.pools.items()}  # type: ignore[arg-type]
    needed_by = dependents(list(reversed(pools.values())), generation)
    assert needed_by == {
        pools["clock"]: [],
        pools["redis"]: [pools["celery"]],
        pools["celery"]: [],
    }
    assert levels(needed_by) == {pools["clock"]: 0, pools["redis"]: 1, pools["celery"]: 0}
