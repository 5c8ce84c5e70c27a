//! End to end over loopback: `cargo bench --bench loopback`. A node of one shard as a process of its own, one
//! publisher on its publish socket, and 10, 100 or 1,000 WebSocket subscribers of one topic.
//!
//! *One event* is latency: from the publisher's write to the moment when the last subscriber has read it.
//! *A burst* is throughput: 2,000 events at once, until every subscriber has read them all. Nothing may be missing.
//!
//! `BENCH_NODE_PREFIX="taskset -c 0" taskset -c 1 cargo bench --bench loopback` gives each side a processor.

#![allow(missing_docs, reason = "criterion_group! makes a public function without")]

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fanwire::cli::load::node::Setup;
use fanwire::cli::load::{Load, Node};

const BURST: u64 = 2_000;

fn loopback(c: &mut Criterion) {
    for subscribers in [10, 100, 1_000] {
        let mut running = None;
        let mut group = c.benchmark_group(format!("loopback, {subscribers} subscribers"));
        for (name, events) in [("one event", 1), ("a burst of events", BURST)] {
            group.throughput(Throughput::Elements(events));
            group.bench_function(BenchmarkId::new(name, events), |b| {
                let (_, load) = running.get_or_insert_with(|| {
                    let flags = ["--shards", "1", "--max-clients", &subscribers.to_string()];
                    let flags = flags.map(str::to_owned).to_vec();
                    let setup = Setup { flags, ..Setup::from_environment(env!("CARGO_BIN_EXE_fanwire")) };
                    let node = Node::start(&setup).expect("a node");
                    let load = Load::connect(&node, subscribers, 1).expect("subscribers");
                    (node, load)
                });
                b.iter_custom(|iterations| {
                    (0..iterations).map(|_| load.burst(events).expect("everything is delivered")).sum()
                });
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4));
    targets = loopback
}
criterion_main!(benches);
