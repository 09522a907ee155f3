//! Writes lines, compressed, into segments.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use resilver_host::disk::create_dir_durably;
use resilver_host::{File, FileKind, Host, OpenMode};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::{Flags, Message, SEGMENT_BYTES};

/// How long a line may stay in the compressor: what a crash of the agent costs at most. Flushing oftener costs compression.
const FLUSH_EVERY: Duration = Duration::from_secs(2);

/// Segments end in this: `zcat` reads them.
pub(super) const SUFFIX: &str = ".jsonl.gz";

/// The writing end.
pub(crate) struct Writer {
    host: Host,
    dir: PathBuf,
    max_bytes: u64,
    lines: mpsc::Receiver<Message>,
    flags: Arc<Flags>,
    /// Whole segments, oldest first, with their sizes.
    kept: VecDeque<(PathBuf, u64)>,
    next: u64,
    current: Option<Current>,
    /// Writing failed, and that was told.
    failing: bool,
}

struct Current {
    path: PathBuf,
    file: Arc<dyn File>,
    gz: GzEncoder<Vec<u8>>,
    written_bytes: u64,
}

impl Writer {
    /// Makes the folder and counts what is there already.
    pub(super) async fn open(
        host: &Host,
        dir: PathBuf,
        max_bytes: u64,
        lines: mpsc::Receiver<Message>,
        flags: Arc<Flags>,
    ) -> io::Result<Writer> {
        create_dir_durably(&*host.disk, &dir).await?;
        let mut kept = VecDeque::new();
        let mut next = 1;
        for entry in host.disk.list(&dir).await? {
            let Some(number) = number_of(&entry.name).filter(|_| entry.kind == FileKind::File) else { continue };
            let path = dir.join(&entry.name);
            let bytes = host.disk.metadata(&path).await?.len_bytes;
            kept.push_back((path, bytes));
            next = next.max(number + 1);
        }
        Ok(Writer { host: host.clone(), dir, max_bytes, lines, flags, kept, next, current: None, failing: false })
    }

    /// The number that the next segment gets.
    pub(super) fn next_segment(&self) -> u64 {
        self.next
    }

    /// Writes until the main loop has ended, and closes the last segment.
    pub(crate) async fn run(mut self) {
        let mut flush_at = Instant::now() + FLUSH_EVERY;
        loop {
            let message = tokio::select! {
                message = self.lines.recv() => message,
                () = sleep_until(flush_at) => {
                    flush_at = Instant::now() + FLUSH_EVERY;
                    let flushed = self.flush().await;
                    self.told(flushed);
                    continue;
                }
            };
            let done = match message {
                Some(Message::Begin(line)) => self.begin(&line).await,
                Some(Message::Line(line)) => self.line(&line),
                None => break,
            };
            self.told(done);
        }
        let closed = self.close().await;
        self.told(closed);
    }

    /// A recorder that cannot write says so once, and begins a new segment when it is asked to.
    fn told(&mut self, result: io::Result<()>) {
        match result {
            // Lines of a segment that is gone are dropped without a word.
            Ok(()) => self.failing &= self.current.is_none(),
            Err(error) => {
                self.current = None;
                if !self.failing {
                    tracing::warn!(%error, dir = %self.dir.display(), "the flight recorder cannot write; the agent goes on");
                }
                self.failing = true;
                self.flags.broken.store(true, Ordering::Relaxed);
            }
        }
    }

    async fn begin(&mut self, line: &str) -> io::Result<()> {
        // Numbers go on with every segment that was asked for, as the recorder counts them.
        let number = self.next;
        self.next += 1;
        self.close().await?;
        while self.kept.iter().map(|(_, bytes)| bytes).sum::<u64>() + SEGMENT_BYTES > self.max_bytes {
            let Some((path, _)) = self.kept.pop_front() else { break };
            self.host.disk.remove_file(&path).await?;
        }
        let path = self.dir.join(format!("{number:012}{SUFFIX}"));
        let file = self.host.disk.open(&path, OpenMode::CreateNew).await?;
        let gz = GzEncoder::new(Vec::new(), Compression::fast());
        self.current = Some(Current { path, file, gz, written_bytes: 0 });
        self.line(line)
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        current.gz.write_all(line.as_bytes())?;
        current.gz.write_all(b"\n")
    }

    async fn flush(&mut self) -> io::Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        current.gz.flush()?;
        current.write().await?;
        if current.written_bytes >= SEGMENT_BYTES {
            self.flags.full.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn close(&mut self) -> io::Result<()> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        current.gz.try_finish()?;
        current.write().await?;
        current.file.sync().await?;
        self.kept.push_back((current.path, current.written_bytes));
        Ok(())
    }
}

impl Current {
    async fn write(&mut self) -> io::Result<()> {
        let data = std::mem::take(self.gz.get_mut());
        if data.is_empty() {
            return Ok(());
        }
        let len = data.len() as u64;
        self.file.write_at(self.written_bytes, Bytes::from(data)).await?;
        self.written_bytes += len;
        Ok(())
    }
}

/// The number of a segment, by its name.
pub(super) fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(SUFFIX)?.parse().ok()
}
