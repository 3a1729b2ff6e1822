"""Worker processes that end when their parent does, however it ends."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any


def run_tasks(work: Callable[[Any], Any], tasks: Iterable[Any], workers: int) -> Iterator[Any]:
    """Yield ``work(task)`` of every task, in the order in which they finish.

    A worker gets a task when it is free, so that ``tasks`` may be an endless stream. With one
    worker the work is done in this process.

    Args:
        work: A picklable function.
        tasks: Picklable tasks.
        workers: Number of processes.

    Raises:
        ValueError: What ``work`` raised; the other workers are stopped.
        RuntimeError: If a worker ended without an answer (killed, or out of memory).
    """
    if workers == 1:
        yield from map(work, tasks)
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlip.data.store.convert", "vesin"])  # once for all
    free: list[Connection] = []
    processes = []
    for _ in range(workers):
        ours, theirs = context.Pipe()
        # Daemons die with a parent that ends well; the closed pipe tells those of a killed one.
        process = context.Process(target=_serve, args=(work, theirs), daemon=True)
        process.start()
        theirs.close()
        free.append(ours)
        processes.append(process)
    try:
        busy: list[Connection] = []
        for task in tasks:
            if not free:
                yield from _answers(busy, free)
            pipe = free.pop()
            pipe.send(task)
            busy.append(pipe)
        while busy:
            yield from _answers(busy, free)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _answers(busy: list[Connection], free: list[Connection]) -> Iterator[Any]:
    for pipe in wait(busy):
        assert isinstance(pipe, Connection)
        try:
            failed, answer = pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            raise RuntimeError(
                "a worker process ended without an answer, most likely for want of memory; run "
                "the same command again with fewer workers, it goes on where it stopped"
            ) from error
        busy.remove(pipe)
        free.append(pipe)
        if failed:
            raise answer
        yield answer


def _serve(work: Callable[[Any], Any], pipe: Connection) -> None:
    while True:
        try:
            task = pipe.recv()
        except (EOFError, ConnectionResetError, KeyboardInterrupt):
            return
        try:
            answer = (False, work(task))
        except (ValueError, OSError) as error:
            answer = (True, ValueError(str(error)))
        except Exception as error:  # ours to mend, but not to be taken for a lack of memory
            answer = (True, ValueError(f"{task}: {type(error).__name__}: {error}"))
        except KeyboardInterrupt:
            return
        try:
            pipe.send(answer)
        except OSError:
            return
