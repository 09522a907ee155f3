//! Where a disk's output comes from: a file that somebody else wrote, or a program that is asked.
//!
//! Must never: run anything but the configured program, leave it running, or read more than a report may have.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use resilver_host::disk::create_dir_durably;
use resilver_host::{ExitStatus, Host, OpenMode, Process, Signal, SpawnSpec};
use tokio::time::{Instant, sleep, timeout};

use super::device;
use crate::options::SmartSource;
use resilver_smart::MAX_INPUT_BYTES;

/// How long its end may take once it was killed: only a disk that holds it in the kernel takes longer.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// How long all that is not the program may take: names, dates and a file of at most a few megabytes.
const LOOK_DEADLINE: Duration = Duration::from_secs(30);

/// How often its output is measured: what it writes beyond the limit in between is bounded by the disk's speed.
const MEASURE_EVERY: Duration = Duration::from_millis(200);

/// Bytes read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Times a file is read that changes while it is read.
const TRIES: u32 = 3;

/// The ends of names of outputs.
const ENDINGS: [&str; 2] = ["json", "txt"];

/// An output.
pub(super) struct Read {
    /// As it was written; one byte more than a report may have when it is too long.
    pub(super) output: Bytes,
    /// When, wall time: the file's own date, or when the program was asked.
    pub(super) sampled_ms: u64,
    /// For people.
    pub(super) source: String,
}

/// No output, and why.
#[derive(Debug)]
pub(super) struct Unread {
    /// Where it was looked for; empty when not even that is known.
    pub(super) source: String,
    pub(super) why: String,
}

impl Unread {
    fn nowhere(why: String) -> Self {
        Self { source: String::new(), why }
    }
}

/// Where outputs come from.
pub(super) struct Source<'a> {
    host: &'a Host,
    options: &'a SmartSource,
    dir: PathBuf,
    /// How long the program may take.
    deadline: Duration,
}

impl<'a> Source<'a> {
    pub(super) fn new(host: &'a Host, options: &'a SmartSource, dir: PathBuf, deadline: Duration) -> Self {
        Self { host, options, dir, deadline }
    }

    /// The output about the disk with this folder.
    pub(super) async fn read(&self, folder: &Path) -> Result<Read, Unread> {
        // The folder itself is on the disk that may hang, and the files may be on a share that is gone.
        let most = self.deadline + LOOK_DEADLINE;
        let read = timeout(most, self.read_unhurried(folder)).await;
        read.unwrap_or_else(|_| Err(Unread::nowhere(format!("no answer within {} s", most.as_secs()))))
    }

    async fn read_unhurried(&self, folder: &Path) -> Result<Read, Unread> {
        let named = self.options.devices.get(folder);
        match (&self.options.folder, &self.options.command) {
            (Some(dir), _) => self.in_folder(dir, folder, named).await,
            (None, Some(command)) => self.by_command(command, folder, named).await,
            (None, None) => Err(Unread::nowhere("no source is configured".to_owned())),
        }
    }

    async fn in_folder(&self, dir: &Path, folder: &Path, named: Option<&PathBuf>) -> Result<Read, Unread> {
        let file = match named {
            Some(file) if !file.starts_with("/dev") => dir.join(file),
            _ => {
                let device = self.device(folder, named).await?;
                self.file_of(dir, &device).await?
            }
        };
        let source = file.display().to_string();
        self.settled(&file)
            .await
            .map_err(|why| Unread { source: source.clone(), why })
            .map(|(output, sampled_ms)| Read { output, sampled_ms, source })
    }

    /// The name of the disk's device.
    async fn device(&self, folder: &Path, named: Option<&PathBuf>) -> Result<String, Unread> {
        if let Some(device) = named {
            let name = device.strip_prefix("/dev").unwrap_or(device);
            return Ok(name.display().to_string());
        }
        let found = device::below(&*self.host.disk, folder).await;
        found.map_err(|why| Unread::nowhere(format!("{why}: name it in `agent.smart.devices`")))
    }

    /// The one file that has the device's name.
    async fn file_of(&self, dir: &Path, device: &str) -> Result<PathBuf, Unread> {
        let mut there = Vec::new();
        for name in names(device) {
            for ending in ENDINGS {
                let file = dir.join(format!("{name}.{ending}"));
                match self.host.disk.metadata(&file).await {
                    Ok(_) => there.push(file),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => {
                        return Err(Unread {
                            source: file.display().to_string(),
                            why: format!("cannot look: {error}"),
                        });
                    }
                }
            }
        }
        match there.as_slice() {
            [file] => Ok(file.clone()),
            [] => {
                let wanted: Vec<String> = names(device).iter().map(|name| format!("{name}.json, {name}.txt")).collect();
                let why = format!("no file for {device}: {} looked for", wanted.join(", "));
                Err(Unread { source: dir.display().to_string(), why })
            }
            [first, second, ..] => {
                let why = format!(
                    "{} and {} both have the name of {device}: remove one, or name one in `agent.smart.devices`",
                    first.display(),
                    second.display()
                );
                Err(Unread { source: dir.display().to_string(), why })
            }
        }
    }

    /// A file that was the same before and after it was read, and its date. One that is written in between would be two
    /// samples: its content, and the same content again under the new date.
    async fn settled(&self, file: &Path) -> Result<(Bytes, u64), String> {
        let date = async || {
            let date = self.host.disk.modified_ms(file).await.map_err(|error| error.to_string())?;
            date.ok_or_else(|| "its file system keeps no dates: when it was written cannot be told".to_owned())
        };
        for _ in 0..TRIES {
            let before = date().await?;
            let output = self.bounded(file).await.map_err(|error| error.to_string())?;
            if date().await? == before {
                return Ok((output, before));
            }
        }
        Err("it is written all the time: write it aside and rename it".to_owned())
    }

    /// Up to one byte more than a report may have: that is how it is known to be too long.
    async fn bounded(&self, file: &Path) -> io::Result<Bytes> {
        let file = self.host.disk.open(file, OpenMode::Read).await?;
        let mut read = Vec::new();
        while read.len() <= MAX_INPUT_BYTES {
            let piece = file.read_at(read.len() as u64, PIECE_BYTES.min(MAX_INPUT_BYTES + 1 - read.len())).await?;
            if piece.is_empty() {
                break;
            }
            read.extend_from_slice(&piece);
        }
        Ok(read.into())
    }

    async fn by_command(&self, command: &[String], folder: &Path, named: Option<&PathBuf>) -> Result<Read, Unread> {
        let device = format!("/dev/{}", self.device(folder, named).await?);
        let source = format!("{} {device}", command.first().map_or("", String::as_str));
        let sampled_ms = self.host.clock.now().as_millis();
        let output = self.ask(command, &device).await.map_err(|why| Unread { source: source.clone(), why })?;
        Ok(Read { output, sampled_ms, source })
    }

    /// Runs the program with its output in a file: that is the only door a process's output has.
    async fn ask(&self, command: &[String], device: &str) -> Result<Bytes, String> {
        let Some((program, first)) = command.split_first() else { return Err("no program is named".to_owned()) };
        let disk = &*self.host.disk;
        let kept = self.dir.join("output");
        create_dir_durably(disk, &self.dir).await.map_err(|error| format!("no room for its output: {error}"))?;
        self.forget(&kept).await.map_err(|error| format!("an earlier output is in the way: {error}"))?;
        let mut args = first.to_vec();
        args.extend(["--json", "-x", device].map(str::to_owned));
        let spec = SpawnSpec {
            program: PathBuf::from(program),
            args,
            env: Vec::new(),
            log: Some(kept.clone()),
            new_session: true,
        };
        let process = self.host.proc.spawn(spec).await.map_err(|error| format!("it cannot be run: {error}"))?;
        let ended = self.follow(&*process, &kept).await;
        let output = self.bounded(&kept).await;
        // What is left is overwritten by the next one.
        let _ = self.forget(&kept).await;
        let status = ended?;
        match output {
            Ok(output) if !output.is_empty() => Ok(output),
            Ok(_) => Err(format!("it printed nothing and {status}")),
            Err(error) => Err(format!("its output cannot be read: {error}")),
        }
    }

    /// Until it ends, or has taken too long or written too much: then it is ended. How it ended, in words.
    async fn follow(&self, process: &dyn Process, output: &Path) -> Result<String, String> {
        let until = Instant::now() + self.deadline;
        let why = loop {
            tokio::select! {
                ended = process.exited() => return Ok(in_words(ended)),
                () = sleep(MEASURE_EVERY) => {}
            }
            if Instant::now() >= until {
                break format!("it did not end within {} s", self.deadline.as_secs());
            }
            let written = self.host.disk.metadata(output).await.map_or(0, |found| found.len_bytes);
            if written > MAX_INPUT_BYTES as u64 {
                break format!("it printed more than {MAX_INPUT_BYTES} bytes");
            }
        };
        // An error says that it has ended by itself in between.
        let _ = process.signal(Signal::Kill);
        match timeout(KILL_PATIENCE, process.exited()).await {
            Ok(_) => Err(format!("{why}, and was ended")),
            Err(_) => Err(format!("{why}, and cannot be ended: the kernel waits for the disk")),
        }
    }

    async fn forget(&self, file: &Path) -> io::Result<()> {
        match self.host.disk.remove_file(file).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn in_words(ended: io::Result<Option<ExitStatus>>) -> String {
    match ended {
        Ok(Some(ExitStatus::Code(code))) => format!("ended with {code}"),
        Ok(Some(ExitStatus::Signal(signal))) => format!("was ended by signal {signal}"),
        Ok(None) => "ended".to_owned(),
        Err(error) => format!("ended unseen ({error})"),
    }
}

/// The names under which a device's output may lie: its own, and of an NVMe namespace that of its controller, which is what
/// the counters are of. A slash in a name is none in a file's.
fn names(device: &str) -> Vec<String> {
    let own = device.replace('/', "!");
    let namespace = own.strip_prefix("nvme").and_then(|rest| rest.split_once('n'));
    let controller = namespace.map(|(number, _)| format!("nvme{number}"));
    std::iter::once(own.clone()).chain(controller).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_lies_under_the_name_of_the_device_or_of_its_controller() {
        assert_eq!(names("sda"), ["sda"]);
        assert_eq!(names("nvme0n1"), ["nvme0n1", "nvme0"]);
        assert_eq!(names("nvme10"), ["nvme10"]);
        assert_eq!(names("cciss/c0d0"), ["cciss!c0d0"]);
    }
}
