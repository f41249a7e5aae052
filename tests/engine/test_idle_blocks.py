from __future__ import annotations

import random

from inference_pio.engine.idle_blocks import IdleBlocks


def test_without_being_found_the_first_to_come_is_the_first_to_go():
    idle = IdleBlocks(8, most=8)
    for block in (3, 1, 2):
        idle.new(block)
        idle.add(block)
    idle.remove(1)
    assert [idle.pop() for _ in range(len(idle))] == [3, 2]


def test_being_found_counts_half_a_cache_and_twice_at_most():
    idle = IdleBlocks(100, most=20)
    for block, uses in ((0, 2), (1, 1), (2, 5)):
        idle.new(block)
        for _ in range(uses):
            idle.found(block)
        idle.add(block)
    for block in range(10, 40):
        idle.new(block)
        idle.add(block)
    order = [idle.pop() for _ in range(len(idle))]
    # Let go at time 1, 2 and 3; the others from 4 on; a use is worth 10.
    assert order.index(1) == 12 - 4 + 1
    assert order.index(0) == 21 - 4 + 1 + 1
    assert order.index(2) == order.index(0) + 3
    assert sorted(order) == sorted([0, 1, 2, *range(10, 40)])


def test_new_contents_forget_that_the_old_ones_were_found():
    idle = IdleBlocks(4, most=4)
    idle.new(0)
    idle.found(0)
    idle.new(0)
    idle.add(0)
    idle.new(1)
    idle.add(1)
    assert idle.pop() == 0


def test_the_order_is_that_of_its_definition():
    draw = random.Random(0)
    idle, value, uses = IdleBlocks(30, most=12), {}, dict.fromkeys(range(30), 0)
    clock = 0
    for _ in range(3000):
        block = draw.randrange(30)
        if draw.random() < 0.3 and value:
            least = min(value.values())
            popped = idle.pop()
            assert value.pop(popped) == least
            uses[popped] = 0
            idle.new(popped)
        elif block in value:
            idle.remove(block)
            idle.found(block)
            uses[block] = min(2, uses[block] + 1)
            del value[block]
        else:
            clock += 1
            idle.add(block)
            value[block] = clock + 6 * uses[block]
        assert set(idle) == set(value)
