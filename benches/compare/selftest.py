#!/usr/bin/env python3
"""Tests of the comparison itself, without any server: `python3 selftest.py`. Runs are made up."""

import argparse
import contextlib
import io
import json
import pathlib
import tempfile
import unittest
from unittest import mock

import compare
import page
import scenarios
import servers


def report(foreign=1.0, **figures):
    """What `fanwire bench` could have written."""
    made = {
        "lost": 0,
        "repeated": 0,
        "reordered": 0,
        "closed": 0,
        "rate": 100.0,
        "subscribers": 1000,
        "topics": 1,
        "deliveries_per_sec": 1e5,
        "latency_ms": {"p50": 2.0, "p99": 5.0},
        "server": {"cpu_us_per_delivery": 4.0, "rss_bytes_per_connection": 400.0},
        "generator": {"cpu_percent": 40.0},
        "foreign_cpu_percent": foreign,
        "handshakes_per_sec": 20000.0,
        "capacity_rate": 10000.0,
    }
    return {**made, **figures}


def price(value, **more):
    return report(server={"cpu_us_per_delivery": value}, **more)


def results(reports, scenario="steady"):
    """Results of one scenario from the reports of each server; a text stands for a run that failed."""
    runs = []
    for server, made in reports.items():
        for turn, one in enumerate(made, 1):
            run = {"round": turn, "scenario": scenario, "server": server, "attempts": 1, "is_disturbed": False}
            runs.append({**run, **({"error": one} if isinstance(one, str) else {"report": one})})
    return {
        "is_quick": False,
        "rounds": 3,
        "scenarios": {scenario: []},
        "servers": {name: {"version": f"{name} 1.0", "command": name} for name in reports},
        "machine": {
            "processor": "A processor",
            "processors": 2,
            "is_virtual": False,
            "memory_gib": 8,
            "system": "A system",
            "kernel": "6.1",
            "congestion_control": "cubic",
            "server_cpu": 0,
            "generator_cpu": 1,
        },
        "commit": None,
        "began": "2026-01-02 03:04:05",
        "runs": runs,
    }


def paragraph(text, heading):
    return text.split(f"## {heading}\n\n")[1].split("\n\n")[0]


class Page(unittest.TestCase):
    def markdown(self, reports, scenario="steady"):
        return page.markdown(page.Results(results(reports, scenario)))

    def test_numbers_have_three_digits(self):
        shown = {0: "0", 0.12345: "0.123", 4.5678: "4.57", 9.999: "10.0", 99.96: "100", 1234567: "1,230,000"}
        for value, text in shown.items():
            self.assertEqual(page.number(value), text)

    def test_tables_show_median_and_range_and_the_best_is_bold(self):
        text = self.markdown({"fanwire": map(price, (4.8, 4.56, 4.31)), "bun": map(price, (5.5, 5.0, 9.0))})
        self.assertIn("| Fanwire | 4.56 (4.31 to 4.80) | 2.00 | 5.00 | 0 |", text)
        self.assertIn("| Fanwire | **4.56** |", text)
        self.assertIn("| Bun | 5.50 (5.00 to 9.00) |", text)
        self.assertEqual(paragraph(text, "Where Fanwire is not first"), "In no figure of this page.")

    def test_where_fanwire_is_behind_is_said(self):
        text = self.markdown({"fanwire": map(price, (4.8, 4.56, 4.5)), "bun": map(price, (4.0, 4.6, 4.1))})
        words = (
            "- A steady stream, server's processor time, each delivery: Bun 4.10 µs (4.00 to 4.60), the ranges overlap. "
            "Fanwire has 4.56 µs (4.50 to 4.80)."
        )
        self.assertEqual(paragraph(text, "Where Fanwire is not first"), words)

    def test_more_is_better_where_it_is(self):
        made = {"fanwire": [report(capacity_rate=9000.0)], "nats": [report(capacity_rate=12000.0)]}
        text = self.markdown(made, "capacity-10")
        self.assertIn("highest rate: nats-server 12,000 events/s. Fanwire has 9,000 events/s.", text)

    def test_to_deliver_more_than_was_asked_for_is_not_better(self):
        flood = {"rate": 10000.0, "server": {"cpu_us_per_delivery": 0.1}}
        made = {"fanwire": [report(deliveries_per_sec=9.95e6, **flood)], "bun": [report(deliveries_per_sec=1.2e7, **flood)]}
        text = self.markdown(made, "flood")
        self.assertEqual(paragraph(text, "Where Fanwire is not first"), "In no figure of this page.")
        self.assertIn("| Bun | **10.0** |", text)
        self.assertIn("| Fanwire | **9.95** |", text)

    def test_who_loses_something_has_no_latency_and_who_fails_no_figure(self):
        made = {"fanwire": [report(lost=7), report()], "bun": [report(), report()], "ws": [report(), "it is gone"]}
        text = self.markdown(made)
        self.assertIn("| Fanwire | 4.00 | no figure | no figure | 7 lost |", text)
        self.assertIn("| npm ws | no figure | no figure | no figure | 0 |", text)
        self.assertIn("- npm ws could not be measured: it is gone.", text)
        self.assertIn("- A steady stream, p99: Fanwire has no figure.", text)

    def test_a_generator_that_can_no_more_is_told(self):
        busy = {"cpu_percent": 99.0}
        made = {"fanwire": [report(generator=busy)] * 2, "bun": [report(), report(), report(generator=busy)]}
        told = "- The generator's processor was full, so the limit may be the generator's: Fanwire.\n"
        self.assertIn(told, self.markdown(made, "capacity-10"))

    def test_plots_have_a_bar_for_each_server_with_a_figure(self):
        drawn = page.plot(page.Results(results({"fanwire": [price(4.0)], "bun": ["gone"], "ws": [price(8.0)]})), "steady")
        self.assertEqual(drawn.count('class="bar'), 2)
        self.assertEqual(drawn.count('class="bar ours"'), 1)
        self.assertIn("no figure", drawn)


class Runner(unittest.TestCase):
    """Servers that exist as little as their runs."""

    def setUp(self):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        self.out = pathlib.Path(folder)
        known = servers.table("fanwire")
        self.made = []
        made_up = mock.patch.multiple(
            compare,
            wait_for_quiet=lambda longest: None,
            check_machine=lambda options, measured: None,
            install=lambda names: None,
            found=lambda name, server: {"version": f"{name} 1.0", "command": name},
            bench=lambda options, words, server: self.bench(words, server),
        )
        self.enterContext(made_up)
        three = {name: known[name] for name in ("fanwire", "bun", "ws")}
        self.enterContext(mock.patch.object(servers, "table", lambda fanwire: three))
        self.bench = lambda words, server: self.note(words, server) or {"report": report()}

    def note(self, words, server):
        self.made.append((words[0], server.title))

    def compare(self, **more):
        options = {"servers": None, "only": ["steady", "idle"], "reps": 2, "quick": False, "resume": False, "wait": 0}
        options |= {"out": self.out, "fanwire": pathlib.Path("fanwire"), "server_cpu": 0, "generator_cpu": 1}
        with contextlib.redirect_stdout(io.StringIO()) as said:
            compare.compare(argparse.Namespace(**{**options, **more}))
        return said.getvalue()

    def kept(self, name="results.json"):
        return json.loads((self.out / "compare" / name).read_text())

    def test_servers_take_turns_in_another_order_each_time(self):
        self.compare()
        self.assertEqual(
            self.made,
            [("fanout", "Fanwire"), ("fanout", "Bun"), ("fanout", "npm ws")]
            + [("idle", "Bun"), ("idle", "npm ws"), ("idle", "Fanwire")]
            + [("fanout", "Bun"), ("fanout", "npm ws"), ("fanout", "Fanwire")]
            + [("idle", "npm ws"), ("idle", "Fanwire"), ("idle", "Bun")],
        )
        files = sorted(str(path.relative_to(self.out)) for path in self.out.rglob("*") if path.is_file())
        self.assertEqual(files, ["compare.md", "compare/idle.svg", "compare/results.json", "compare/steady.svg"])

    def test_what_others_disturbed_is_made_again_and_the_calmest_counts(self):
        calm = {"Fanwire": [3.0], "Bun": [9.0, 2.0], "npm ws": [30.0, 7.0, 8.0]}
        self.bench = lambda words, server: {"report": report(foreign=calm[server.title].pop(0))}
        said = self.compare(only=["steady"], reps=1)
        runs = {run["server"]: run for run in self.kept()["runs"]}
        self.assertEqual({name: run["attempts"] for name, run in runs.items()}, {"fanwire": 1, "bun": 2, "ws": 3})
        self.assertEqual([name for name, run in runs.items() if run["is_disturbed"]], ["ws"])
        self.assertEqual(runs["ws"]["report"]["foreign_cpu_percent"], 7.0)
        self.assertIn("others took 9 % of a processor, again", said)
        text = (self.out / "compare.md").read_text()
        self.assertIn("- npm ws: in 1 of 1 runs others took up to 7.00 % of a processor.", text)
        self.assertIn("3 of 6 were, 1 of the 3 that count were disturbed still", text)

    def test_a_run_that_broke_off_goes_on(self):
        def break_off(words, server):
            if len(self.made) == 5:
                raise KeyboardInterrupt
            self.note(words, server)
            return {"report": report()}

        self.bench, whole = break_off, self.bench
        with self.assertRaises(KeyboardInterrupt):
            self.compare()
        self.assertEqual(len(self.kept("unfinished.json")["runs"]), 5)
        self.bench = whole
        with self.assertRaisesRegex(compare.Trouble, "other rounds: 2, not 3"):
            self.compare(resume=True, reps=3)
        self.compare(resume=True)
        self.assertEqual(len(self.made), 12)
        self.assertEqual(len({(run["round"], run["scenario"], run["server"]) for run in self.kept()["runs"]}), 12)
        with self.assertRaisesRegex(compare.Trouble, "nothing to go on with"):
            self.compare(resume=True)

    def test_a_server_that_cannot_be_measured_stops_nobody_else(self):
        self.bench = lambda words, server: {"error": "it is gone"} if server.title == "Bun" else {"report": report()}
        self.compare(only=["steady"], reps=1)
        runs = {run["server"]: run for run in self.kept()["runs"]}
        self.assertEqual((runs["bun"]["error"], runs["bun"]["attempts"]), ("it is gone", compare.ATTEMPTS))
        self.assertIn("report", runs["ws"])

    def test_names_that_there_are_not_are_told(self):
        with self.assertRaisesRegex(compare.Trouble, "there is no server redis: fanwire, bun, ws"):
            self.compare(servers=["redis"])
        with self.assertRaisesRegex(compare.Trouble, "there is no scenario steadi: steady, flood"):
            self.compare(only=["steadi"])


class Scenarios(unittest.TestCase):
    def test_what_is_quick_is_the_same_but_smaller(self):
        for name, scenario in scenarios.SCENARIOS.items():
            whole, quick = (scenarios.arguments(scenario, is_quick) for is_quick in (False, True))
            self.assertEqual(whole[::2][:1] + whole[1::2], quick[::2][:1] + quick[1::2], name)


if __name__ == "__main__":
    unittest.main()
