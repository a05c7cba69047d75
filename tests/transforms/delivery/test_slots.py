"""Call slots: a process and a workspace never have more calls in flight than slots."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from transforms.delivery.slots import PER_SLOW_WORKSPACE, PER_WORKSPACE, CallSlots


def test_a_caller_gets_what_is_free_and_no_more_than_it_wants() -> None:
    slots = CallSlots(30)
    assert [slots.acquire("a", 5, 0), slots.acquire("a", 50, 0), slots.acquire("b", 50, 0)] == [5, 15, 10]
    assert slots.acquire("c", 1, 0.01) == 0
    slots.release("a", 4)
    assert slots.acquire("c", 9, 0.01) == 4


def test_a_workspace_has_few_slots_while_it_is_slow() -> None:
    slots = CallSlots()
    assert slots.acquire("a", 99, 0) == PER_WORKSPACE
    slots.release("a", PER_WORKSPACE)
    slots.set_slow("a", slow=True)
    assert slots.acquire("a", 99, 0) == PER_SLOW_WORKSPACE
    assert slots.acquire("a", 1, 60.0) == 0  # it does not wait for its own calls
    slots.set_slow("a", slow=False)
    assert slots.acquire("a", 99, 0) == PER_WORKSPACE - PER_SLOW_WORKSPACE


def test_many_threads_never_have_more_slots_than_there_are_and_all_get_some() -> None:
    slots, lock, used, most = CallSlots(4), Lock(), 0, 0

    def work(number: int) -> int:
        nonlocal used, most
        taken = slots.acquire(f"store-{number % 7}", 3, 60.0)
        with lock:
            used, most = used + taken, max(most, used + taken)
        with lock:
            used -= taken
        slots.release(f"store-{number % 7}", taken)
        return taken

    with ThreadPoolExecutor(16) as pool:
        taken = list(pool.map(work, range(2_000)))
    assert most <= 4
    assert min(taken) >= 1
