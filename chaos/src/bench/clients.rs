//! Clients that are busy: each asks for the next object as soon as it has the last, gets and puts in turn.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use serde::Serialize;
use tokio::time::Instant;

use crate::client::{Client, Written};

/// How long one request may take: a client that waits longer has been failed.
const DEADLINE: Duration = Duration::from_secs(30);

/// What busy clients do.
#[derive(Clone, Debug)]
pub struct Busy {
    /// The bucket that they get from and put into.
    pub bucket: &'static str,
    /// Objects to get, `000000` and so on.
    pub objects: u64,
    /// Length of what is put.
    pub object_bytes: usize,
    /// How many clients.
    pub clients: u64,
}

/// What clients saw in a stretch of time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Seen {
    /// How long it was.
    pub seconds: f64,
    /// Requests answered per second.
    pub per_second: f64,
    /// Requests that failed.
    pub failed: u64,
    /// Milliseconds within which 99 of 100 gets were done.
    pub get_p99_ms: f64,
    /// And puts.
    pub put_p99_ms: f64,
}

impl Busy {
    /// Has the clients work for as long as `span` takes. What it comes to, and what they saw.
    pub async fn during<T>(&self, client: &Client, round: u64, span: impl Future<Output = T>) -> (T, Seen) {
        let (stop, failed) = (AtomicBool::new(false), AtomicU64::new(0));
        let began = Instant::now();
        let workers = join_all((0..self.clients).map(|worker| self.work(client, (round, worker), &stop, &failed)));
        let span = async {
            let value = span.await;
            stop.store(true, Ordering::Relaxed);
            (value, began.elapsed())
        };
        let ((value, took), done) = tokio::join!(span, workers);
        let (mut gets, mut puts) = (Vec::new(), Vec::new());
        for (own_gets, own_puts) in done {
            gets.extend(own_gets);
            puts.extend(own_puts);
        }
        let seconds = took.as_secs_f64();
        let seen = Seen {
            seconds,
            per_second: (gets.len() + puts.len()) as f64 / seconds.max(f64::MIN_POSITIVE),
            failed: failed.into_inner(),
            get_p99_ms: p99_ms(gets),
            put_p99_ms: p99_ms(puts),
        };
        (value, seen)
    }

    async fn work(
        &self,
        client: &Client,
        (round, worker): (u64, u64),
        stop: &AtomicBool,
        failed: &AtomicU64,
    ) -> (Vec<Duration>, Vec<Duration>) {
        let mut rng = StdRng::seed_from_u64(round << 32 | worker);
        let mut content = vec![0; self.object_bytes];
        rng.fill_bytes(&mut content);
        let content = Bytes::from(content);
        let (mut gets, mut puts, mut number) = (Vec::new(), Vec::new(), 0_u64);
        while !stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            let key = format!("{:06}", rng.next_u64() % self.objects.max(1));
            match client.get_crc(self.bucket, &key, DEADLINE).await {
                Ok(_) => gets.push(began.elapsed()),
                Err(_) => drop(failed.fetch_add(1, Ordering::Relaxed)),
            }
            let began = Instant::now();
            number += 1;
            let key = format!("busy/{round}/{worker}/{number}");
            match client.put(self.bucket, &key, content.clone(), DEADLINE).await {
                Written::Acknowledged => puts.push(began.elapsed()),
                _ => drop(failed.fetch_add(1, Ordering::Relaxed)),
            }
        }
        (gets, puts)
    }
}

impl Seen {
    /// As a line.
    pub fn line(&self) -> String {
        format!(
            "{:.1} requests/s over {:.1} s, 99 of 100 gets within {:.0} ms, puts within {:.0} ms, {} failed",
            self.per_second, self.seconds, self.get_p99_ms, self.put_p99_ms, self.failed
        )
    }
}

/// Milliseconds within which 99 of 100 were done; 0 of none.
fn p99_ms(mut took: Vec<Duration>) -> f64 {
    took.sort_unstable();
    let at = (took.len() * 99).div_ceil(100).saturating_sub(1);
    took.get(at).map_or(0.0, |took| took.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ninety_nine_of_a_hundred() {
        let took = |count: u64| (1..=count).rev().map(Duration::from_millis).collect::<Vec<_>>();
        assert_eq!(p99_ms(took(100)), 99.0);
        assert_eq!(p99_ms(took(1000)), 990.0);
        assert_eq!(p99_ms(took(1)), 1.0);
        assert_eq!(p99_ms(Vec::new()), 0.0);
    }
}
