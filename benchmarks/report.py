"""Results as tables for people, and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.deep import Deep
from benchmarks.endurance import Endurance
from benchmarks.fairness import Fairness
from benchmarks.latency import Latency
from benchmarks.limits import Limits
from benchmarks.memory import FLAT_MIB_PER_1000_JOBS, FLAT_MIB_PER_MINUTE, Memory, Sample
from benchmarks.overhead import Overhead
from benchmarks.predicting import Predicting
from benchmarks.reading import ReadingCosts
from benchmarks.recovery import Recovery
from benchmarks.throughput import Round, Throughput

Result = (
    Overhead
    | ReadingCosts
    | Predicting
    | Deep
    | Throughput
    | Latency
    | Limits
    | Fairness
    | Memory
    | Endurance
    | Recovery
)


def table(result: Result) -> RenderableType:
    match result:
        case Overhead():
            return _overhead(result)
        case ReadingCosts():
            return _reading(result)
        case Predicting():
            return _predicting(result)
        case Deep():
            return _deep(result)
        case Throughput():
            return Group(_rates(result), _cpu(result))
        case Latency():
            return _latency(result)
        case Limits():
            return _limits(result)
        case Fairness():
            return _fairness(result)
        case Memory():
            return _memory(result)
        case Endurance():
            return _endurance(result)
        case Recovery():
            return _recovery(result)


def to_json(result: Result) -> dict[str, Any]:
    """All that was measured, with the medians and slopes that the tables show."""
    return {"part": type(result).__name__.lower(), **asdict(result), **_derived(result)}


def encoded(results: Any, option: int = 0) -> bytes:
    """As JSON; a part of a training is named by its Stage, which is a str and yet none to orjson."""
    return orjson.dumps(results, option=option | orjson.OPT_NON_STR_KEYS)


def _derived(result: Result) -> Mapping[str, Any]:
    match result:
        case Throughput():
            return {
                "of_synced": result.of_synced,
                "of_unsynced": result.of_unsynced,
                "jobs_a_transaction": result.median("jobs_a_transaction"),
                "commands_a_job": result.median("commands_a_job"),
                "by_cpu": result.by_cpu,
                "cpu_ms": asdict(result.cpu_ms()),
                "bare_cpu_ms": result.bare_cpu_ms(),
            }
        case Memory():
            return {
                "mib_per_1000_jobs": result.mib_per_1000_jobs,
                "mib_per_minute_waiting": result.mib_per_minute_waiting,
                "most_rss": result.most_rss,
                "most_pss": result.most_pss,
            }
        case Fairness():
            return {"median_to_start_s": result.median_to_start_s, "worst_in_jobs": result.worst_in_jobs}
        case Endurance():
            return {
                "pss_mib_per_1000_jobs": result.pss_mib_per_1000_jobs,
                "rss_mib_per_1000_jobs": result.rss_mib_per_1000_jobs,
                "parent_rss_mib_per_1000_jobs": result.parent_rss_mib_per_1000_jobs,
                "descriptors_per_1000_jobs": result.descriptors_per_1000_jobs,
            }
        case Recovery():
            return {
                "p50_s": result.p50_s,
                "p99_s": result.p99_s,
                "repeated_s_per_kill": result.repeated_s_per_kill,
                "repeated_per_kill": result.repeated_per_kill,
            }
        case Latency() | Limits() | Overhead() | ReadingCosts() | Predicting() | Deep():
            return {}


def _overhead(result: Overhead) -> Table:
    shown = _table(f"{result.workload}: the pipeline against bare fit, score and pickle", "", "ms")
    shown.add_row("bare", f"{result.bare_ms:.1f}")
    shown.add_row("pipeline", f"{result.pipeline_ms:.1f}")
    for part, ms in result.parts.items():
        shown.add_row(f"  of it {part.lower()}", f"{ms:.1f}")
    shown.add_section()
    shown.add_row("ratio", f"{result.ratio:.2f} (target {result.target:.2f})")
    return shown


def _reading(result: ReadingCosts) -> Table:
    title = f"{result.rows:,} rows of {result.columns} columns: CPU seconds and MiB against the bare libraries"
    shown = _table(title, "", "bare s", "ours s", "ratio", "bare MiB", "ours MiB")
    for one in result.steps:
        ratio = f"{one.ratio:.2f} (target {one.target:.2f})"
        shown.add_row(
            one.name, f"{one.bare_s:.2f}", f"{one.ours_s:.2f}", ratio, f"{one.bare_mib:,.0f}", f"{one.ours_mib:,.0f}"
        )
    return shown


def _predicting(result: Predicting) -> Table:
    title = f"{result.algorithm} on {result.columns}: {result.rows:,} rows, the model against its bare pipeline"
    shown = _table(title, "", "ms of CPU", "of bare")
    shown.add_row("bare", f"{result.bare_ms:,.0f}", "")
    shown.add_row("model", f"{result.model_ms:,.0f}", f"{result.ratio:.2f} (target {result.target:.2f})")
    shown.add_row("model, all columns as text", f"{result.text_ms:,.0f}", f"{result.of_text:.2f}")
    return shown


def _deep(result: Deep) -> Table:
    title = f"{result.algorithm} on {result.rows:,} images, {result.device}: the job against a plain loop"
    shown = _table(title, "", "s", "of the loop")
    shown.add_row("loop", f"{result.loop_s:.2f}", "")
    shown.add_row("job", f"{result.job_s:.2f}", f"{result.ratio:.2f} (target {result.target:.2f})")
    shown.add_row("job, by CPU time", "", f"{result.of_cpu:.2f}")
    for part, seconds in result.parts.items():
        shown.add_row(f"  of it {part}", f"{seconds:.2f}", f"{seconds / result.loop_s:.2f}")
    return shown


def _rates(result: Throughput) -> Table:
    shown = _table(
        f"{result.workload}: jobs a second, {result.jobs:,} jobs a round",
        "round", "limit, synced", "limit, unsynced", "worker", "of synced", "of unsynced", "cores of others",
    )  # fmt: skip
    for number, one in enumerate(result.rounds, 1):
        others = " / ".join(f"{rate.others_cores:.1f}" for rate in (one.synced, one.worker, one.unsynced))
        shown.add_row(
            f"{number}" if one.calm else f"{number} (noisy)",
            *(f"{rate:,.1f}" for rate in _rates_of(one)),
            f"{one.of_synced:.0%}",
            f"{one.of_unsynced:.0%}",
            others,
        )
    if not result.calm:
        shown.caption = "others took more than a third of a core in every round: go by CPU time instead"
    target = _judged(f"{result.of_synced:.0%} (target {result.target:.0%})", result.of_synced >= result.target)
    shown.add_section()
    counted = result.calm or result.rounds
    rates = (statistics.median(rate) for rate in zip(*map(_rates_of, counted), strict=True))
    name = "median of calm ones" if result.calm else "median"
    shown.add_row(name, *(f"{rate:,.1f}" for rate in rates), target, f"{result.of_unsynced:.0%}", "")
    return shown


def _rates_of(one: Round) -> tuple[float, float, float]:
    return one.synced.jobs_per_s, one.unsynced.jobs_per_s, one.worker.jobs_per_s


def _cpu(result: Throughput) -> Table:
    shown = _table(f"{result.workload}: what a job costs", "", "CPU ms")
    cpu = result.cpu_ms()
    for name, of in _PROCESSES.items():
        shown.add_row(of, f"{getattr(cpu, name):,.2f}")
    shown.add_row("all of it", f"{cpu.total:,.2f}")
    shown.add_row("a bare process, synced", f"{result.bare_cpu_ms():,.2f}")
    shown.add_section()
    shown.add_row("share that CPU time alone allows", f"{result.by_cpu:.0%}")
    shown.add_row("jobs a transaction", f"{result.median('jobs_a_transaction'):.1f}")
    shown.add_row("MongoDB commands a job", f"{result.median('commands_a_job'):.2f}")
    shown.add_row("cores that the idle worker and its servers take", f"{result.idle_cores:.3f}")
    return shown


_PROCESSES = {
    "parent": "worker's process",
    "trainers": "trainers",
    "broker": "Kafka",
    "mongodb": "MongoDB",
    "s3": "S3",
    "bench": "submitter and subscriber",
}


def _latency(result: Latency) -> Table:
    shown = _table(f"idle latency of {result.jobs} tiny jobs, milliseconds", "", "p50", "p99")
    p50 = _judged(f"{result.p50_ms:.1f} (target {result.target_p50_ms:.0f})", result.p50_ms <= result.target_p50_ms)
    shown.add_row("submit to model-registered", p50, f"{result.p99_ms:.1f}")
    shown.add_row("a bare process, synced", f"{result.bare_p50_ms:.1f}", f"{result.bare_p99_ms:.1f}")
    shown.add_section()
    for name, mean_ms in result.stages_ms.items():
        shown.add_row(f"mean: {name}", f"{mean_ms:.1f}", "")
    return shown


def _limits(result: Limits) -> Table:
    shown = _table("limits of trainings in C code, seconds", "", "p50", "p99")
    most, most_over = result.target_cancel_p99_s, result.target_overshoot_p99_s
    gone = _judged(f"{result.gone_p99_s:.3f} (target {most:.0f})", result.gone_p99_s <= most)
    shown.add_row(f"{result.cancels} cancels: produced, to no process left", f"{result.gone_p50_s:.3f}", gone)
    shown.add_row("produced, to the terminal event", f"{result.told_p50_s:.3f}", f"{result.told_p99_s:.3f}")
    over = _judged(f"{result.overshoot_p99_s:.3f} (target {most_over:.0f})", result.overshoot_p99_s <= most_over)
    shown.add_row(f"{result.limits} time limits: over, to no process left", f"{result.overshoot_p50_s:.3f}", over)
    shown.add_row("over, to the terminal event", f"{result.late_p50_s:.3f}", f"{result.late_p99_s:.3f}")
    return shown


def _fairness(result: Fairness) -> Table:
    title = f"one request behind {result.flood:,} of another project, seconds ({result.jobs_per_s:.0f} jobs a second)"
    shown = _table(title, "", "in front", "to its start", "to its end", "others ended meanwhile", "start in a queue")
    for number, one in enumerate(result.singles, 1):
        times = (f"{one.to_start_s:.2f}", f"{one.to_end_s:.2f}", f"{one.meanwhile}", f"{one.queue_s:,.0f}")
        shown.add_row(f"request {number}", f"{one.in_front:,}", *times)
    shown.add_section()
    target = f"{result.worst_in_jobs:.1f} jobs of a lane (target {result.target_jobs:.0f})"
    longest = _judged(target, result.worst_in_jobs <= result.target_jobs)
    shown.add_row("median", "", f"{result.median_to_start_s:.2f}")
    shown.add_row("longest wait", "", longest)
    return shown


def _memory(result: Memory) -> Table:
    shown = _table("memory, MiB", "", "worker RSS", "trainers RSS", "with forkserver RSS", "PSS", "slope of PSS")
    flat = result.mib_per_1000_jobs <= FLAT_MIB_PER_1000_JOBS
    still = result.mib_per_minute_waiting <= FLAT_MIB_PER_MINUTE
    shown.add_row("at the start", *_sizes(result.start), "")
    shown.add_row(
        f"after {result.jobs:,} tiny jobs",
        *_sizes(result.busy[-1]),
        _judged(f"{result.mib_per_1000_jobs:+.1f} a 1,000 jobs", flat),
    )
    shown.add_row(
        f"{result.waiting_requests:,} waiting, {result.delivered:,} read",
        *_sizes(result.waiting[-1]),
        _judged(f"{result.mib_per_minute_waiting:+.1f} a minute", still),
    )
    shown.add_section()
    most = _judged(f"{result.most_rss:.0f} (target {result.target_mib:.0f})", result.most_rss <= result.target_mib)
    shown.add_row(f"most (LOOK_AHEAD is {result.look_ahead:,})", "", "", most, f"{result.most_pss:.0f}", "")
    return shown


def _endurance(result: Endurance) -> Table:
    shown = _table(
        f"{result.jobs:,} tiny jobs in {result.took_s:.0f} s: MiB and descriptors",
        "", "at the start", "half way", "at the end", "slope of the second half, a 1,000 jobs",
    )  # fmt: skip
    first, middle, last = (result.samples[at] for at in (0, len(result.samples) // 2, -1))
    for name, of, slope in (
        ("worker RSS", "parent_rss", result.parent_rss_mib_per_1000_jobs),
        ("all RSS", "all_rss", result.rss_mib_per_1000_jobs),
    ):
        shown.add_row(name, *(f"{getattr(one, of):.0f}" for one in (first, middle, last)), f"{slope:+.2f}")
    pss = result.pss_mib_per_1000_jobs
    judged = _judged(f"{pss:+.2f}", pss <= result.target_mib_per_1000_jobs)
    shown.add_row("all PSS", *(f"{one.all_pss:.0f}" for one in (first, middle, last)), judged)
    counts = result.descriptors
    open_ones = (counts[at] for at in (0, len(counts) // 2, -1))
    shown.add_row("descriptors", *map(str, open_ones), f"{result.descriptors_per_1000_jobs:+.2f}")
    return shown


def _recovery(result: Recovery) -> Table:
    shown = _table(f"kill -9 of a worker, {result.kills} times, under {result.jobs:,} jobs", "", "seconds")
    shown.add_row("from the kill to the start elsewhere, p50", f"{result.p50_s:.1f}")
    p99 = _judged(f"{result.p99_s:.1f} (target {result.target_p99_s:.0f})", result.p99_s <= result.target_p99_s)
    shown.add_row("p99", p99)
    shown.add_row("most", f"{max(result.waits_s):.1f}")
    shown.add_section()
    name = f"training done again, a kill ({result.repeated_per_kill:.1f} jobs)"
    shown.add_row(name, f"{result.repeated_s_per_kill:.1f}")
    return shown


def _sizes(sample: Sample) -> Sequence[str]:
    return [f"{size:.0f}" for size in (sample.parent_rss, sample.trainers_rss, sample.all_rss, sample.all_pss)]


def _table(title: str, *columns: str) -> Table:
    shown = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        shown.add_column(column, justify="left" if number == 0 and not column else "right")
    return shown


def _judged(text: str, good: bool) -> Text:
    return Text(text, style="green" if good else "bold red")
