//! Where a failure was: the unit in which the path of causality is counted.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::api::Subject;

/// Places that one failure may name; more are left out. An upload waits for k+m homes, 16 at the most.
pub const MAX_PLACES: usize = 16;

/// A host, or one disk of a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The node's name.
    pub host: String,
    /// Its disk; `None`: the host, and nothing is known of a disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
}

impl Place {
    /// A host.
    pub fn host(host: impl Into<String>) -> Self {
        Self { host: host.into(), disk: None }
    }

    /// A disk of a host.
    pub fn disk(host: impl Into<String>, disk: impl Into<String>) -> Self {
        Self { host: host.into(), disk: Some(disk.into()) }
    }

    /// Whether a failure that names `self` lies on `path`: the same place, or its host without a word of the disk.
    pub fn lies_on(&self, path: &Place) -> bool {
        self.host == path.host && (self.disk.is_none() || self.disk == path.disk)
    }

    /// Whether nothing speaks against both being one path.
    pub fn meets(&self, other: &Place) -> bool {
        self.lies_on(other) || other.lies_on(self)
    }

    /// What an incident here is about.
    pub fn subject(&self) -> Subject {
        match &self.disk {
            Some(disk) => Subject::Disk { disk: disk.clone(), node: self.host.clone() },
            None => Subject::Node(self.host.clone()),
        }
    }

    /// The place an incident is about; `None` for what is in many: an object, several hosts at once.
    pub fn of(subject: &Subject) -> Option<Self> {
        match subject {
            Subject::Node(node) => Some(Self::host(node)),
            Subject::Disk { disk, node } => Some(Self::disk(node, disk)),
            Subject::Hosts(hosts) => match hosts.as_slice() {
                [host] => Some(Self::host(host)),
                _ => None,
            },
            Subject::Object { .. } => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.disk {
            Some(disk) => write!(f, "disk {disk} of {}", self.host),
            None => write!(f, "host {}", self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_disks_of_a_host_are_two_places_and_the_host_alone_may_be_either() {
        let (host, one, two) = (Place::host("n1"), Place::disk("n1", "d1"), Place::disk("n1", "d2"));
        assert!(host.lies_on(&one) && !one.lies_on(&host), "a disk's failure is not its host's");
        assert!(host.meets(&one) && one.meets(&host));
        assert!(!one.meets(&two) && !one.meets(&Place::disk("n2", "d1")));
        assert_eq!(Place::of(&one.subject()), Some(one));
    }
}
