#!/usr/bin/env python3
"""Runs the Autobahn test suite against a node: `run.py WSTEST FANWIRE REPORT [CASE …]`.

WSTEST is what `install` made, FANWIRE the program, REPORT the directory for the suite's report. A CASE is a pattern
such as `5.*`; without any, all cases but those on compression, which a node does not offer, are run. Prints a summary and
fails unless every case passed.
"""

import collections
import json
import os
import re
import shutil
import subprocess
import sys

# Groups 12 and 13 are on permessage-deflate. There is no group 8, and no group 11.
GROUPS = [f"{group}.*" for group in (1, 2, 3, 4, 5, 6, 7, 9, 10)]
CASES = 301
AGENT = "fanwire"
# What the RFC leaves open is passed too: not what was expected, but what may be (NON-STRICT), or nothing to pass
# (INFORMATIONAL).
PASSED = {"OK", "NON-STRICT", "INFORMATIONAL"}
# In seconds. All cases together take about a minute.
PATIENCE = 1200


def start_node(program):
    command = [program, "serve", "--diagnostics", "--listen", "127.0.0.1:0", "--publish", "127.0.0.1:0"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FANWIRE_")}
    node = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    for line in node.stdout:
        address = re.search(r"http://(\S+)/", line)
        if address:
            return node, address.group(1)
    raise SystemExit(f"the node did not come up: exit code {node.wait()}")


def run_suite(wstest, address, report, cases):
    shutil.rmtree(report, ignore_errors=True)
    os.makedirs(report)
    spec = {
        "outdir": os.path.abspath(report),
        "servers": [{"agent": AGENT, "url": f"ws://{address}/echo"}],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    spec_path = os.path.join(report, "spec.json")
    with open(spec_path, "w") as file:
        json.dump(spec, file, indent=1)
    with open(os.path.join(report, "wstest.log"), "w") as log:
        command = [wstest, "-m", "fuzzingclient", "-s", spec_path]
        subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, timeout=PATIENCE, check=True)
    with open(os.path.join(report, "index.json")) as file:
        return json.load(file)[AGENT]


def summarise(results, wanted):
    """Prints how the cases went; answers whether all passed."""
    order = lambda name: [int(part) for part in name.split(".")]
    groups = collections.defaultdict(collections.Counter)
    for name, result in results.items():
        groups[order(name)[0]][result["behavior"]] += 1
    behaviours = sorted({name for counts in groups.values() for name in counts}, key=lambda n: (n != "OK", n))
    print(f"{'group':8}" + "".join(f"{name:>16}" for name in behaviours))
    for group, counts in sorted(groups.items()):
        print(f"{group:<8}" + "".join(f"{counts[name]:>16}" for name in behaviours))
    total = sum(groups.values(), collections.Counter())
    print(f"{'all':8}" + "".join(f"{total[name]:>16}" for name in behaviours))
    failed = False
    for name in sorted(results, key=order):
        result = results[name]
        case, close = result["behavior"], result["behaviorClose"]
        has_failed = not {case, close} <= PASSED
        failed |= has_failed
        if has_failed or case != "OK" or close != "OK":
            print(f"{'FAILED  ' if has_failed else ''}{name}: {case}, close {close}")
    if wanted and len(results) != wanted:
        print(f"{len(results)} cases were run, and there are {wanted}")
        failed = True
    print("failed" if failed else f"passed: {len(results)} cases")
    return not failed


def main():
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    wstest, program, report, *cases = sys.argv[1:]
    node, address = start_node(program)
    try:
        results = run_suite(wstest, address, report, cases or GROUPS)
        is_up = node.poll() is None
    finally:
        node.terminate()
        node.wait()
    has_passed = summarise(results, None if cases else CASES)
    if not is_up:
        raise SystemExit(f"the node ended while the suite ran: exit code {node.returncode}")
    sys.exit(not has_passed)


if __name__ == "__main__":
    main()
