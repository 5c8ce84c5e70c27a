"""What is measured: the arguments of `fanwire bench`, and the figures of its JSON that the page shows."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure of a run: where it is in the JSON, in which unit it is shown, and which end of it is good."""

    title: str
    path: tuple
    unit: str
    is_more_better: bool = False
    # Latencies say nothing where deliveries are missing: whatever was slow is not among them.
    needs_all: bool = False
    # Nothing is better than what was asked for: who delivers more makes up for what was late.
    is_bounded: bool = False
    # What one of the JSON is in the unit that is shown.
    scale: float = 1.0

    def of(self, report):
        """The figure of one report. None where it has none, or what it has does not count."""
        if self.needs_all and not is_complete(report):
            return None
        value = report
        for name in self.path:
            value = value.get(name) if value else None
        if value is None:
            return None
        if self.is_bounded:
            value = min(value, report["rate"] * report["subscribers"] / report["topics"])
        return value * self.scale


@dataclasses.dataclass(frozen=True)
class Scenario:
    title: str
    question: str
    arguments: list
    # What replaces the arguments of the same name in a check of a few minutes.
    quick: dict
    # The first one is plotted.
    figures: list


def is_complete(report):
    """Whether everything came once and in order, to clients that are still there."""
    return not any(report.get(name) for name in ("lost", "repeated", "reordered", "closed"))


P50 = Figure("p50", ("latency_ms", "p50"), "ms", needs_all=True)
P99 = Figure("p99", ("latency_ms", "p99"), "ms", needs_all=True)
PRICE = Figure("server's processor time, each delivery", ("server", "cpu_us_per_delivery"), "µs")
RATE = Figure("highest rate", ("capacity_rate",), "events/s", is_more_better=True)

# For each rate of a search: long enough to tell who falls behind, short enough for a dozen rates.
SEARCH = ["--secs", "1", "--warm-up", "0.25"]
QUICK_SEARCH = {"--secs": "0.2", "--warm-up": "0.1"}

SCENARIOS = {
    "steady": Scenario(
        "A steady stream",
        "100 events a second to 1,000 subscribers of one topic: what does a delivery cost, and how long does it take?",
        ["fanout", "--subscribers", "1000", "--rate", "100", "--secs", "5"],
        {"--subscribers": "100", "--secs": "1"},
        [PRICE, P50, P99],
    ),
    "flood": Scenario(
        "A flood",
        "10,000 events a second to 1,000 subscribers of one topic, ten million deliveries a second: who keeps up?",
        ["fanout", "--subscribers", "1000", "--rate", "10000", "--secs", "4", "--patience", "3"],
        {"--subscribers": "100", "--secs": "1", "--patience": "1"},
        [
            Figure("deliveries", ("deliveries_per_sec",), "million/s", is_more_better=True, is_bounded=True, scale=1e-6),
            PRICE,
            P50,
            P99,
        ],
    ),
    "capacity-1000": Scenario(
        "Capacity, 1,000 subscribers",
        "At which rate is still nothing lost, and p99 under 100 ms, with 1,000 subscribers of one topic?",
        ["capacity", "--subscribers", "1000", "--p99", "100", "--rate", "400", *SEARCH],
        {"--subscribers": "100", **QUICK_SEARCH},
        [RATE],
    ),
    "capacity-10": Scenario(
        "Capacity, 10 subscribers",
        "At which rate is still nothing lost, and p99 under 20 ms, with 10 subscribers of one topic?",
        ["capacity", "--subscribers", "10", "--p99", "20", "--rate", "40000", *SEARCH],
        QUICK_SEARCH,
        [RATE],
    ),
    "topics-1000": Scenario(
        "Capacity, 1,000 topics",
        "At which rate, over all topics, is still nothing lost, and p99 under 20 ms, with 1,000 topics of one subscriber?",
        ["capacity", "--subscribers", "1000", "--topics", "1000", "--p99", "20", "--rate", "40000", *SEARCH],
        {"--subscribers": "100", "--topics": "100", **QUICK_SEARCH},
        [RATE],
    ),
    "idle": Scenario(
        "Idle connections",
        "10,000 clients connect, subscribe, and wait: what does the server hold for each, and how fast do they get in?",
        ["idle", "--subscribers", "10000"],
        {"--subscribers": "1000"},
        [
            Figure("resident memory, each connection", ("server", "rss_bytes_per_connection"), "bytes"),
            Figure("handshakes", ("handshakes_per_sec",), "/s", is_more_better=True),
        ],
    ),
}


def arguments(scenario, is_quick):
    """The scenario's words for `fanwire bench`."""
    words = list(scenario.arguments)
    for name, value in scenario.quick.items() if is_quick else ():
        words[words.index(name) + 1] = value
    return words
