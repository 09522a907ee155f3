//! One client of a history: what it does next, and how it takes down what it was told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use resilver_chaos::history::{self, Answer, Call, Outcome, Recorder, Value};
use resilver_chaos::s3::{Condition, Content, From, S3Error, Store, etag_of, etag_of_parts};

/// How long one request may take before its outcome counts as unknown.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// Keys of a round.
const KEYS: usize = 3;

/// Longer than any listing here.
const PAGE: usize = 1000;

/// Doors that a completion is asked of, one after the other, while its outcome is unknown.
const COMPLETIONS: usize = 3;

/// A key of a round.
fn key(round: usize, number: usize) -> String {
    format!("{}{number}", prefix(round))
}

fn prefix(round: usize) -> String {
    format!("r{round:04}/")
}

/// What all clients share: the doors, and which content has which ETag.
pub(crate) struct Shared {
    stores: Vec<Store>,
    next: AtomicU64,
    etags: Mutex<BTreeMap<String, Value>>,
}

impl Shared {
    pub(crate) fn new(stores: Vec<Store>) -> Self {
        Self { stores, next: AtomicU64::new(1), etags: Mutex::default() }
    }

    /// A content that nobody had before: its value.
    fn fresh(&self, parts: bool) -> (Value, Bytes, String) {
        let value = self.next.fetch_add(1, Ordering::Relaxed);
        let content = content(value);
        let etag = if parts { etag_of_parts(std::slice::from_ref(&content)) } else { etag_of(&content) };
        self.etags.lock().unwrap().insert(etag.clone(), value);
        (value, content, etag)
    }

    /// The value behind an ETag.
    fn value(&self, etag: &str) -> Value {
        let value = self.etags.lock().unwrap().get(etag).copied();
        value.unwrap_or_else(|| panic!("nobody put anything with the ETag {etag}"))
    }

    fn etag(&self, value: Value) -> String {
        let etags = self.etags.lock().unwrap();
        etags.iter().find(|(_, other)| **other == value).map(|(etag, _)| etag.clone()).unwrap()
    }

    /// Every object there is.
    pub(crate) async fn listed(&self) -> Vec<(String, Value)> {
        let mut all = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let from = next.as_deref().map_or(From::Start, From::Next);
            let page = self.stores[0].list("", from, PAGE, DEADLINE).await.unwrap();
            all.extend(
                page.objects.into_iter().map(|object| (self.value(&object.etag), object.key)).map(|(v, k)| (k, v)),
            );
            match page.next {
                None => return all,
                some => next = some,
            }
        }
    }
}

/// The content that is a value: from a few bytes to more than a stripe, beginning with its name.
fn content(value: Value) -> Bytes {
    let mut rng = StdRng::seed_from_u64(value);
    let bytes = [100, 5_000, 70_000, 300_000][rng.random_range(0..4)];
    let mut content = format!("{value}\n").into_bytes();
    let named = content.len();
    content.resize(named + rng.random_range(0..bytes), 0);
    rng.fill_bytes(&mut content[named..]);
    content.into()
}

/// One client in one round.
pub(crate) struct Player {
    shared: Arc<Shared>,
    recorder: Arc<Recorder>,
    client: usize,
    round: usize,
    /// What it last saw or put under each key.
    seen: BTreeMap<String, Value>,
}

impl Player {
    pub(crate) fn new(shared: &Arc<Shared>, recorder: &Arc<Recorder>, client: usize, round: usize) -> Self {
        let (shared, recorder) = (shared.clone(), recorder.clone());
        Self { shared, recorder, client, round, seen: BTreeMap::new() }
    }

    /// Does something.
    pub(crate) async fn act(&mut self, rng: &mut StdRng) {
        let key = key(self.round, rng.random_range(0..KEYS));
        let store = self.door(rng);
        match rng.random_range(0..100) {
            0..25 => self.get(&store, &key).await,
            25..35 => self.head(&store, &key).await,
            35..50 => self.put(&store, &key, history::Condition::Always).await,
            50..60 => self.put(&store, &key, history::Condition::Absent).await,
            60..73 => {
                let seen = self.seen.get(&key).map_or(history::Condition::Absent, |seen| history::Condition::Is(*seen));
                self.put(&store, &key, seen).await;
            }
            73..80 => self.put_in_parts(rng, &key).await,
            80..88 => self.delete(&store, &key).await,
            _ => self.list(&store).await,
        }
    }

    /// Reads every key, and all of them at once, until each has been answered.
    pub(crate) async fn read_all(mut self, rng: &mut StdRng) {
        let wanted = self.recorder.history().operations.len() + KEYS + 1;
        for number in 0..KEYS {
            let (store, key) = (self.door(rng), key(self.round, number));
            self.get(&store, &key).await;
        }
        let store = self.door(rng);
        self.list(&store).await;
        assert_eq!(self.recorder.history().operations.len(), wanted, "a whole cluster answers every read");
    }

    fn door(&self, rng: &mut StdRng) -> Store {
        self.shared.stores[rng.random_range(0..self.shared.stores.len())].clone()
    }

    fn told(&self, begin: Duration, call: Call, outcome: Outcome) {
        self.recorder.ended(self.client, begin, call, outcome);
    }

    async fn get(&mut self, store: &Store, key: &str) {
        let begin = self.recorder.now();
        let read = async {
            let reply = store.get(key, None, DEADLINE).await?;
            let etag = reply.etag();
            Ok((etag, reply.whole().await?))
        };
        let found = match read.await {
            Ok((etag, body)) => {
                let value = self.shared.value(&etag.expect("an object has an ETag"));
                assert!(body == content(value), "{key} has the ETag of {value}, but not its content");
                Some(value)
            }
            Err(error) => match absent(&error) {
                true => None,
                false => return,
            },
        };
        self.found(begin, key, found);
    }

    async fn head(&mut self, store: &Store, key: &str) {
        let begin = self.recorder.now();
        let found = match store.head(key, DEADLINE).await {
            Ok(reply) => Some(self.shared.value(&reply.etag().expect("an object has an ETag"))),
            Err(error) if absent(&error) => None,
            Err(_) => return,
        };
        self.found(begin, key, found);
    }

    fn found(&mut self, begin: Duration, key: &str, found: Option<Value>) {
        self.told(begin, Call::Get { key: key.to_owned() }, Outcome::Ok(Answer::Found(found)));
        self.seen.extend(found.map(|value| (key.to_owned(), value)));
    }

    async fn put(&mut self, store: &Store, key: &str, condition: history::Condition) {
        let (value, content, etag) = self.shared.fresh(false);
        let wire = self.wire(condition);
        let begin = self.recorder.now();
        let put = store.put(key, Content::Whole(content), &wire, DEADLINE).await;
        self.has_put(begin, key, value, condition, &etag, put);
    }

    /// An upload in parts: its completion is the put. It may be repeated, at any door, and is still one put.
    async fn put_in_parts(&mut self, rng: &mut StdRng, key: &str) {
        let (value, content, etag) = self.shared.fresh(true);
        let condition = if rng.random_bool(0.3) { history::Condition::Absent } else { history::Condition::Always };
        let Ok(upload) = self.door(rng).create_upload(key, DEADLINE).await else { return };
        let Ok(part) = self.door(rng).put_part(&upload, 1, Content::Whole(content), DEADLINE).await else { return };
        let begin = self.recorder.now();
        let mut completed = Err(S3Error::Broken { address: String::new(), why: "not asked".to_owned() });
        let mut may_be_done = false;
        for _ in 0..COMPLETIONS {
            let part = std::slice::from_ref(&part);
            completed = self.door(rng).complete(&upload, part, &self.wire(condition), DEADLINE).await;
            match &completed {
                Ok(_) => break,
                // What an earlier attempt may have done, it may still have done.
                Err(error) if not_done(error) => {}
                Err(error) if error.certainly_not_done() => break,
                Err(_) => may_be_done = true,
            }
        }
        if may_be_done && completed.as_ref().is_err_and(not_done) {
            completed = Err(S3Error::Broken { address: String::new(), why: "an earlier attempt".to_owned() });
        }
        self.has_put(begin, key, value, condition, &etag, completed);
    }

    fn has_put(
        &mut self,
        begin: Duration,
        key: &str,
        value: Value,
        condition: history::Condition,
        etag: &str,
        put: Result<String, S3Error>,
    ) {
        let outcome = match put {
            Ok(found) => {
                assert_eq!(found, etag, "the ETag of {value} under {key}");
                self.seen.insert(key.to_owned(), value);
                Outcome::Ok(Answer::Done)
            }
            Err(error) if error.is("PreconditionFailed") => Outcome::Ok(Answer::Refused),
            // S3's way of saying that there is nothing to compare with.
            Err(error) if error.is("NoSuchKey") && matches!(condition, history::Condition::Is(_)) => {
                Outcome::Ok(Answer::Refused)
            }
            Err(error) if error.is("ConditionalRequestConflict") => Outcome::Failed,
            Err(error) if not_done(&error) => Outcome::Failed,
            Err(error) if error.certainly_not_done() => panic!("a put of {key} was refused: {error}"),
            Err(_) => Outcome::Unknown,
        };
        self.told(begin, Call::Put { key: key.to_owned(), value, condition }, outcome);
    }

    async fn delete(&mut self, store: &Store, key: &str) {
        let begin = self.recorder.now();
        let outcome = match store.delete(key, DEADLINE).await {
            Ok(()) => Outcome::Ok(Answer::Done),
            Err(error) if not_done(&error) => Outcome::Failed,
            Err(error) if error.certainly_not_done() => panic!("a delete of {key} was refused: {error}"),
            Err(_) => Outcome::Unknown,
        };
        self.told(begin, Call::Delete { key: key.to_owned() }, outcome);
    }

    async fn list(&mut self, store: &Store) {
        let prefix = prefix(self.round);
        let begin = self.recorder.now();
        let Ok(page) = store.list(&prefix, From::Start, PAGE, DEADLINE).await else { return };
        assert!(page.next.is_none(), "three keys fill no page");
        let found = page.objects.into_iter().map(|object| {
            let value = self.shared.value(&object.etag);
            assert_eq!(object.size_bytes, content(value).len() as u64, "the length of {value} in a listing");
            (object.key, value)
        });
        let found = found.collect();
        self.told(begin, Call::List { prefix }, Outcome::Ok(Answer::Listed(found)));
    }

    fn wire(&self, condition: history::Condition) -> Condition {
        match condition {
            history::Condition::Always => Condition::Always,
            history::Condition::Absent => Condition::Absent,
            history::Condition::Is(value) => Condition::ETag(self.shared.etag(value)),
        }
    }
}

/// Whether a change was not even begun. S3 leaves open what a 503 means; these doors say it only when nothing was stored,
/// and 500 when nobody knows: they are taken at their word.
fn not_done(error: &S3Error) -> bool {
    matches!(error, S3Error::Unreachable { .. }) || error.said().is_some_and(|said| said.status == 503)
}

/// Whether a read was told that there is no such object. A HEAD has no body to say so in.
fn absent(error: &S3Error) -> bool {
    error.said().is_some_and(|said| said.status == 404 && (said.code == "NoSuchKey" || said.code.is_empty()))
}
