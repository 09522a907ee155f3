//! Processes of a host, as the machine beneath counts them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use resilver_host::Host;

use super::{Hosts, shell};

impl Hosts {
    /// The PID that a process of a host has outside of it.
    ///
    /// # Errors
    /// When the host has no such process.
    pub async fn outer_pid(&self, index: usize, inner: u32) -> anyhow::Result<u32> {
        let mut open = vec![self.hosts[index].leader];
        let mut known = BTreeSet::new();
        while let Some(pid) = open.pop() {
            if !known.insert(pid) {
                continue;
            }
            let status = shell::read(&self.host, &PathBuf::from(format!("/proc/{pid}/status"))).await;
            if status.as_deref().and_then(innermost) == Some(inner) {
                return Ok(pid);
            }
            open.extend(children(&self.host, pid).await);
        }
        anyhow::bail!("host {} has no process {inner}", index + 1)
    }
}

/// What a process is called in the innermost namespace that it is in.
fn innermost(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().last()?.parse().ok()
}

/// The children of all threads of a process. It may end meanwhile: then it has none.
async fn children(host: &Host, pid: u32) -> Vec<u32> {
    let mut all = Vec::new();
    let tasks = host.disk.list(&PathBuf::from(format!("/proc/{pid}/task"))).await;
    for task in tasks.unwrap_or_default() {
        let path = PathBuf::from(format!("/proc/{pid}/task/{}/children", task.name));
        let text = shell::read(host, &path).await.unwrap_or_default();
        all.extend(text.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_is_that_of_the_host() {
        assert_eq!(innermost("Name:\tresilver\nNSpid:\t4711\t12\nThreads:\t4\n"), Some(12));
        assert_eq!(innermost("Name:\tresilver\n"), None);
    }
}
