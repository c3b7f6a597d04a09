"""Channel workers as they are run: real consumers, real processes, a real hub."""

from tests.worker.project import Project

THUMBNAILS = '[workers.thumbnails]\nchannels = ["thumbnails"]\n'


def test_a_message_reaches_its_consumer(site: Project) -> None:
    with site.running(THUMBNAILS) as run:
        site.send("thumbnails", {"number": 1}, {"number": 2})
        run.wait_for(lambda: site.journal() == [1, 2])
        assert run.stop() == 0
    assert "Traceback" not in run.output()
