"""A channel worker: receives from the channel layer, and runs the app's consumers."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from time import perf_counter

from chansup.log_lines import LINES
from chansup.tracebacks import last_line
from chansup.worker.counters import Counters
from chansup.worker.dead_letters import DeadLetters
from chansup.worker.instance import App, Instance
from chansup.worker.listener import Listener
from chansup.worker.permits import Permits
from chansup.worker.sources import Delivery, Source
from chansup.worker.tracebacks import of_the_app

_REPORT_INTERVAL = 0.5  # seconds
_LOOK_INTERVAL = 2.0  # seconds
_LOOK_PATIENCE = 5.0  # seconds
_TAKE_PATIENCE = 1.5  # seconds, within which every take ends that cannot be called off
_log = logging.getLogger("chansup.worker")


class ChannelWorker:
    """All that one process consumes. `empty` is set once it has stopped and holds nothing."""

    def __init__(
        self,
        application: App,
        source: Source,
        channels: Sequence[str],
        counters: Counters,
        dead_letters: DeadLetters,
        *,
        concurrency: int,
        redeliver: bool,
        max_deliveries: int,
    ) -> None:
        self.empty = asyncio.Event()
        self._application = application
        self._source = source
        self._channels = list(channels)
        self._counters = counters
        self._dead_letters = dead_letters
        self._concurrency = concurrency
        self._redeliver = redeliver
        self._max_deliveries = max_deliveries
        self._permits = Permits(concurrency, self._recall)
        self._busy: set[Instance] = set()
        self._idle: dict[str, list[Instance]] = defaultdict(list)
        self._receiving = 0  # listeners that run
        self._stopping = False
        self._is_cut = False
        self._receivers: list[asyncio.Task[None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._listeners = [
            Listener(source, channel, place, self._permits, self._begin, self._count_failure)
            for channel in self._channels
            for place in source.places(channel)
        ]

    def start(self) -> None:
        """Begin to receive."""
        self._receiving = len(self._listeners)
        self._receivers = [
            asyncio.create_task(self._listen(listener)) for listener in self._listeners
        ]
        self._counters.write()
        self._spawn(self._report())
        self._spawn(self._look())

    def stop(self) -> None:
        """Take nothing more, and finish the messages in hand."""
        self._stopping = True
        for listener in self._listeners:
            listener.stop()
        self._permits.close()
        self._look_whether_empty()

    async def cut(self, patience: float) -> bool:
        """End the messages still in hand, in so many seconds. Say whether there was anything.

        It goes back to the queue where the layer takes it back.
        """
        self._is_cut = True
        busy = set(self._busy)
        for instance in busy:
            instance.cancel()
        if busy:
            await asyncio.wait([instance.task for instance in busy], timeout=patience)
        for instance in list(self._busy):  # what cannot be cancelled: a thread, a stubborn app
            assert instance.delivery is not None
            self._unfinished(instance, instance.delivery)
        return bool(busy)

    async def close(self, patience: float) -> None:
        """Let the layer know what was done, and write the last report."""
        if self._receiving:  # was hurried: what is on its way here would be lost
            await asyncio.wait(self._receivers, timeout=min(_TAKE_PATIENCE, patience))
        idle = [instance for instances in self._idle.values() for instance in instances]
        for task in [*(one.task for one in idle), *self._tasks, *self._receivers]:
            task.cancel()
        try:
            await asyncio.wait_for(self._source.finish(), patience)
        except Exception as error:
            lost = self._counters.returned_are_lost()
            _log.error(
                "chansup: the channel layer does not answer: %s%s",
                last_line(error),
                f"; {lost} messages that were to go back are lost" if lost else "",
            )
        self._counters.write()

    # From a message to its end

    def _begin(self, channel: str, delivery: Delivery) -> None:
        """Let a consumer work on a message."""
        if self._is_cut:  # it was held, until now
            self._counters.began(channel, delivery)
            self._put_back(channel, delivery)
            return
        if self._redeliver and delivery.attempt > self._max_deliveries:
            self._permits.give()
            attempts = delivery.attempt - 1
            self._give_up(channel, delivery, attempts, "the process that handled it died")
            return
        self._counters.began(channel, delivery)
        if error := getattr(delivery, "error", None):
            self._counters.failed(channel, perf_counter())
            self._try_again(channel, delivery, error, "a message cannot be read")
            return
        self._give(self._free_instance(channel), delivery)

    def _free_instance(self, channel: str) -> Instance:
        if idle := self._idle[channel]:
            return idle.pop()
        return Instance(
            self._application,
            channel,
            self._done,
            self._instance_ended,
            own_thread=self._concurrency > 1,
        )

    def _give(self, instance: Instance, delivery: Delivery) -> None:
        self._busy.add(instance)
        instance.give(delivery)

    def _done(self, instance: Instance, delivery: Delivery) -> None:
        """Take the news that a consumer is done with its message."""
        if instance not in self._busy:
            return  # too late: it was given back
        if self._is_cut:  # it may have been told to end in the midst of it
            self._unfinished(instance, delivery)
            return
        self._busy.discard(instance)
        self._counters.handled(instance.channel, instance.began)
        self._settle(delivery.done)
        if not instance.task.done():
            self._idle[instance.channel].append(instance)
        self._free()

    def _instance_ended(self, instance: Instance, error: BaseException | None) -> None:
        """Take the end of a consumer, with or without a message in hand."""
        if instance in self._idle[instance.channel]:
            self._idle[instance.channel].remove(instance)
        if instance not in self._busy:
            if error is not None and not isinstance(error, asyncio.CancelledError):
                text = "chansup: channel %s: the consumer raised between two messages"
                _log.error(text, instance.channel, extra={LINES: of_the_app(error)})
            return
        delivery = instance.delivery
        assert delivery is not None
        if self._is_cut:
            self._unfinished(instance, delivery)
        elif not instance.received and not instance.is_fresh:
            # It ended between the last message and this one, which another can handle.
            self._busy.discard(instance)
            self._give(self._free_instance(instance.channel), delivery)
        else:
            self._failed(instance, delivery, error or asyncio.CancelledError("it was cancelled"))

    def _failed(self, instance: Instance, delivery: Delivery, error: BaseException) -> None:
        """Take the news that a consumer raised."""
        self._busy.discard(instance)
        self._counters.failed(instance.channel, instance.began)
        self._try_again(instance.channel, delivery, error, "the consumer raised")

    def _try_again(self, channel: str, delivery: Delivery, error: BaseException, what: str) -> None:
        """Let somebody try again to handle a message, if that is wanted, and not too often."""
        fate = "one message is lost"
        if self._redeliver:
            fate = f"attempt {delivery.attempt} of {self._max_deliveries}"
        lines = {LINES: of_the_app(error)}
        _log.error("chansup: channel %s: %s, %s", channel, what, fate, extra=lines)
        if not self._redeliver:
            self._settle(delivery.done)
        elif delivery.attempt >= self._max_deliveries:
            self._give_up(channel, delivery, delivery.attempt, last_line(error))
        else:
            self._settle(partial(delivery.give_back, failed=True))
        self._free()

    def _settle(self, settle: Callable[[], None]) -> None:
        """Tell the layer what became of a message; whatever it answers, the work continues."""
        try:
            settle()
        except Exception as error:
            _log.error("chansup: the channel layer was told of a message: %s", last_line(error))

    def _unfinished(self, instance: Instance, delivery: Delivery) -> None:
        """Return what a consumer could not finish in time."""
        self._busy.discard(instance)
        self._put_back(instance.channel, delivery)

    def _put_back(self, channel: str, delivery: Delivery) -> None:
        self._counters.unfinished(channel, returned=self._source.returns)
        if self._source.returns:
            self._settle(delivery.give_back)
            fate = "goes back to the queue"
        else:
            fate = f"is lost: {delivery.message!r:.1000}"
        _log.error("chansup: channel %s: a message was not finished in time, and %s", channel, fate)
        self._free()

    def _give_up(self, channel: str, delivery: Delivery, attempts: int, error: str) -> None:
        self._counters.of(channel).dead += 1
        try:
            self._dead_letters.write(channel, attempts, error, delivery.message)
        finally:
            self._settle(delivery.done)

    def _free(self) -> None:
        self._permits.give()
        self._look_whether_empty()

    # Listeners

    async def _listen(self, listener: Listener) -> None:
        await listener.run()
        self._receiving -= 1
        self._look_whether_empty()

    def _recall(self) -> None:
        """Take nothing while nobody is free."""
        for listener in self._listeners:
            listener.recall()

    def _count_failure(self, channel: str) -> None:
        self._counters.of(channel).listener_failures += 1

    def _look_whether_empty(self) -> None:
        if self._stopping and not self._receiving and not self._busy:
            self.empty.set()

    # What continues beside

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _report(self) -> None:
        while True:
            self._counters.write()
            await asyncio.sleep(_REPORT_INTERVAL)

    async def _look(self) -> None:
        """Look how much waits in the queues."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                looks = await asyncio.wait_for(self._source.look(self._channels), _LOOK_PATIENCE)
            except Exception:  # the listeners tell that the layer is in trouble
                looks = {}
            for channel, look in looks.items():
                counts = self._counters.of(channel)
                counts.depth, counts.oldest, counts.looked = look.depth, look.oldest, loop.time()
            await asyncio.sleep(_LOOK_INTERVAL)
