#!/usr/bin/env python3
"""Runs Fanwire and other servers in turns on the same processors, and writes the page of what was measured.

The other servers are installed first, as far as they are missing. Every run is one
`fanwire bench` with one server that it starts and ends. In each round every scenario is measured
with every server, in another order each time. A run in which other programs took much of a processor is repeated.
Results are saved after each run, so that --resume goes on where a run broke off.

A full run writes docs/compare.md and docs/compare/; what is quick or a part goes to artefacts/.
"""

import argparse
import json
import os
import pathlib
import platform
import resource
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time

import page
import scenarios
import servers

# Of one processor, in percent: what others may take during a run, and before it.
FOREIGN = 6.0
ATTEMPTS = 3
QUICK_ATTEMPTS = 1
# In seconds: for one run of `fanwire bench`; for its server's port to be free again.
PATIENCE = 240
PORT_PATIENCE = 10
# Besides a connection for each subscriber.
SPARE_FILES = 200


class Trouble(Exception):
    """What keeps the comparison from being made, in words for whoever started it."""


def main():
    options = parse()
    try:
        compare(options)
    except Trouble as trouble:
        sys.exit(f"compare: {trouble}")
    except KeyboardInterrupt:
        sys.exit("\ncompare: interrupted; --resume goes on from here")


def parse():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", servers.REPOSITORY / "target"))
    parser = argparse.ArgumentParser(
        prog="compare.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ",".join(servers.table("fanwire"))
    some = {"type": lambda text: text.split(","), "metavar": "NAME,..."}
    parser.add_argument("--servers", **some, help=f"only these: {names}")
    parser.add_argument("--only", **some, help=f"only these scenarios: {','.join(scenarios.SCENARIOS)}")
    parser.add_argument("--reps", type=int, metavar="N", help="rounds; 3, and 1 with --quick")
    parser.add_argument("--quick", action="store_true", help="everything small and short: whether it works at all")
    parser.add_argument("--resume", action="store_true", help="keep the results of a run that broke off, make the others")
    parser.add_argument("--out", type=pathlib.Path, metavar="DIR", help="where the page goes")
    parser.add_argument("--fanwire", type=pathlib.Path, default=target / "release/fanwire", metavar="FILE")
    parser.add_argument("--server-cpu", type=int, default=0, metavar="N")
    parser.add_argument("--generator-cpu", type=int, default=1, metavar="N")
    parser.add_argument("--wait", type=float, metavar="SECS", help="at most, for a quiet machine; 60, and 1 with --quick")
    options = parser.parse_args()
    options.is_part = options.quick or bool(options.servers or options.only)
    options.reps = options.reps or (1 if options.quick else 3)
    options.wait = (1 if options.quick else 60) if options.wait is None else options.wait
    options.out = options.out or servers.REPOSITORY / ("artefacts" if options.is_part else "docs")
    return options


def compare(options):
    chosen = choose("server", servers.table(options.fanwire.resolve()), options.servers)
    measured = choose("scenario", scenarios.SCENARIOS, options.only)
    check_machine(options, measured)
    install(list(chosen))
    # With the libraries that came just now.
    chosen = choose("server", servers.table(options.fanwire.resolve()), options.servers)
    settings = {
        "is_quick": options.quick,
        "rounds": options.reps,
        "scenarios": {name: scenarios.arguments(scenario, options.quick) for name, scenario in measured.items()},
        "servers": {name: found(name, server) for name, server in chosen.items()},
        "machine": machine(options),
        "commit": commit(),
    }
    saved = options.out / "compare" / "unfinished.json"
    results = resume(saved, settings) if options.resume else dict(settings, began=now(), runs=[])
    todo = list(plan(list(measured), list(chosen), options.reps))
    done = {(run["round"], run["scenario"], run["server"]) for run in results["runs"]}
    for count, (turn, scenario, name) in enumerate(todo, 1):
        if (turn, scenario, name) in done:
            continue
        print(f"[{count}/{len(todo)}] round {turn}, {scenario}, {chosen[name].title}:", end=" ", flush=True)
        words = scenarios.arguments(measured[scenario], options.quick)
        run = {"round": turn, "scenario": scenario, "server": name, "at": now(), **measure(options, words, chosen[name])}
        print(summary(measured[scenario], run), flush=True)
        results["runs"].append(run)
        save(saved, results)
    results["ended"] = now()
    save(saved, results)
    finished = saved.with_name("results.json")
    saved.replace(finished)
    for path in page.write(finished, options.out):
        print(f"wrote {path}")


def choose(kind, table, names):
    """The rows of a table with these names, in the table's order; all without names."""
    for name in names or ():
        if name not in table:
            raise Trouble(f"there is no {kind} {name}: {', '.join(table)}")
    return {name: row for name, row in table.items() if not names or name in names}


def install(names):
    """Gets the servers that are not here yet. Says nothing where all are."""
    if subprocess.run([servers.HERE / "install", *names], stdout=sys.stderr, check=False).returncode != 0:
        raise Trouble("not every server can be had here, see above; --servers fanwire,... names those that you want")


def found(name, server):
    version = servers.version(server)
    if version is None:
        hint = "cargo build --release makes it" if name == "fanwire" else "see benches/compare/install"
        raise Trouble(f"{server.title} is not here, or does not tell its version: {hint}")
    return {"version": version, "command": servers.shell(server.command)}


def plan(measured, chosen, rounds):
    """Each round has every scenario, each scenario every server, in an order that moves on by one each time."""
    for turn in range(1, rounds + 1):
        for place, scenario in enumerate(measured):
            first = (turn - 1 + place) % len(chosen)
            for name in chosen[first:] + chosen[:first]:
                yield turn, scenario, name


def resume(saved, settings):
    try:
        results = json.loads(saved.read_text())
    except FileNotFoundError:
        raise Trouble(f"there is nothing to go on with: no {saved}") from None
    for name, value in settings.items():
        if results[name] != value:
            raise Trouble(f"{saved} was made with other {name}: {results[name]}, not {value}")
    return results


def save(path, results):
    """All or nothing: a run that breaks off here leaves what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(results, indent=1) + "\n")
    new.replace(path)


def now():
    return time.strftime("%Y-%m-%d %H:%M:%S")


# One run.


def measure(options, words, server):
    """Measures a server until nothing else disturbed it, or often enough. The least disturbed attempt counts."""
    attempts = []
    for left in reversed(range(QUICK_ATTEMPTS if options.quick else ATTEMPTS)):
        wait_for_quiet(options.wait)
        run = bench(options, words, server)
        attempts.append(run)
        if disturbance(run) <= FOREIGN or left == 0:
            break
        print(f"{run.get('error') or f'others took {disturbance(run):.0f} % of a processor'}, again:", end=" ", flush=True)
    best = min(attempts, key=disturbance)
    return {"attempts": len(attempts), "is_disturbed": disturbance(best) > FOREIGN, **best}


def disturbance(run):
    return float("inf") if "error" in run else run["report"]["foreign_cpu_percent"] or 0.0


def bench(options, words, server):
    """One `fanwire bench`: its report, or why there is none."""
    wait_for_port(servers.PORT)
    command = [str(options.fanwire), "bench", *words, "--peer", server.protocol, "--to", f"{servers.HOST}:{servers.PORT}"]
    if server.publish_port:
        wait_for_port(server.publish_port)
        command += ["--publish", f"{servers.HOST}:{server.publish_port}"]
    command += ["--server", shlex.join(server.command)]
    command += ["--server-cpu", str(options.server_cpu), "--generator-cpu", str(options.generator_cpu)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FANWIRE_")}
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder, "report.json")
        command += ["--json", str(report)]
        child = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            _, said = child.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return {"error": f"no result within {PATIENCE} s"}
        finally:
            end(child)
        try:
            figures = json.loads(report.read_text())
        except (OSError, ValueError):
            last = said.strip().splitlines()[-1:] or ["no word of why"]
            return {"error": f"exit {child.returncode}, {last[0]}"}
    figures.pop("latency_cdf", None)  # Long, and the page has no use for it.
    return {"report": figures}


def end(child):
    """Ends a bench that has not ended by itself, and with it the server that it started."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(PORT_PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    child.stderr.close()


def wait_for_port(port):
    """Until nothing listens: a server that was left over would be measured in place of the right one."""
    deadline = time.monotonic() + PORT_PATIENCE
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((servers.HOST, port)) != 0:
                return
        if time.monotonic() > deadline:
            raise Trouble(f"something else listens on {servers.HOST}:{port}")
        time.sleep(0.1)


def wait_for_quiet(longest):
    deadline = time.monotonic() + longest
    while (busy := busy_percent(0.5)) > FOREIGN:
        if time.monotonic() > deadline:
            print(f"(not quiet: {busy:.0f} % of a processor busy)", end=" ", flush=True)
            return


def busy_percent(seconds):
    """What ran on this machine, in percent of one processor, and what its host withheld from it."""

    def ticks():
        with open("/proc/stat", encoding="ascii") as stat:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.readline().split()[1:9])
        return user + nice + system + irq + softirq + steal

    before, start = ticks(), time.monotonic()
    time.sleep(seconds)
    return (ticks() - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - start) * 100


def summary(scenario, run):
    if "error" in run:
        return f"not measured: {run['error']}"
    parts = [page.quantity(figure.of(run["report"]), figure.unit) for figure in scenario.figures]
    return ", ".join(parts) + (" (disturbed)" if run["is_disturbed"] else "")


# The machine.


def check_machine(options, measured):
    usable = os.sched_getaffinity(0)
    for cpu in (options.server_cpu, options.generator_cpu):
        if cpu not in usable:
            raise Trouble(f"there is no processor {cpu} here, only {sorted(usable)}: server and generator need one each")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    words = [scenarios.arguments(scenario, options.quick) for scenario in measured.values()]
    needed = max(int(line[line.index("--subscribers") + 1]) for line in words) + SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise Trouble(f"a process may open {hard} files here, and {needed} are needed: ulimit -n {needed}, or --only")
    # Servers and generator inherit it.
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def commit():
    """What was built, as far as git knows it."""
    try:
        command = ["git", "-C", str(servers.REPOSITORY), "rev-parse", "--short=10", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None


def machine(options):
    def line(path, name):
        for text in pathlib.Path(path).read_text().splitlines():
            if text.startswith(name):
                return text.partition(":" if ":" in text else "=")[2].strip().strip('"')
        return "unknown"

    control = pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control")
    return {
        "processor": line("/proc/cpuinfo", "model name"),
        "processors": os.cpu_count(),
        "is_virtual": "hypervisor" in line("/proc/cpuinfo", "flags").split(),
        "memory_gib": round(int(line("/proc/meminfo", "MemTotal").split()[0]) / 2**20),
        "system": line("/etc/os-release", "PRETTY_NAME"),
        "kernel": platform.release(),
        "congestion_control": control.read_text().strip() if control.exists() else "unknown",
        "server_cpu": options.server_cpu,
        "generator_cpu": options.generator_cpu,
    }


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
