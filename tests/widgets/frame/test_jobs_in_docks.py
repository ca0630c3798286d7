"""The laws of cancelling and failing: whatever a job does, its dock becomes idle, says so, and can run it again."""

from __future__ import annotations

import gc
import threading
from concurrent.futures.process import BrokenProcessPool
from weakref import ref

import pytest
from docks import PATIENCE
from napari.utils.notifications import notification_manager
from napari.utils.progress import progress
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_nnunet.errors import ImageError
from napari_nnunet.events import CaseFailed, Note, Progress, Stage
from napari_nnunet.widgets.frame import parts
from napari_nnunet.widgets.frame.dock import Dock, RequestDock
from napari_nnunet.widgets.frame.panel import RunPanel, RunState
from napari_nnunet.widgets.frame.ready import NotReadyError
from napari_nnunet.widgets.frame.state import state_of
from napari_nnunet.widgets.frame.worker import Cancelled, JobWorker

EVENTS = (Stage(name="Working"), Progress(done=1, total=2), Note(text="Halfway."), Progress(done=2, total=2))


class Gate:
    """A job that stops before each of its steps until the test lets it go on."""

    def __init__(self, count):
        self.count = count
        self.reached = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.closed = False

    def step(self):
        self.reached.release()
        assert self.go.acquire(timeout=PATIENCE)

    def job(self):
        try:
            for event in EVENTS[: self.count]:
                self.step()
                yield event
            self.step()
            return "the result"
        finally:
            self.closed = True


@pytest.fixture
def panel(qtbot, viewer):
    made = RunPanel("Work")
    viewer.window.add_dock_widget(made, name="work")
    return made


def _idle(qtbot, panel):
    qtbot.waitUntil(lambda: panel.state is RunState.IDLE)
    assert panel.button.isEnabled()
    assert panel.button.text() == "Work"
    assert not panel.bar.isVisible()
    assert not list(progress._all_instances)  # napari's activity has no entry left


@pytest.mark.parametrize(("count", "at"), [(count, at) for count in (0, 1, len(EVENTS)) for at in range(count + 1)])
def test_a_job_cancelled_at_any_step_leaves_its_panel_idle_and_runs_again(panel, qtbot, count, at):
    gate, done, cancelled = Gate(count), [], []
    panel.run(gate.job(), done=done.append, cancelled=cancelled.append)
    for _ in range(at):
        assert gate.reached.acquire(timeout=PATIENCE)
        gate.go.release()
    assert gate.reached.acquire(timeout=PATIENCE)  # the job is inside step `at`, the last one is that before its end
    panel.cancel()
    assert panel.state is RunState.CANCELLING
    gate.go.release()
    _idle(qtbot, panel)
    assert gate.closed
    if at == count:  # no event was left at which it could stop: it is finished
        assert (done, cancelled) == (["the result"], [])
    else:
        assert (len(done), len(cancelled)) == (0, 1)
        assert panel.status.text() == "Cancelled."
    again = Gate(0)
    again.go.release()
    panel.run(again.job(), done=done.append)
    _idle(qtbot, panel)
    assert done[-1] == "the result"


def test_cancelling_after_the_end_does_nothing(panel, qtbot):
    gate = Gate(0)
    gate.go.release()
    panel.run(gate.job(), done=lambda result: f"Got {result}.")
    _idle(qtbot, panel)
    panel.cancel()
    _idle(qtbot, panel)
    assert panel.status.text() == "Got the result."


def test_warnings_are_said_again_at_the_end_for_the_progress_takes_them_from_sight(panel, qtbot):
    def job():
        for text in ("odd", "odd", "choice", "strange"):
            yield Note(text=text, level="info" if text == "choice" else "warning", in_window=f"{text} here")
            yield Progress(done=1, total=2)
        return "result"

    panel.run(job(), done=lambda result: f"Got the {result}.")
    _idle(qtbot, panel)
    assert panel.status.text() == "Got the result. Note: odd here Note: strange here"
    panel.run(job(), done=lambda _: None)
    _idle(qtbot, panel)
    assert panel.status.text() == "Note: odd here Note: strange here"


def test_a_job_cancelled_before_its_thread_began_does_nothing_at_all(qtbot):
    gate, ends = Gate(1), []
    worker = JobWorker(gate.job())
    worker.ended.connect(ends.append)
    worker.quit()
    worker.start()
    qtbot.waitUntil(lambda: ends == [Cancelled()])
    assert not gate.reached.acquire(blocking=False)


FAILURES = {
    "one of ours": (ImageError("The image has no voxels. Open another."), "The image has no voxels. Open another."),
    "a RuntimeError": (RuntimeError("wrong shape"), "Something went wrong inside the plugin (RuntimeError: wrong"),
    "a KeyError": (KeyError("spacing"), "Something went wrong inside the plugin (KeyError: 'spacing')"),
    "one without words": (ValueError(), "Something went wrong inside the plugin (ValueError)"),
    "memory of numpy": (MemoryError("Unable to allocate 20. GiB"), "Not enough main memory: another 21.5 GB"),
    "memory of torch": (RuntimeError("[enforce fail] alloc_cpu: not enough memory"), "Not enough main memory"),
    "a killed worker": (BrokenProcessPool("A process was terminated abruptly"), "The system ended a worker process"),
    "an exit": (SystemExit(2), "Something went wrong inside the plugin (SystemExit: 2)"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_job_that_fails_ends_in_a_sentence_and_a_report(panel, qtbot, name):
    error, words = FAILURES[name]

    def job():
        yield Stage(name="Working")
        raise error

    seen = []
    notification_manager.records.clear()
    panel.run(job(), failed=seen.append)
    _idle(qtbot, panel)
    assert words in panel.status.text()
    assert error in (seen[0], seen[0].__cause__)
    assert len(notification_manager.records) == 1
    panel.details.click()
    report = QApplication.clipboard().text()
    assert "Traceback" in report
    assert type(error).__name__ in report
    panel.run(iter_job("fine"), done=lambda result: result)
    _idle(qtbot, panel)
    assert panel.status.text() == "fine"
    assert not panel.details.isVisible()


def test_an_error_that_does_not_end_a_job_is_worded_for_the_window(panel, qtbot):
    error = ImageError("The voxel size is missing.", shell="Use --spacing.", window="Type it into 'Voxel size'.")

    def job():
        yield Note.about("a is skipped:", error)

    seen = []
    panel.run(job(), happened=lambda _: seen.append(panel.status.text()))
    _idle(qtbot, panel)
    assert seen == ["Note: a is skipped: The voxel size is missing. Type it into 'Voxel size'."]


def test_the_folder_of_a_file_that_is_named_at_the_end_opens_with_a_button(panel, qtbot, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(parts.QDesktopServices, "openUrl", lambda url: opened.append(url.toLocalFile()))
    (tmp_path / "made.zip").touch()
    panel.run(iter_job(tmp_path / "made.zip"), done="Exported to {}.".format)
    _idle(qtbot, panel)
    assert not panel.place.isHidden() and panel.place.toolTip() == str(tmp_path)
    panel.place.click()
    assert opened == [str(tmp_path)]
    panel.say("Nothing was written.")
    assert panel.place.isHidden()


def test_the_folder_of_a_file_because_of_which_nothing_can_run_opens_with_a_button_too(panel, tmp_path):
    (tmp_path / "plans.json").touch()
    panel.set_ready(f"{tmp_path / 'plans.json'} is damaged.")
    assert not panel.place.isHidden() and panel.place.toolTip() == str(tmp_path)
    panel.set_ready(None)
    assert panel.place.isHidden()


def iter_job(result):
    yield Stage(name="Working")
    return result


class Counter(RequestDock):
    """A dock whose request is a number."""

    def __init__(self, viewer):
        super().__init__(viewer, "Work", stops="Stop.")
        self.value, self.estimates, self.jobs, self.done = 1, iter_job, iter_job, []
        self.lay_out(self.summary, self.panel)

    def request(self):
        if self.value is None:
            raise NotReadyError("Choose a number.")
        return self.value

    def describe(self, request):
        return f"Will count to {request}"

    def estimate(self, request):
        return self.estimates(request)

    def expect(self, request, found):
        return f"Will count to {request}.<br>Takes {found}."

    def begin(self, request):
        self.panel.run(self.jobs(request), done=self.done.append)


@pytest.fixture
def counter(viewer, qtbot):
    made = Counter(viewer)
    viewer.window.add_dock_widget(made, name="counter")
    made.check()
    return made


def test_a_dock_says_what_is_missing_and_what_it_takes(counter, qtbot):
    qtbot.waitUntil(lambda: counter.summary.text() == "Will count to 1.<br>Takes 1.")
    counter.value = None
    counter.check_soon()
    qtbot.waitUntil(lambda: "Choose a number." in counter.summary.text())
    assert not counter.panel.button.isEnabled()
    assert counter.panel.button.toolTip() == "Choose a number."


def test_an_estimate_that_fails_unexpectedly_is_said_and_the_dock_can_run(counter, qtbot):
    def broken(_):
        yield Stage(name="Estimating")
        raise KeyError("speed")

    counter.estimates = broken
    counter.check()
    qtbot.waitUntil(lambda: "Time and memory are unknown" in counter.summary.text())
    assert "Estimating" not in counter.summary.text()
    assert counter.panel.button.isEnabled()


def test_an_estimate_that_knows_better_refuses(counter, qtbot):
    def broken(_):
        yield Stage(name="Estimating")
        raise ImageError("Too large. Choose a region.")

    counter.estimates = broken
    counter.check()
    qtbot.waitUntil(lambda: "Too large. Choose a region." in counter.summary.text())
    assert not counter.panel.button.isEnabled()


def test_the_estimate_of_an_older_form_is_not_shown(counter, qtbot):
    gate = Gate(0)
    counter.estimates = lambda value: gate.job() if value == 1 else iter_job(value)
    counter.check()
    assert gate.reached.acquire(timeout=PATIENCE)
    counter.value = 2
    counter.check()
    gate.go.release()
    qtbot.waitUntil(lambda: counter.summary.text() == "Will count to 2.<br>Takes 2.")
    qtbot.wait(200)
    assert counter.summary.text() == "Will count to 2.<br>Takes 2."


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("cancelled", [False, True])
def test_the_job_of_a_closed_dock_goes_on_and_napari_shows_and_cancels_it(counter, viewer, qtbot, at, cancelled):
    gate = Gate(2)
    counter.jobs = lambda _: gate.job()
    counter.run()
    for _ in range(at):
        assert gate.reached.acquire(timeout=PATIENCE)
        gate.go.release()
    assert gate.reached.acquire(timeout=PATIENCE)
    viewer.window.remove_dock_widget(counter)
    (entry,) = progress._all_instances
    assert any("continues without its dock" in notice.message for notice in notification_manager.records)
    if cancelled:
        entry.cancel()
    for _ in range(3 - at):
        gate.go.release()
    qtbot.waitUntil(lambda: gate.closed and not Dock._closing)
    assert not list(progress._all_instances)
    assert counter.done == ([] if cancelled and at < 2 else ["the result"])
    assert notification_manager.records[-1].message.startswith(counter.panel.text)


def test_ctrl_enter_runs_and_esc_cancels(counter, viewer, qtbot):
    viewer.window._qt_window.activateWindow()
    qtbot.waitUntil(lambda: counter.panel.button.isEnabled())
    gate = Gate(2)
    counter.jobs = lambda _: gate.job()
    counter.panel.button.setFocus()
    qtbot.keyClick(counter.panel.button, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    assert gate.reached.acquire(timeout=PATIENCE)
    qtbot.keyClick(counter.panel.button, Qt.Key.Key_Escape)
    assert counter.panel.state is RunState.CANCELLING
    gate.go.release()
    qtbot.waitUntil(lambda: counter.panel.state is RunState.IDLE)
    assert counter.done == []


def test_a_closed_dock_is_let_go_of_without_waiting_for_the_collector(viewer, qtbot):
    dock = viewer.window.add_plugin_dock_widget("napari-nnunet", "Segment")[1]
    qtbot.waitUntil(lambda active=dock._later.isActive: not active())
    qtbot.waitUntil(lambda: not state_of(viewer)._looking.running)
    gone = ref(dock)
    viewer.window.remove_dock_widget(dock)
    del dock
    gc.disable()
    try:
        qtbot.waitUntil(lambda: gone() is None)
    finally:
        gc.enable()


def test_a_closed_dock_estimates_no_more(counter, viewer, qtbot):
    qtbot.waitUntil(lambda: "Takes 1" in counter.summary.text())
    viewer.window.remove_dock_widget(counter)
    counter.value = 2
    counter.check_soon()
    qtbot.wait(400)
    assert "Takes 1" in counter.summary.text()


def test_why_a_case_failed_is_said_once(panel, qtbot):
    def job():
        yield CaseFailed(case="c2", message="It is truncated.", index=0, total=2)
        yield Note(level="warning", text="The other one is odd.")

    panel.run(job(), done=lambda _: "1 case done, 1 failed – c2: It is truncated.")
    _idle(qtbot, panel)
    assert panel.status.text() == "1 case done, 1 failed – c2: It is truncated. Note: The other one is odd."
    panel.run(job(), done=lambda _: "1 case done, 1 failed.")
    _idle(qtbot, panel)
    assert panel.status.text() == (
        "1 case done, 1 failed. Note: c2 failed: It is truncated. Note: The other one is odd."
    )
