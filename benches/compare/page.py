#!/usr/bin/env python3
"""Writes the page and its plots from results: `page.py RESULTS DIR` writes DIR/compare.md and DIR/compare/*.svg.

Everything on the page comes from the results, where Fanwire is not first as well: nobody writes a figure by hand.
"""

import dataclasses
import json
import math
import pathlib
import statistics
import sys

import chart
import scenarios
import servers

OURS = "fanwire"
# Of the generator's processor, in percent.
GENERATOR_FULL = 95.0
# Medians that differ by no more than this share do not differ.
SAME = 0.01


@dataclasses.dataclass(frozen=True)
class Spread:
    """The figures of a server's runs."""

    median: float
    least: float
    most: float


class Results:
    """What was measured, as the page asks for it."""

    def __init__(self, results):
        self.all = results
        known = servers.table("fanwire")
        self.servers = {name: known[name] for name in results["servers"]}
        self.scenarios = {name: scenarios.SCENARIOS[name] for name in results["scenarios"]}

    def runs(self, scenario, server):
        return [run for run in self.all["runs"] if (run["scenario"], run["server"]) == (scenario, server)]

    def reports(self, scenario, server):
        return [run["report"] for run in self.runs(scenario, server) if "report" in run]

    def spread(self, scenario, server, figure):
        """None where a run has no such figure: what is left would flatter the server."""
        runs = self.runs(scenario, server)
        values = [figure.of(run["report"]) if "report" in run else None for run in runs]
        if not values or None in values:
            return None
        return Spread(statistics.median(values), min(values), max(values))

    def ranked(self, scenario, figure):
        """Every server with its spread, the best median first, those without a figure last."""
        spreads = [(name, self.spread(scenario, name, figure)) for name in self.servers]
        sign = -1 if figure.is_more_better else 1
        return sorted(spreads, key=lambda row: (row[1] is None, row[1] and sign * row[1].median))

    def title(self, server):
        return self.servers[server].title


def number(value):
    """Three digits, thousands apart: 1,230,000; 45.6; 0.123."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    decimals = 2 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(decimals, 0)}f}"


def quantity(value, unit):
    return "no figure" if value is None else f"{number(value)} {unit}"


def with_range(spread, unit=None):
    """`4.56 µs (4.31 to 4.80)`."""
    if spread is None:
        return "no figure"
    text = quantity(spread.median, unit) if unit else number(spread.median)
    if spread.least == spread.most:
        return text
    return f"{text} ({number(spread.least)} to {number(spread.most)})"


def write(path, folder):
    """Writes the page and its plots into a folder. Returns what it wrote."""
    results = Results(json.loads(pathlib.Path(path).read_text()))
    plots = folder / "compare"
    plots.mkdir(parents=True, exist_ok=True)
    files = {folder / "compare.md": markdown(results)}
    for name in results.scenarios:
        files[plots / f"{name}.svg"] = plot(results, name)
    for stale in set(plots.glob("*.svg")) - set(files):
        stale.unlink()
    for file, text in files.items():
        file.write_text(text)
    return list(files)


def plot(results, scenario):
    figure = results.scenarios[scenario].figures[0]
    rows = [
        (results.title(name), *(dataclasses.astuple(spread) if spread else (None, None, None)))
        for name, spread in results.ranked(scenario, figure)
    ]
    better = "more is better" if figure.is_more_better else "less is better"
    title = f"{results.scenarios[scenario].title}: {figure.title}, {figure.unit} ({better})"
    return chart.bars(title, rows, "Fanwire", number)


def markdown(results):
    parts = [head(results), in_short(results), not_first(results)]
    parts += [section(results, name) for name in results.scenarios]
    parts += [conditions(results), configurations(results), again()]
    return "\n".join(parts)


def head(results):
    everything = results.all
    machine = everything["machine"]
    kind = "Virtual machine" if machine["is_virtual"] else "Machine"
    day = everything["began"].split()[0]
    rounds = everything["rounds"]
    often = "once" if rounds == 1 else f"{rounds} times"
    warning = "**A quick check that everything works, not a measurement; everything is smaller than it says.** " if everything["is_quick"] else ""
    ours = everything["servers"].get(OURS, {}).get("version", "without Fanwire")
    ours += f" (commit {everything['commit']})" if everything["commit"] else ""
    return f"""# Beside other servers

{warning}Written by `make compare` from [what it measured](compare/results.json); nothing on this page is written by hand.

{day}, {ours}. {kind} with {machine["processors"]} processors ({machine["processor"]}), {machine["memory_gib"]} GiB,
{machine["system"]}, kernel {machine["kernel"]}, congestion control {machine["congestion_control"]}, loopback. The server has processor
{machine["server_cpu"]}, the generator processor {machine["generator_cpu"]}. Each server was measured {often} in each scenario, the servers in turns; what
stands here are medians, with the least and the most in brackets.
"""


def in_short(results):
    """A row for each server, a column for each scenario's first figure; the best of a column is bold."""
    columns = {name: scenario.figures[0] for name, scenario in results.scenarios.items()}
    lines = ["## In short", ""]
    heads = [f"{results.scenarios[name].title}: {figure.title}, {figure.unit}" for name, figure in columns.items()]
    lines += [row(["", *heads]), row(["---", *["---:"] * len(heads)])]
    for server in results.servers:
        cells = []
        for name, figure in columns.items():
            spread = results.spread(name, server, figure)
            text = number(spread.median) if spread else "no figure"
            best = results.ranked(name, figure)[0][1]
            cells.append(f"**{text}**" if spread and is_same(spread, best) else text)
        lines.append(row([results.title(server), *cells]))
    return "\n".join([*lines, ""])


def not_first(results):
    lines = ["## Where Fanwire is not first", ""]
    if OURS not in results.servers:
        return "\n".join([*lines, "It was not measured.", ""])
    found = [line for name, scenario in results.scenarios.items() for line in behind(results, name, scenario)]
    return "\n".join([*lines, *(found or ["In no figure of this page."]), ""])


def behind(results, name, scenario):
    """A sentence for each figure of a scenario in which another server has a better median."""
    for figure in scenario.figures:
        ranked = results.ranked(name, figure)
        ours = dict(ranked)[OURS]
        place = f"- {scenario.title}, {figure.title}:"
        if ours is None:
            yield f"{place} Fanwire has no figure."
            continue
        before = ranked[: ranked.index((OURS, ours))]
        better = [(server, spread) for server, spread in before if not is_same(spread, ours)]
        words = [
            f"{results.title(server)} {with_range(spread, figure.unit)}{overlap(spread, ours)}" for server, spread in better
        ]
        if words:
            yield f"{place} {'; '.join(words)}. Fanwire has {with_range(ours, figure.unit)}."


def is_same(one, other):
    """Whether two medians are as good as the same."""
    return abs(one.median - other.median) <= SAME * max(one.median, other.median)


def overlap(one, other):
    is_apart = one.most < other.least or other.most < one.least
    return "" if is_apart or one.least == one.most else ", the ranges overlap"


def section(results, name):
    scenario = results.scenarios[name]
    lines = [f"## {scenario.title}", "", scenario.question, "", f"![{scenario.title}](compare/{name}.svg)", ""]
    heads = [f"{figure.title}, {figure.unit}" for figure in scenario.figures]
    has_deliveries = any(figure.needs_all for figure in scenario.figures)
    heads += ["not delivered"] if has_deliveries else []
    lines += [row(["", *heads]), row(["---", *["---:"] * len(heads)])]
    for server, _ in results.ranked(name, scenario.figures[0]):
        cells = []
        for figure in scenario.figures:
            spread = results.spread(name, server, figure)
            cells.append(with_range(spread))
        if has_deliveries:
            cells.append(missing(results.reports(name, server)) or "0")
        lines.append(row([results.title(server), *cells]))
    words = ["fanwire", "bench", *results.all["scenarios"][name]]
    lines += ["", f"`{' '.join(words)}`", *notes(results, name, has_deliveries)]
    return "\n".join([*lines, ""])


def missing(reports):
    """What of the deliveries went wrong, in all runs together."""
    sums = {name: sum(report.get(name) or 0 for report in reports) for name in ("lost", "repeated", "reordered", "closed")}
    words = [f"{count:,} {name}" for name, count in sums.items() if count]
    return ", ".join(words)


def notes(results, scenario, has_deliveries):
    """What of a scenario's runs has to be known to read its figures."""
    lines = []
    for server in results.servers:
        runs = results.runs(scenario, server)
        for error in sorted({run["error"] for run in runs if "error" in run}):
            lines.append(f"- {results.title(server)} could not be measured: {error}.")
        gone = missing(results.reports(scenario, server))
        if gone and not has_deliveries:
            lines.append(f"- {results.title(server)}: {gone}.")
        disturbed = [run for run in runs if run.get("is_disturbed") and "error" not in run]
        if disturbed:
            most = max(run["report"]["foreign_cpu_percent"] for run in disturbed)
            often = f"in {len(disturbed)} of {len(runs)} runs"
            lines.append(f"- {results.title(server)}: {often} others took up to {number(most)} % of a processor.")
    full = [results.title(name) for name in results.servers if is_generator_full(results.reports(scenario, name))]
    if full:
        lines.append(f"- The generator's processor was full, so the limit may be the generator's: {', '.join(full)}.")
    return ["", *lines] if lines else []


def is_generator_full(reports):
    shares = [report["generator"]["cpu_percent"] or 0.0 for report in reports]
    return bool(shares) and statistics.median(shares) > GENERATOR_FULL


def conditions(results):
    runs = results.all["runs"]
    again = sum(run["attempts"] - 1 for run in runs)
    disturbed = sum(bool(run["is_disturbed"]) for run in runs)
    return f"""## How to read this

- One server at a time, on a processor of its own; publisher and subscribers are one `fanwire bench` on another. Each scenario is
  measured with every server before the next one begins, in each round in another order.
- Latency runs from the time at which an event was *meant* to be sent to the subscriber's read; every delivery's order is checked.
  *No figure* for a latency: deliveries are missing, so those that came say nothing.
- *Not delivered* adds up all runs. Under a load that a server cannot do, most of it is what still waited at the end.
- Before each run the machine has to be quiet, and a run in which other programs took more than 6 % of a processor is made
  again, twice at most: {again} of {len(runs) + again} were, {disturbed} of the {len(runs)} that count were disturbed still.
- A capacity is the highest rate that a search found; the search ends at the first rates that miss, which on a virtual machine may be
  a neighbour's doing. Read differences below a factor of 1.5 as none.
- nats-server and mosquitto are spoken to over TCP in their own protocols, the others over WebSocket; mosquitto, nats-server and nchan
  do more than fan out, and are in the version that the system's packages have.
- Medians within 1 % of each other are the same. Who delivers more than was asked for makes up for what was late: that counts for no more.
- A handshake ends when the client is subscribed: with the upgrade in Bun, ws, tokio-tungstenite and nchan, with the answer to one message more
  in Fanwire's JSON dialect, Socket.IO, NATS and MQTT.
- Resident memory is the server's own. The kernel's part of a connection is not in it, and is the same for all.
"""


def configurations(results):
    lines = ["## Servers and their settings", "", row(["", "version", "settings"]), row(["---"] * 3)]
    for name, server in results.servers.items():
        settings = server.settings
        if server.source:
            settings += f" [{server.source}](../benches/compare/servers/{server.source})"
        lines.append(row([server.title, results.all["servers"][name]["version"], settings]))
    lines += ["", "```sh"]
    for name in results.servers:
        lines.append(results.all["servers"][name]["command"])
    return "\n".join([*lines, "```", ""])


def again():
    return """## Measure again

```sh
make compare                                            # everything: installs, measures, writes this page; half an hour
make compare COMPARE=--resume                           # goes on where that broke off
make compare COMPARE=--quick                            # does everything work? A few minutes; writes artefacts/compare.md
make compare COMPARE="--only steady,idle --servers fanwire,bun --reps 5"
```

Linux, two processors, 12,000 open files; Node.js with npm, Rust, Python 3, and Debian or a relative for nats-server, mosquitto and
nchan. [benches/compare/install](../benches/compare/install) unpacks everything into folders beside it; no service is installed or started.
"""


def row(cells):
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: page.py RESULTS DIR")
    for written in write(sys.argv[1], pathlib.Path(sys.argv[2])):
        print(f"wrote {written}")
