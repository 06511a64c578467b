"""Where stages and runs stand: by hand for small families, by invariants for large ones."""

import random

import pandas as pd

from app.charts.provenance_tree import grow

NAMES = ["run_id", "position", "stage_id"]


def tree(paths, sources=(), first=0):
    """The tree of runs whose stages are {run: [stage, ...]}; positions count from `first`."""
    rows = [(run, first + at, stage) for run, stages in paths.items() for at, stage in enumerate(stages)]
    rows += [(run, None, None) for run, stages in paths.items() if not stages]
    named = pd.DataFrame(list(sources), columns=["run_id", "source_id", "role", "position"])
    return grow(pd.DataFrame(rows, columns=NAMES), named)


def places(found):
    return {stage: (node.column, node.row) for stage, node in found.nodes.items()}


def rows(found):
    return {run: leaf.row for run, leaf in found.leaves.items()}


def test_a_shared_prefix_is_drawn_once():
    found = tree({1: [10, 11, 12], 2: [10, 11, 13], 3: [10, 11]})
    assert places(found) == {10: (0, 0), 11: (1, 0), 12: (2, 1), 13: (2, 2)}
    assert found.rooms() == {10: 1, 11: 2, 12: 1, 13: 1}
    assert rows(found) == {3: 0, 1: 1, 2: 2}
    assert found.nodes[11].runs == [1, 2, 3] and found.nodes[13].runs == [2]


def test_a_run_goes_on_from_the_model_of_another():
    found = tree({1: [10, 11], 2: [20, 21]}, [(2, 1, "model", 0)])
    assert found.nodes[21].parent == 11 and 20 not in found.nodes  # 20 is 11, as it was saved
    assert places(found)[21] == (2, 1) and rows(found) == {1: 0, 2: 1}
    assert found.leaves[2].made_from == [("model", 1)]


def test_a_run_that_has_only_loaded_its_model_keeps_that_stage():
    assert tree({1: [10, 11], 2: [20]}, [(2, 1, "model", 0)]).nodes[20].parent == 11


def test_a_run_without_stages_stands_behind_its_model_or_alone_at_the_end():
    found = tree({1: [10], 2: [], 3: []}, [(2, 1, "model", 0)])
    assert [found.leaves[run].ends_at for run in (1, 2, 3)] == [10, 10, None]
    assert rows(found) == {1: 0, 2: 1, 3: 2}
    assert rows(tree({1: [], 2: [], 3: [10]})) == {3: 0, 2: 1, 1: 2}


def test_a_teacher_is_linked_and_a_reference_only_told():
    found = tree({1: [10], 2: [20, 21]}, [(2, 1, "teacher", 1), (2, 1, "reference", -1)])
    assert found.taught == [(1, 2, 1)] and found.nodes[21].parent == 20
    assert sorted(found.leaves[2].made_from) == [("reference", 1), ("teacher", 1)]


def test_names_that_go_in_a_circle_or_lead_out_of_the_picture_link_nothing():
    found = tree({1: [10], 2: [20]}, [(1, 2, "model", 0), (2, 1, "model", 0), (2, 9, "model", 0)])
    assert (found.nodes[10].parent, found.nodes[20].parent) == (None, 10)


def test_the_tree_of_the_newest_run_comes_first():
    assert rows(tree({1: [10], 2: [20], 3: [10, 11]})) == {1: 0, 3: 1, 2: 2}


def test_a_stage_with_two_ways_to_it_stands_once_and_the_second_way_is_kept():
    found = tree({1: [10, 12], 2: [10, 11, 12]})
    assert found.nodes[12].parent == 10 and found.crossing == [(11, 12)]
    assert len(set(places(found).values())) == 3


def test_nothing_overlaps_and_no_line_passes_through_a_stage():
    chance = random.Random(0)
    for _ in range(30):
        paths, named = {}, []
        for run in range(1, 51):
            other = chance.choice(list(paths.values()) or [[]])
            shared = other[: chance.randrange(len(other) + 1)]
            paths[run] = shared + [run * 100 + n for n in range(chance.randrange(4))]
            if run > 1 and chance.random() < 0.3:
                named.append((run, chance.randrange(1, run), chance.choice(["model", "teacher"]), 0))
        found = tree(paths, named)
        stands = list(places(found).values())
        assert len(set(stands)) == len(stands)
        assert sorted(rows(found).values())[: len(found.leaves)] == sorted(set(rows(found).values()))
        for node in found.nodes.values():
            if node.parent is None:
                continue
            parent = found.nodes[node.parent]
            assert node.column == parent.column + 1 and node.row >= parent.row
        for leaf in found.leaves.values():
            if leaf.ends_at is not None:
                after = found.nodes[leaf.ends_at].column
                assert not [place for place in stands if place[1] == leaf.row and place[0] > after]
