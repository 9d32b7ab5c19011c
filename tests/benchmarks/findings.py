"""What a run found, as a table for people and as JSON for programs."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.benchmarks.works import Measured


@dataclass(frozen=True)
class Finding:
    """One figure, and what it was to be."""

    what: str
    value: float
    target: str
    is_met: bool


def at_least(bound: float, value: float, what: str) -> Finding:
    """Judge a figure that is to be large."""
    return Finding(what, value, f">= {bound:g}", value >= bound)


def at_most(bound: float, value: float, what: str) -> Finding:
    """Judge a figure that is to be small."""
    return Finding(what, value, f"<= {bound:g}", value <= bound)


def ratio_lines(found: Sequence[Measured]) -> Iterator[str]:
    """Show Pricebook beside the ceiling."""
    yield "Pricebook beside the ceiling, medians of alternating rounds"
    yield f"{'':9}{'requests/s':^22}{'server CPU us':^24}{'PostgreSQL us':^18}{'ours':>8}"
    yield (
        f"{'':8}{'ratio':>8}{'ours':>7}{'its':>7}{'ratio':>8}{'ours':>8}{'its':>8}"
        f"{'ours':>9}{'its':>9}{'p99 ms':>8}"
    )
    for one in found:
        ours, its = one.pricebook, one.ceiling
        yield (
            f"{one.work.name:8}{one.rate_ratio:>8.2f}{ours.rate:>7.0f}{its.rate:>7.0f}"
            f"{one.cpu_ratio:>8.2f}{ours.cpu:>8.0f}{its.cpu:>8.0f}"
            f"{ours.postgres_cpu:>9.0f}{its.postgres_cpu:>9.0f}{ours.p99_milliseconds:>8.1f}"
            f"   {_verdict(is_met=one.is_met)}: requests/s >= {one.work.target:.2f}"
        )
    for one in found:
        yield f"  {one.work.name}: {one.work.why}"


def finding_lines(found: Sequence[Finding]) -> Iterator[str]:
    """Show single figures."""
    for one in found:
        yield f"{one.value:>8.2f} {one.target:<8}{_verdict(is_met=one.is_met):9}{one.what}"


def as_json(ratios: Sequence[Measured], findings: Sequence[Finding]) -> dict[str, Any]:
    """Return everything that was found."""
    return {
        "ratios": {
            one.work.name: {
                "ratio": one.rate_ratio,
                "cpu_ratio": one.cpu_ratio,
                "target": one.work.target,
                "is_met": one.is_met,
                "pricebook": asdict(one.pricebook),
                "ceiling": asdict(one.ceiling),
            }
            for one in ratios
        },
        "findings": [asdict(one) for one in findings],
    }


def _verdict(*, is_met: bool) -> str:
    return "met" if is_met else "NOT MET"
