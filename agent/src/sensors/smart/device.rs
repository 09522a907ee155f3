//! On which disk of the machine a folder lies: from its file system to the block device, from a partition to its disk, from
//! an encrypted or logical volume to what is below it.
//!
//! Must never: guess. A file system on no block device, or on several disks, is told as that.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use resilver_host::{DeviceNumber, Disk, OpenMode};

/// What the kernel writes about mounts of one process; hosts of many containers have thousands of lines.
const MAX_MOUNTS_BYTES: usize = 4 << 20;

/// What it writes about one device.
const MAX_UEVENT_BYTES: usize = 64 << 10;

/// Bytes asked for at a time: the kernel writes such files while they are read, and they have no length before.
const PIECE_BYTES: usize = 64 << 10;

/// Where the kernel tells of devices.
const SYS: &str = "/sys";

/// Devices looked at on the way down: the disks of a large array, each with its partition.
const MAX_DEVICES: usize = 128;

/// The name of the one disk below a folder: `sda`, `nvme0n1`.
pub(super) async fn below(disk: &dyn Disk, folder: &Path) -> Result<String, String> {
    let number = match disk.device(folder).await {
        Ok(Some(number)) if number.major != 0 => number,
        // Of a file system that has no device of its own to name, or a folder that may not be looked at, the mount tells.
        _ => by_mount(disk, folder).await?,
    };
    let found = disks_below(disk, Path::new(SYS), number).await.map_err(|error| {
        format!("what is known of device {}:{} cannot be read: {error}", number.major, number.minor)
    })?;
    let mut names = found.into_iter();
    match (names.next(), names.next()) {
        (Some(name), None) => Ok(name),
        (Some(first), Some(second)) => {
            let more = names.count() + 2;
            Err(format!("{} lies on {more} disks ({first}, {second}, …)", folder.display()))
        }
        (None, _) => Err(format!("{} lies on no disk that can be told", folder.display())),
    }
}

async fn by_mount(disk: &dyn Disk, folder: &Path) -> Result<DeviceNumber, String> {
    let mounts = read_all(disk, Path::new("/proc/self/mountinfo"), MAX_MOUNTS_BYTES).await;
    let mounts = mounts.map_err(|error| format!("mounts cannot be read: {error}"))?;
    let Some(mount) = mount_of(&mounts, folder) else {
        return Err(format!("{} is on no file system that is mounted", folder.display()));
    };
    if mount.number.major != 0 {
        return Ok(mount.number);
    }
    let device = match mount.source.starts_with("/dev/") {
        true => disk.device(Path::new(&mount.source)).await.ok().flatten().filter(|number| number.major != 0),
        false => None,
    };
    device.ok_or_else(|| format!("{} is on {} ({}), on no block device", folder.display(), mount.kind, mount.source))
}

/// A line of `mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    number: DeviceNumber,
    point: PathBuf,
    kind: String,
    source: String,
}

/// The mount that a folder is on: the longest point above it, and of several the last one, which covers the others.
fn mount_of(mounts: &str, folder: &Path) -> Option<Mount> {
    let above = mounts.lines().filter_map(mount).filter(|mount| folder.starts_with(&mount.point));
    above.max_by_key(|mount| mount.point.components().count())
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`: there may be any number of fields before the dash.
fn mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(2);
    let (major, minor) = before.next()?.split_once(':')?;
    let number = DeviceNumber { major: major.parse().ok()?, minor: minor.parse().ok()? };
    let point = PathBuf::from(unescaped(before.nth(1)?));
    let mut after = after.split(' ');
    Some(Mount { number, point, kind: after.next()?.to_owned(), source: unescaped(after.next()?) })
}

/// Blanks and the like are written as three octal digits.
fn unescaped(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The disks at the bottom of a device, by the folders that the kernel keeps of them.
async fn disks_below(disk: &dyn Disk, sys: &Path, number: DeviceNumber) -> io::Result<BTreeSet<String>> {
    let mut open = vec![sys.join("dev/block").join(format!("{}:{}", number.major, number.minor))];
    let mut found = BTreeSet::new();
    for _ in 0..MAX_DEVICES {
        let Some(base) = open.pop() else { return Ok(found) };
        let mut at = base;
        let mut told = uevent(disk, &at).await?;
        if told.partition {
            // A partition's folder lies in that of its disk. The kernel follows the link before it goes up.
            at.push("..");
            told = uevent(disk, &at).await?;
        }
        let slaves = disk.list(&at.join("slaves")).await.unwrap_or_default();
        if slaves.is_empty() {
            found.insert(told.name);
        }
        open.extend(slaves.into_iter().map(|slave| sys.join("class/block").join(slave.name)));
    }
    Err(io::Error::other(format!("it is made of more than {MAX_DEVICES} devices")))
}

struct Told {
    name: String,
    partition: bool,
}

async fn uevent(disk: &dyn Disk, base: &Path) -> io::Result<Told> {
    let text = read_all(disk, &base.join("uevent"), MAX_UEVENT_BYTES).await?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let name = value("DEVNAME").ok_or_else(|| io::Error::other(format!("{} names no device", base.display())))?;
    Ok(Told { name: name.to_owned(), partition: value("DEVTYPE") == Some("partition") })
}

/// Reads a file that has no length to go by, up to a limit.
async fn read_all(disk: &dyn Disk, path: &Path, limit: usize) -> io::Result<String> {
    let file = disk.open(path, OpenMode::Read).await?;
    let mut read = Vec::new();
    while read.len() < limit {
        let piece = file.read_at(read.len() as u64, PIECE_BYTES.min(limit - read.len())).await?;
        if piece.is_empty() {
            break;
        }
        read.extend_from_slice(&piece);
    }
    Ok(String::from_utf8_lossy(&read).into_owned())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // tests are the outside world
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 0:21 / / rw,relatime shared:1 - overlay overlay rw,lowerdir=/a
30 22 8:17 / /srv rw,noatime - xfs /dev/sdb1 rw
31 22 0:44 /@data /srv/my\\040disk rw shared:7 master:2 - btrfs /dev/sdc rw,subvol=/@data
32 22 0:50 / /srv/tank rw - zfs tank/shards rw
not a mount
";

    fn found(folder: &str) -> (u32, String, String) {
        let mount = mount_of(MOUNTS, Path::new(folder)).expect("there is a root");
        (mount.number.major, mount.kind, mount.source)
    }

    #[test]
    fn a_folder_is_on_the_nearest_mount_above_it() {
        assert_eq!(found("/srv/d1"), (8, "xfs".into(), "/dev/sdb1".into()));
        assert_eq!(found("/srv/my disk/d2"), (0, "btrfs".into(), "/dev/sdc".into()));
        assert_eq!(found("/srvother"), (0, "overlay".into(), "overlay".into()));
        assert_eq!(found("/srv/tank/d3"), (0, "zfs".into(), "tank/shards".into()));
        assert_eq!(mount_of("", Path::new("/srv")), None);
    }

    #[test]
    fn names_are_read_as_the_kernel_writes_them() {
        assert_eq!(unescaped("a\\040b\\134c"), "a b\\c");
        assert_eq!(unescaped("end\\04"), "end\\04", "half an escape is none");
        assert_eq!(unescaped("\\999"), "\\999");
    }

    /// A partition, an encrypted one, and an array, laid out as in /sys.
    #[tokio::test]
    async fn a_device_is_followed_down_to_its_disk_or_disks() {
        let sys = tempfile::tempdir().expect("a folder");
        let at = |path: &str| sys.path().join(path);
        let device = |path: &str, name: &str, kind: &str, number: &str| {
            std::fs::create_dir_all(at(path).join("slaves")).expect("made");
            std::fs::write(at(path).join("uevent"), format!("MAJOR=1\nDEVNAME={name}\nDEVTYPE={kind}\n"))
                .expect("written");
            std::os::unix::fs::symlink(at(path), at("dev/block").join(number)).expect("linked");
            std::os::unix::fs::symlink(at(path), at("class/block").join(name)).expect("linked");
        };
        std::fs::create_dir_all(at("dev/block")).expect("made");
        std::fs::create_dir_all(at("class/block")).expect("made");
        device("devices/sda", "sda", "disk", "8:0");
        device("devices/sda/sda1", "sda1", "partition", "8:1");
        device("devices/sdb", "sdb", "disk", "8:16");
        device("devices/dm-0", "dm-0", "disk", "253:0");
        std::os::unix::fs::symlink(at("devices/sda/sda1"), at("devices/dm-0/slaves/sda1")).expect("linked");
        device("devices/md0", "md0", "disk", "9:0");
        for slave in ["sdb", "dm-0"] {
            std::os::unix::fs::symlink(at("devices").join(slave), at("devices/md0/slaves").join(slave))
                .expect("linked");
        }
        let host = resilver_host::real::host();
        let found = async |major, minor| {
            let number = DeviceNumber { major, minor };
            disks_below(&*host.disk, sys.path(), number).await.map(|names| names.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(found(8, 0).await.expect("known"), ["sda"]);
        assert_eq!(found(8, 1).await.expect("known"), ["sda"], "a partition is its disk");
        assert_eq!(found(253, 0).await.expect("known"), ["sda"], "and so is what lies on it");
        assert_eq!(found(9, 0).await.expect("known"), ["sda", "sdb"], "an array is several");
        assert!(found(7, 7).await.is_err());
    }

    #[tokio::test]
    async fn our_own_folder_lies_on_a_disk_that_the_kernel_knows_or_says_why_not() {
        let host = resilver_host::real::host();
        let folder = tempfile::tempdir().expect("a folder");
        match below(&*host.disk, folder.path()).await {
            Ok(name) => assert!(host.disk.metadata(&Path::new("/sys/class/block").join(&name)).await.is_ok(), "{name}"),
            Err(why) => assert!(why.contains(" on "), "{why}"),
        }
    }

    #[tokio::test]
    async fn a_file_system_on_no_device_is_told_and_not_guessed() {
        let host = resilver_host::real::host();
        let told = below(&*host.disk, Path::new("/proc")).await.expect_err("no disk below it");
        assert!(told.contains("/proc is on proc"), "{told}");
    }
}
