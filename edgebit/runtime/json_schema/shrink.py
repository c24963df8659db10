"""Makes a program smaller: states from which the same texts lead on become one, and edges side by side as well."""

from edgebit.runtime.json_schema.determinise import NO_RULE, State


def shrink(states: list[State], root: int) -> list[State]:
    """The states that can be reached from `root`, which becomes the first; states within loops stay as they are."""
    order = _loops_last_first(states, root)
    stands_for: dict[int, int] = {}
    known: dict[object, int] = {}
    for loop in order:
        if len(loop) > 1 or any(target == loop[0] for _, _, _, target in states[loop[0]].edges):
            stands_for.update((each, each) for each in loop)
            for each in loop:
                states[each].edges = _merged(states[each], stands_for)
            continue
        (only,) = loop
        state = states[only]
        state.edges = _merged(state, stands_for)
        stands_for[only] = known.setdefault((state.is_end, state.count, tuple(state.edges)), only)
    return _renumbered(states, stands_for[root])


def _merged(state: State, stands_for: dict[int, int]) -> list[tuple[int, int, int, int]]:
    edges: list[tuple[int, int, int, int]] = []
    for low, high, callee, target in state.edges:
        callee, target = stands_for.get(callee, callee), stands_for.get(target, target)
        if edges and edges[-1][1] == low - 1 and edges[-1][2:] == (callee, target):
            edges[-1] = (edges[-1][0], high, callee, target)
        else:
            edges.append((low, high, callee, target))
    return edges


def _followers(state: State) -> list[int]:
    return [each for _, _, callee, target in state.edges for each in (callee, target) if each != NO_RULE]


def _loops_last_first(states: list[State], root: int) -> list[list[int]]:
    """The strongly connected parts, each after all that it leads to (Tarjan 1972, without recursion)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    parts: list[list[int]] = []
    work = [(root, iter(_followers(states[root])))]
    index[root] = low[root] = 0
    stack.append(root)
    on_stack.add(root)
    while work:
        at, followers = work[-1]
        for each in followers:
            if each not in index:
                index[each] = low[each] = len(index)
                stack.append(each)
                on_stack.add(each)
                work.append((each, iter(_followers(states[each]))))
                break
            if each in on_stack:
                low[at] = min(low[at], index[each])
        else:
            work.pop()
            if work:
                low[work[-1][0]] = min(low[work[-1][0]], low[at])
            if low[at] == index[at]:
                begin = _last_place(stack, at)
                parts.append(stack[begin:])
                del stack[begin:]
                on_stack.difference_update(parts[-1])
    return parts


def _last_place(stack: list[int], state: int) -> int:
    at = len(stack) - 1
    while stack[at] != state:
        at -= 1
    return at


def _renumbered(states: list[State], root: int) -> list[State]:
    numbers = {root: 0}
    order = [root]
    for at in order:
        for each in _followers(states[at]):
            if each not in numbers:
                numbers[each] = len(order)
                order.append(each)
    numbers[NO_RULE] = NO_RULE
    return [
        State(
            [(low, high, numbers[callee], numbers[target]) for low, high, callee, target in states[at].edges],
            states[at].is_end,
            states[at].count,
        )
        for at in order
    ]
