//! Listing: pages of keys in byte order, with common prefixes in the place of what lies below them.
//!
//! Invariants: a page is of one applied index; what lies below a common prefix is jumped over, not read, so that a page's
//! cost grows with its entries alone; the pages of a listing, each begun where the one before says, together show each
//! entry once. A page may end early ([`MAX_READ_BYTES`]), never empty.

use std::ops::Bound;

use redb::ReadTransaction;

use super::query::{MAX_READ_BYTES, Table};
use super::tables::{
    CLUSTER, KEY_APPLIED, OBJECTS, UPLOADS, behind, bucket_end, get, object_key, split_object_key, split_upload_key,
    unseal, upload_key,
};
use super::uploads::part_number;
use super::{Applied, State, StateError};
use crate::model::{ObjectRecord, UPLOADS_BUCKET, UploadRecord, part_key, part_prefix};
use crate::types::{BucketName, UploadId};

/// Which objects of a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// Keys that begin so.
    pub prefix: String,
    /// Keys that are alike behind the prefix up to and with this are shown as one common prefix. Empty: every key by
    /// itself.
    pub delimiter: String,
    /// Keys behind this one, exclusive. When it is a common prefix of this query, behind everything below it.
    pub after: String,
    /// The most entries.
    pub limit: usize,
}

/// What a listing shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A key and its object.
    Object(String, ObjectRecord),
    /// What several keys begin with, delimiter included.
    Prefix(String),
}

/// One page of a listing, as of one applied index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In byte order.
    pub entries: Vec<Entry>,
    /// Whether there is more.
    pub truncated: bool,
    /// The `after` to go on with; empty when there is no more.
    pub next: String,
    /// The applied index it shows.
    pub applied: u64,
}

/// Which uploads of a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadQuery {
    /// As in [`ListQuery`].
    pub prefix: String,
    /// As in [`ListQuery`].
    pub delimiter: String,
    /// Uploads to keys behind this one; as in [`ListQuery`] when it is a common prefix.
    pub after_key: String,
    /// With `after_key`: also uploads to that key with a higher id.
    pub after_upload: Option<UploadId>,
    /// The most entries.
    pub limit: usize,
}

/// What a listing of uploads shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadEntry {
    /// An upload.
    Upload(UploadRecord),
    /// What several keys begin with, delimiter included.
    Prefix(String),
}

/// One page of uploads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadPage {
    /// In byte order of keys, then by id.
    pub entries: Vec<UploadEntry>,
    /// Whether there is more.
    pub truncated: bool,
    /// The `after_key` to go on with.
    pub next_key: String,
    /// The `after_upload` to go on with.
    pub next_upload: Option<UploadId>,
}

/// One page of an upload's parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartPage {
    /// The upload.
    pub upload: UploadRecord,
    /// Numbers and contents, rising.
    pub parts: Vec<(u16, ObjectRecord)>,
    /// Whether there are more: go on after the last number.
    pub truncated: bool,
}

impl State {
    /// One page of a bucket's objects.
    pub async fn list(&self, bucket: &BucketName, query: ListQuery) -> Result<Page, StateError> {
        let bucket = bucket.as_str().to_owned();
        self.read(move |txn| list(txn, &bucket, &query)).await
    }

    /// One page of a bucket's uploads that are under way.
    pub async fn list_uploads(&self, bucket: &BucketName, query: UploadQuery) -> Result<UploadPage, StateError> {
        let bucket = bucket.as_str().to_owned();
        self.read(move |txn| list_uploads(txn, &bucket, &query)).await
    }

    /// Up to `limit` parts behind number `after` of an upload that is under way; `None` when there is no such upload.
    pub async fn list_parts(
        &self,
        bucket: &BucketName,
        key: &str,
        id: UploadId,
        after: u16,
        limit: usize,
    ) -> Result<Option<PartPage>, StateError> {
        let (bucket, upload) = (bucket.clone(), upload_key(bucket.as_str(), key, id));
        self.read(move |txn| {
            let upload: Option<UploadRecord> = get(&txn.open_table(UPLOADS)?, "uploads", &upload)?;
            let Some(upload) = upload.filter(|upload| upload.completed.is_none()) else { return Ok(None) };
            let from = object_key(UPLOADS_BUCKET, &part_key(&bucket, id, after));
            let end = behind(&object_key(UPLOADS_BUCKET, &part_prefix(&bucket, id))).unwrap_or_default();
            let mut page = PartPage { upload, parts: Vec::new(), truncated: false };
            let mut bytes = 0;
            let range = (Bound::Excluded(from.as_slice()), Bound::Excluded(end.as_slice()));
            for entry in txn.open_table(OBJECTS)?.range::<&[u8]>(range)? {
                if page.parts.len() == limit || bytes >= MAX_READ_BYTES {
                    page.truncated = true;
                    break;
                }
                let (key, value) = entry?;
                bytes += value.value().len();
                page.parts.push((part_number(key.value())?, unseal("objects", value.value())?));
            }
            Ok(Some(page))
        })
        .await
    }
}

/// A walk through one bucket's part of a table.
struct Walk<'a> {
    table: &'a Table,
    /// What every key in it begins with: bucket and prefix.
    begin: Vec<u8>,
    /// The first key behind the bucket.
    end: Vec<u8>,
    /// The name that a key of this table stands for.
    name: fn(&[u8]) -> Result<&str, StateError>,
    prefix: &'a str,
    delimiter: &'a str,
    limit: usize,
}

enum Step<T> {
    One(T),
    Prefix(String),
}

impl Walk<'_> {
    /// Up to `limit` steps from `from` on, and whether there is more. `read` may pass over an entry.
    fn run<T>(
        &self,
        from: Bound<Vec<u8>>,
        read: impl Fn(&str, &[u8]) -> Result<Option<T>, StateError>,
    ) -> Result<(Vec<Step<T>>, bool), StateError> {
        let mut steps = Vec::new();
        let mut bytes = 0;
        let mut from = from;
        'seek: loop {
            if !self.within(&from) {
                return Ok((steps, false));
            }
            let range = (from.as_ref().map(Vec::as_slice), Bound::Excluded(self.end.as_slice()));
            for entry in self.table.range::<&[u8]>(range)? {
                let (key, value) = entry?;
                if !key.value().starts_with(&self.begin) {
                    return Ok((steps, false));
                }
                let name = (self.name)(key.value())?;
                let common = common_prefix(name, self.prefix, self.delimiter);
                let one = read(name, value.value())?;
                let Some(one) = one else { continue };
                if steps.len() == self.limit || bytes >= MAX_READ_BYTES {
                    return Ok((steps, true));
                }
                if let Some(common) = common {
                    steps.push(Step::Prefix(common.to_owned()));
                    let below = [&self.begin, &common.as_bytes()[self.prefix.len()..]].concat();
                    let Some(next) = behind(&below) else { return Ok((steps, false)) };
                    from = Bound::Included(next);
                    continue 'seek;
                }
                bytes += value.value().len();
                steps.push(Step::One(one));
            }
            return Ok((steps, false));
        }
    }

    /// A bound past the bucket's last key would turn the range around.
    fn within(&self, from: &Bound<Vec<u8>>) -> bool {
        match from {
            Bound::Included(key) | Bound::Excluded(key) => *key < self.end,
            Bound::Unbounded => false,
        }
    }

    /// Where a page behind the name `after` begins; `exact` is the last key of that name that was shown.
    fn start(&self, after: &str, exact: Vec<u8>) -> Bound<Vec<u8>> {
        let begin = || Bound::Included(self.begin.clone());
        if after.is_empty() {
            return begin();
        }
        let from = match common_prefix(after, self.prefix, self.delimiter) {
            Some(common) if common == after => {
                let below = [&self.begin, &common.as_bytes()[self.prefix.len()..]].concat();
                behind(&below).map_or(Bound::Unbounded, Bound::Included)
            }
            _ => Bound::Excluded(exact),
        };
        match from {
            Bound::Included(key) | Bound::Excluded(key) if key < self.begin => begin(),
            from => from,
        }
    }
}

/// The common prefix under which a name is shown, if it is.
fn common_prefix<'a>(name: &'a str, prefix: &str, delimiter: &str) -> Option<&'a str> {
    let rest = name.strip_prefix(prefix).filter(|_| !delimiter.is_empty())?;
    rest.find(delimiter).map(|at| &name[..prefix.len() + at + delimiter.len()])
}

fn object_name(key: &[u8]) -> Result<&str, StateError> {
    split_object_key(key).map(|(_, name)| name)
}

fn list(txn: &ReadTransaction, bucket: &str, query: &ListQuery) -> Result<Page, StateError> {
    let applied: Option<Applied> = get(&txn.open_table(CLUSTER)?, "cluster", KEY_APPLIED)?;
    let table = txn.open_table(OBJECTS)?;
    let walk = Walk {
        table: &table,
        begin: object_key(bucket, &query.prefix),
        end: bucket_end(bucket),
        name: object_name,
        prefix: &query.prefix,
        delimiter: &query.delimiter,
        limit: query.limit,
    };
    let from = walk.start(&query.after, object_key(bucket, &query.after));
    let (steps, truncated) = walk.run(from, |name, value| Ok(Some((name.to_owned(), value.to_vec()))))?;
    let mut entries = Vec::with_capacity(steps.len());
    for step in steps {
        entries.push(match step {
            Step::One((name, value)) => Entry::Object(name, unseal("objects", &value)?),
            Step::Prefix(prefix) => Entry::Prefix(prefix),
        });
    }
    let next = match entries.last() {
        Some(Entry::Object(name, _) | Entry::Prefix(name)) if truncated => name.clone(),
        _ => String::new(),
    };
    Ok(Page { entries, truncated, next, applied: applied.map_or(0, |applied| applied.index) })
}

fn list_uploads(txn: &ReadTransaction, bucket: &str, query: &UploadQuery) -> Result<UploadPage, StateError> {
    let table = txn.open_table(UPLOADS)?;
    let walk = Walk {
        table: &table,
        begin: object_key(bucket, &query.prefix),
        end: bucket_end(bucket),
        name: split_upload_key,
        prefix: &query.prefix,
        delimiter: &query.delimiter,
        limit: query.limit,
    };
    let last = query.after_upload.unwrap_or(UploadId(u128::MAX));
    let from = walk.start(&query.after_key, upload_key(bucket, &query.after_key, last));
    let (steps, truncated) = walk.run(from, |_, value| {
        let upload: UploadRecord = unseal("uploads", value)?;
        Ok(Some(upload).filter(|upload| upload.completed.is_none()))
    })?;
    let entries: Vec<UploadEntry> = steps
        .into_iter()
        .map(|step| match step {
            Step::One(upload) => UploadEntry::Upload(upload),
            Step::Prefix(prefix) => UploadEntry::Prefix(prefix),
        })
        .collect();
    let (next_key, next_upload) = match entries.last() {
        Some(UploadEntry::Upload(upload)) if truncated => (upload.key.clone(), Some(upload.id)),
        Some(UploadEntry::Prefix(prefix)) if truncated => (prefix.clone(), None),
        _ => (String::new(), None),
    };
    Ok(UploadPage { entries, truncated, next_key, next_upload })
}
