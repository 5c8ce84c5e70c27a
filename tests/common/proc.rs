//! What the system knows of a node: its open files, its memory, its processor time.

use std::fs;
use std::time::Duration;

use super::Node;

/// Files that it has open, sockets too.
pub fn open_files(node: &Node) -> usize {
    fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap().count()
}

/// A figure of `/proc/PID/status`.
pub fn status(node: &Node, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find(|line| line.split(':').next() == Some(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A figure of `/proc/PID/status` that is memory, in bytes.
pub fn memory(node: &Node, name: &str) -> u64 {
    status(node, name) << 10
}

/// Bytes of memory that it has now.
pub fn resident(node: &Node) -> u64 {
    memory(node, "VmRSS")
}

/// Processor time that it has used.
pub fn cpu_time(node: &Node) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", node.pid())).unwrap();
    // After the name, which may hold anything: state is the third field, user and system time the 14th and 15th.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    // Linux counts in hundredths of a second here, whatever the kernel's own clock does.
    Duration::from_millis(ticks * 10)
}
