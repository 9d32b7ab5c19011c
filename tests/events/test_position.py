"""A place in the log, held to what it claims: from any id on, exactly the rest."""

from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricebook.events.position import BEGINNING, Place, Position, Span

FIRST, LAST = 10, 40


def seen_by(position: Position) -> set[int]:
    return {one for one in range(FIRST, LAST) if position.sees(one)}


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Position], dict[int, int]]:
    """Return snapshots of one database, as time passes, and how many events each commit wrote."""
    ended: set[int] = set()
    begun = FIRST
    snapshots = []
    for _ in range(draw(st.integers(1, 6))):
        begun += draw(st.integers(0, 5))
        running = [one for one in range(FIRST, begun) if one not in ended]
        if running:
            ended |= set(draw(st.lists(st.sampled_from(running), unique=True)))
        still = tuple(one for one in range(FIRST, begun) if one not in ended)
        snapshots.append(Position(begun, still))
    counts = {one: draw(st.integers(0, 3)) for one in ended}
    return snapshots, counts


def events_in(span: Span, counts: dict[int, int], page: int) -> list[tuple[int, UUID]]:
    """Do what the statement does: all the snapshot sees and the place has not read, in order."""
    log = [
        (one, UUID(int=number)) for one, count in counts.items() for number in range(1, 1 + count)
    ]
    found = [key for key in log if span.now.sees(key[0]) and not span.start.has_read(*key)]
    return sorted(found)[:page]


@given(histories(), st.integers(1, 5), st.data())
def test_resuming_from_any_id_gives_exactly_the_rest(history, page, data):
    snapshots, counts = history
    told: list[tuple[tuple[int, UUID], str]] = []
    place = BEGINNING
    for now in snapshots:
        while found := events_in(Span(place, now), counts, page):
            written = list(Span(place, now).places(found))
            told += zip(found, written, strict=True)
            place = Place.parse(written[-1])
        place = Place(now)
    keys = [key for key, _ in told]
    everything = events_in(Span(BEGINNING, snapshots[-1]), counts, 1_000)
    assert sorted(keys) == everything
    assert len(set(keys)) == len(keys)
    if told:
        number = data.draw(st.integers(0, len(told) - 1))
        resumed = Span(Place.parse(told[number][1]), snapshots[-1])
        assert events_in(resumed, counts, 1_000) == sorted(keys[number + 1 :])


@given(histories())
def test_events_of_one_transaction_stay_together(history):
    snapshots, counts = history
    place, order = BEGINNING, []
    for now in snapshots:
        order += [transaction for transaction, _ in events_in(Span(place, now), counts, 1_000)]
        place = Place(now)
    changes = sum(one != other for one, other in pairwise(order))
    assert changes == max(len(set(order)) - 1, 0)


@given(histories(), st.data())
def test_going_on_in_steps_leads_to_the_same_place(history, data):
    snapshots, _ = history
    for before, now in pairwise(snapshots):
        news = sorted(seen_by(now) - seen_by(before))
        position = before
        for one in news:
            position = position.after(one, now)
            assert seen_by(position) == seen_by(before) | {new for new in news if new <= one}
            assert position == before.after(one, now)


@given(histories(), st.integers(0, 2**128 - 1))
def test_what_is_written_is_read_again(history, number):
    for position in history[0]:
        assert Place.parse(str(Place(position))) == Place(position)
        for one in seen_by(position):
            place = Place(position, one, UUID(int=number))
            assert Place.parse(str(place)) == place


def test_a_snapshot_is_read_as_postgresql_writes_it():
    assert Position.of_snapshot("7:7:") == Position(7)
    assert Position.of_snapshot("7:21:7,9,18") == Position(21, (7, 9, 18))
    assert str(Position(21, (7, 9, 18))) == "21.14,12,3"


EVENT = "0" * 31 + "1"


@pytest.mark.parametrize(
    "text",
    [
        "", "7", ".", "x.", "7.1.", "-7.", "7.-1", "7.0", "7.7", "7.8", "7.1,", "7.,1", " 7.",
        "7.\n", "\u0667.", "7..6", f"7..6.{EVENT}x", f"7..6.{EVENT[1:]}",
        f"7..7.{EVENT}", f"7.1.6.{EVENT}",
        f"{2**63}.", f"{10**30}.", "7" * 5_000,
    ],
)  # fmt: skip
def test_what_was_never_written_is_refused(text):
    with pytest.raises(ValueError, match="no place"):
        Place.parse(text)
