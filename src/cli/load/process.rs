//! The process under test, as `/proc` shows it: processor time and memory of it and of its descendants.

use std::fs;
use std::time::Duration;

/// A process, with those that it started as far as they were there when it was looked at.
#[derive(Clone, Debug, Default)]
pub struct Process {
    pids: Vec<u32>,
}

impl Process {
    /// One that nothing is known of: everything it uses is 0.
    pub fn unknown() -> Self {
        Self::default()
    }

    /// This process alone.
    pub fn of(pid: u32) -> Self {
        Self { pids: vec![pid] }
    }

    /// This process and all of its descendants that there are now.
    pub fn tree(pid: u32) -> Self {
        let all: Vec<(u32, u32)> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
                // After the state comes the parent's number.
                Some((pid, stat_fields(pid).get(1)?.parse().ok()?))
            })
            .collect();
        let mut pids = vec![pid];
        let mut next = 0;
        while let Some(parent) = pids.get(next).copied() {
            pids.extend(all.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
            next += 1;
        }
        Self { pids }
    }

    /// Whether anything is known of it.
    pub fn is_known(&self) -> bool {
        !self.pids.is_empty()
    }

    /// User and system time that it has used. To the nanosecond from the scheduler, but for threads that have ended,
    /// which are only in the hundredths of seconds that the kernel counts for the whole process.
    pub fn cpu(&self) -> Duration {
        self.pids.iter().map(|pid| cpu_of(*pid)).sum()
    }

    /// Resident memory in bytes; what processes share counts for each of them.
    pub fn resident(&self) -> u64 {
        self.pids.iter().map(|pid| status(*pid, "VmRSS:")).sum()
    }

    /// The most that its resident memory was since [`Process::forget_peak`], in bytes.
    pub fn peak(&self) -> u64 {
        self.pids.iter().map(|pid| status(*pid, "VmHWM:")).sum()
    }

    /// [`Process::peak`] counts from now.
    pub fn forget_peak(&self) {
        for pid in &self.pids {
            // Where the kernel does not allow it, the peak is that of the whole life: more, never less.
            drop(fs::write(format!("/proc/{pid}/clear_refs"), "5"));
        }
    }

    /// Open files; 0 where it may not be looked at.
    pub fn files(&self) -> usize {
        let count = |pid| fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        self.pids.iter().map(count).sum()
    }
}

fn cpu_of(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let times = tasks.filter_map(|task| {
        let schedstat = fs::read_to_string(task.path().join("schedstat")).ok()?;
        schedstat.split(' ').next()?.parse::<u64>().ok()
    });
    let exact = Duration::from_nanos(times.sum());
    let counted = ticks(stat_fields(pid).iter().skip(11).take(2).map(String::as_str));
    // Both are cut off somewhere: only where much is missing did a thread end.
    if counted > exact + Duration::from_millis(50) { counted } else { exact }
}

/// Time that the machine's processors were busy, whoever kept them so, in whole hundredths of a second.
pub(super) fn cpu_of_all() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    // user, nice, system, idle, iowait, irq, softirq, steal: all but the fourth and fifth.
    let busy = fields.take(8).enumerate().filter(|(place, _)| !matches!(place, 3 | 4));
    ticks(busy.map(|(_, field)| field))
}

fn ticks<'a>(fields: impl Iterator<Item = &'a str>) -> Duration {
    let ticks: u64 = fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10) // Linux counts hundredths of a second here, whatever its own clock does.
}

/// The fields of `/proc/PID/stat` from the state on: the name before it may contain spaces.
fn stat_fields(pid: u32) -> Vec<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

fn status(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_there_and_nothing_is_known_of_none() {
        let own = Process::of(std::process::id());
        assert!(own.resident() > 0 && own.files() > 0 && own.is_known());
        assert!(own.peak() >= own.resident() / 2);
        let mut busy = 1_u64;
        let before = own.cpu();
        while own.cpu() == before {
            busy = std::hint::black_box(busy.wrapping_mul(3));
        }
        let none = Process::unknown();
        assert_eq!((none.resident(), none.cpu(), none.is_known()), (0, Duration::ZERO, false));
    }

    #[test]
    fn descendants_are_found() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "exec 3<&0; cat <&3 & echo started; wait"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut started = [0; 8];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut started).unwrap();
        assert_eq!(Process::tree(child.id()).pids.len(), 2);
        assert!(Process::tree(std::process::id()).pids.len() >= 3);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
