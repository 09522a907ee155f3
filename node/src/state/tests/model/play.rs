//! What a step asks of the state, and what the model says it comes to.

use md5::{Digest, Md5};

use super::super::*;
use super::plain::{Content, Model, Upload};
use super::steps::{Step, Wish};

pub(super) const BUCKETS: [&str; 2] = ["b", "bb"];
pub(super) const KEYS: [&str; 3] = ["k", "k/1", "l"];

fn wished(wish: Wish, present: Option<&Content>) -> (Condition, bool) {
    let tag = present.map_or(etag(0), |content| content.etag);
    match wish {
        Wish::None => (Condition::None, true),
        Wish::Absent => (Condition::Absent, present.is_none()),
        Wish::Present => (Condition::Present, present.is_some()),
        Wish::RightTag => (Condition::ETag(tag), present.is_some()),
        Wish::WrongTag => (Condition::ETag(etag(u128::MAX)), false),
        Wish::NotThis => (Condition::NotETag(tag), present.is_none()),
    }
}

fn tag_of(parts: &[(u16, ETag)]) -> ETag {
    let mut all = Vec::new();
    for (_, etag) in parts {
        let ETag::Content(md5) = etag else { unreachable!("parts are put whole") };
        all.extend_from_slice(md5);
    }
    ETag::Parts { md5: Md5::digest(&all).into(), parts: parts.len() as u16 }
}

fn no_bucket(name: &str) -> Outcome {
    refused(Refusal::NoBucket(name.into()))
}

fn condition_failed(present: Option<&Content>) -> Outcome {
    refused(Refusal::Condition { at: present.map(|content| Version(content.version)) })
}

/// The command of a step, and what the model says it comes to. `None`: the step has nothing to be about.
pub(super) fn play(model: &mut Model, step: &Step) -> Option<(Command, Outcome)> {
    let upload_of =
        |model: &Model, index: usize| (!model.begun.is_empty()).then(|| model.begun[index % model.begun.len()]);
    let known = |model: &Model, index: usize| (model.next > 0).then(|| 1 + index as u128 % model.next);
    Some(match step {
        Step::CreateBucket(bucket) => {
            let name = BUCKETS[*bucket];
            let exists = model.buckets.contains_key(name);
            model.buckets.entry(name).or_default();
            let done = Outcome::Bucket(bucket_record(name));
            (super::super::bucket(name), if exists { refused(Refusal::BucketExists(name.into())) } else { done })
        }
        Step::DeleteBucket(bucket) => {
            let name = BUCKETS[*bucket];
            let command = Command::DeleteBucket { bucket: name.into() };
            match model.buckets.get(name) {
                None => (command, no_bucket(name)),
                Some(bucket) if !bucket.objects.is_empty() => (command, refused(Refusal::BucketNotEmpty(name.into()))),
                Some(_) => {
                    let gone = model.buckets.remove(name)?;
                    for (id, upload) in gone.uploads.into_iter().filter(|(_, upload)| upload.completed.is_none()) {
                        model.leftovers.insert((name, id), upload.parts);
                    }
                    (command, Outcome::Done)
                }
            }
        }
        Step::Quota(bucket, limit) => {
            let name = BUCKETS[*bucket];
            let Some(bucket) = model.buckets.get_mut(name) else { return Some((quota(name, *limit), no_bucket(name))) };
            bucket.quota = *limit;
            let record = BucketRecord { quota_bytes: *limit, ..bucket_record(name) };
            (quota(name, *limit), Outcome::Bucket(record))
        }
        Step::Put { bucket, key, size, condition } => {
            let (name, key, version) = (BUCKETS[*bucket], KEYS[*key], model.draw());
            model.tried.push((name, key, version, *size));
            let present = model.buckets.get(name).and_then(|bucket| bucket.objects.get(key)).cloned();
            let (condition, holds) = wished(*condition, present.as_ref());
            let object = sized(version, *size);
            let (bucket_, key_) = (name.into(), key.to_owned());
            let command = Command::PutObject { bucket: bucket_, key: key_, object, condition, now_ms: 1 };
            (command, put_in(model, name, key, Content::put(version, *size), holds, present))
        }
        Step::PutAgain { version } => {
            let index = (!model.tried.is_empty()).then(|| version % model.tried.len())?;
            let (name, key, version, size) = model.tried[index];
            let (bucket, condition) = (name.into(), Condition::None);
            let object = sized(version, size);
            let command = Command::PutObject { bucket, key: key.to_owned(), object, condition, now_ms: 1 };
            let present = model.buckets.get(name).and_then(|bucket| bucket.objects.get(key)).cloned();
            let outcome = if !model.buckets.contains_key(name) {
                no_bucket(name)
            } else if model.forbidden.contains(&version) {
                refused(Refusal::Forbidden)
            } else if model.live().contains(&version) || model.garbage.contains_key(&version) {
                Outcome::Put { replaced: None }
            } else {
                put_in(model, name, key, Content::put(version, size), true, present)
            };
            (command, outcome)
        }
        Step::Delete { bucket, key } => {
            let (name, key) = (BUCKETS[*bucket], KEYS[*key]);
            let (bucket_, condition) = (name.into(), Condition::None);
            let command = Command::DeleteObject { bucket: bucket_, key: key.to_owned(), condition, now_ms: 1 };
            let Some(bucket) = model.buckets.get_mut(name) else { return Some((command, no_bucket(name))) };
            let gone = bucket.objects.remove(key);
            let existed = gone.is_some();
            gone.into_iter().for_each(|content| model.discard(content));
            (command, Outcome::Deleted { existed })
        }
        Step::DeleteMany { bucket } => {
            let name = BUCKETS[*bucket];
            let keys = KEYS.iter().map(|key| (*key).to_owned()).collect();
            let command = Command::DeleteObjects { bucket: name.into(), keys, now_ms: 1 };
            let Some(bucket) = model.buckets.get_mut(name) else { return Some((command, no_bucket(name))) };
            let mut objects = std::mem::take(&mut bucket.objects);
            let existed = KEYS.iter().map(|key| objects.remove(key)).map(|gone| {
                let existed = gone.is_some();
                gone.into_iter().for_each(|content| model.discard(content));
                existed
            });
            (command, Outcome::DeletedMany(existed.collect()))
        }
        Step::Begin { bucket, key } => {
            let (name, key, id) = (BUCKETS[*bucket], KEYS[*key], model.draw());
            model.begun.push((name, key, id));
            let record = UploadRecord { bucket: name.into(), ..uploads::upload(id, key) };
            let command = Command::CreateUpload { upload: record };
            let Some(bucket) = model.buckets.get_mut(name) else { return Some((command, no_bucket(name))) };
            bucket.uploads.insert(id, Upload { key, parts: BTreeMap::new(), completed: None });
            (command, Outcome::Done)
        }
        Step::Part { upload, number, size } => {
            let (name, key, id) = upload_of(model, *upload)?;
            let version = model.draw();
            let (bucket_, part, object) = (name.into(), *number, sized(version, *size));
            let upload_ = UploadId(id);
            let command =
                Command::PutPart { bucket: bucket_, key: key.to_owned(), upload: upload_, part, object, now_ms: 1 };
            let Some(bucket) = model.buckets.get(name) else { return Some((command, no_bucket(name))) };
            let Some(open) = bucket.uploads.get(&id).filter(|upload| upload.completed.is_none()) else {
                return Some((command, refused(Refusal::NoUpload)));
            };
            let present = open.parts.get(number).cloned();
            let goes = present.as_ref().map_or(0, |content| content.size);
            if let Some(over) = bucket.quota(name, *size, goes) {
                return Some((command, over));
            }
            let replaced = present.as_ref().map(|content| Version(content.version));
            present.into_iter().for_each(|content| model.discard(content));
            let upload = model.buckets.get_mut(name)?.uploads.get_mut(&id)?;
            upload.parts.insert(*number, Content::put(version, *size));
            (command, Outcome::Put { replaced })
        }
        Step::Complete { upload, named, condition } => {
            let (name, key, id) = upload_of(model, *upload)?;
            let version = model.draw();
            let parts = model.buckets.get(name).and_then(|bucket| bucket.uploads.get(&id));
            let parts = parts.map(|upload| upload.parts.clone()).unwrap_or_default();
            let list: Vec<(u16, ETag)> = (1u16..)
                .zip(named)
                .filter(|(_, named)| **named)
                .map(|(number, _)| number)
                .map(|number| (number, parts.get(&number).map_or(etag(0), |content| content.etag)))
                .collect();
            let present = model.buckets.get(name).and_then(|bucket| bucket.objects.get(key)).cloned();
            let (condition, holds) = wished(*condition, present.as_ref());
            let command = Command::CompleteUpload {
                bucket: name.into(),
                key: key.to_owned(),
                upload: UploadId(id),
                parts: list.clone(),
                version: Version(version),
                checksum: None,
                condition,
                now_ms: 1,
            };
            (command, complete_in(model, name, id, &list, version, holds, present))
        }
        Step::CompleteAgain { upload } => {
            let (name, key, id) = upload_of(model, *upload)?;
            let version = model.draw();
            let list = model.named.get(&id)?.clone();
            let command = Command::CompleteUpload {
                bucket: name.into(),
                key: key.to_owned(),
                upload: UploadId(id),
                parts: list,
                version: Version(version),
                checksum: None,
                condition: Condition::Absent,
                now_ms: 1,
            };
            let Some(bucket) = model.buckets.get(name) else { return Some((command, no_bucket(name))) };
            let done = bucket.uploads.get(&id).and_then(|upload| upload.completed.clone());
            (command, done.map_or(refused(Refusal::NoUpload), |(_, content)| completed(&content)))
        }
        Step::Abort { upload } => {
            let (name, key, id) = upload_of(model, *upload)?;
            let bucket_ = name.into();
            let command =
                Command::AbortUpload { bucket: bucket_, key: key.to_owned(), upload: UploadId(id), now_ms: 1 };
            let uploads = model.buckets.get_mut(name).map(|bucket| &mut bucket.uploads);
            match uploads {
                Some(uploads) if uploads.get(&id).is_some_and(|upload| upload.completed.is_none()) => {
                    let gone = uploads.remove(&id)?;
                    gone.parts.into_values().for_each(|content| model.discard(content));
                    (command, Outcome::Done)
                }
                _ => (command, refused(Refusal::NoUpload)),
            }
        }
        Step::Forget { upload } => {
            let (name, key, id) = upload_of(model, *upload)?;
            let command = Command::ForgetUpload { bucket: name.into(), key: key.to_owned(), upload: UploadId(id) };
            let uploads = model.buckets.get_mut(name).map(|bucket| &mut bucket.uploads);
            match uploads
                .and_then(|uploads| uploads.get(&id).map(|upload| upload.completed.is_some()).zip(Some(uploads)))
            {
                Some((false, _)) => (command, refused(Refusal::NoUpload)),
                Some((true, uploads)) => {
                    uploads.remove(&id);
                    (command, Outcome::Done)
                }
                None => (command, Outcome::Done),
            }
        }
        Step::Drop { upload } => {
            let (name, _, id) = upload_of(model, *upload)?;
            let command = Command::DropParts { bucket: name.into(), upload: UploadId(id), now_ms: 1 };
            let parts = model.leftovers.remove(&(name, id)).unwrap_or_default();
            parts.into_values().for_each(|content| model.discard(content));
            (command, Outcome::Dropped { more: false })
        }
        Step::Forbid { version } => {
            let version = known(model, *version)?;
            let command = Command::ForbidVersion { version: Version(version) };
            if model.live().contains(&version) {
                return Some((command, refused(Refusal::Condition { at: Some(Version(version)) })));
            }
            let all = model.garbage.remove(&version).unwrap_or_else(|| [version].into());
            model.forbidden.extend(all);
            (command, Outcome::Done)
        }
        Step::Move { version } => {
            let version = known(model, *version)?;
            let shard = ShardKey { version: Version(version), extent: ExtentIndex(0), shard: ShardIndex(0) };
            let (at, wanted) = (Some(DiskId(11)), DiskId(11));
            let (bucket, key) = ("anywhere".into(), String::new());
            let command = Command::SetHome { bucket, key, shard, expected: Some(DiskId(11)), at, wanted };
            let has = |content: &Content| content.versions.contains(&version) && !is_empty(model, content, version);
            let objects = model.buckets.values().flat_map(|bucket| bucket.objects.values());
            let uploads = model.buckets.values().flat_map(|bucket| bucket.uploads.values());
            let parts = uploads.flat_map(|upload| upload.parts.values());
            let left = model.leftovers.values().flat_map(|parts| parts.values());
            let found = objects.chain(parts).chain(left).any(has);
            (command, if found { Outcome::Done } else { refused(Refusal::NoObject) })
        }
    })
}

/// Whether no extent of the content was uploaded under this version: its own, when it is empty or was completed.
fn is_empty(_: &Model, content: &Content, version: u128) -> bool {
    let whole = content.versions.len() == 1 && matches!(content.etag, ETag::Content(_));
    if whole { content.size == 0 } else { version == content.version }
}

fn put_in(
    model: &mut Model,
    name: &'static str,
    key: &'static str,
    content: Content,
    holds: bool,
    present: Option<Content>,
) -> Outcome {
    let Some(bucket) = model.buckets.get(name) else { return no_bucket(name) };
    if !holds {
        return condition_failed(present.as_ref());
    }
    let goes = present.as_ref().map_or(0, |old| old.size);
    if let Some(over) = bucket.quota(name, content.size, goes) {
        return over;
    }
    let replaced = present.as_ref().map(|old| Version(old.version));
    present.into_iter().for_each(|old| model.discard(old));
    if let Some(bucket) = model.buckets.get_mut(name) {
        bucket.objects.insert(key, content);
    }
    Outcome::Put { replaced }
}

fn completed(content: &Content) -> Outcome {
    let (version, size_bytes) = (Version(content.version), content.size);
    Outcome::Completed(CompletedUpload { version, etag: content.etag, size_bytes, checksum: None })
}

fn complete_in(
    model: &mut Model,
    name: &'static str,
    id: u128,
    list: &[(u16, ETag)],
    version: u128,
    holds: bool,
    present: Option<Content>,
) -> Outcome {
    let Some(bucket) = model.buckets.get(name) else { return no_bucket(name) };
    let Some(upload) = bucket.uploads.get(&id) else { return refused(Refusal::NoUpload) };
    if list.is_empty() {
        return refused(Refusal::InvalidPart { number: 0 });
    }
    let etag = tag_of(list);
    if let Some((known, content)) = &upload.completed {
        return if *known == etag { completed(content) } else { refused(Refusal::NoUpload) };
    }
    let last = list.last().map(|(number, _)| *number);
    let mut content = Content { version, size: 0, etag, versions: [version].into() };
    for (number, _) in list {
        let Some(part) = upload.parts.get(number) else { return refused(Refusal::InvalidPart { number: *number }) };
        if part.size < MIN_PART_BYTES && Some(*number) != last {
            return refused(Refusal::PartTooSmall { number: *number });
        }
        content.size += part.size;
        if part.size > 0 {
            content.versions.extend(&part.versions);
        }
    }
    if !holds {
        return condition_failed(present.as_ref());
    }
    let outcome = completed(&content);
    let key = upload.key;
    present.into_iter().for_each(|old| model.discard(old));
    if let Some(bucket) = model.buckets.get_mut(name) {
        bucket.objects.insert(key, content.clone());
        if let Some(upload) = bucket.uploads.get_mut(&id) {
            upload.completed = Some((etag, content));
            let parts = std::mem::take(&mut upload.parts);
            let unnamed = parts.into_iter().filter(|(number, _)| !list.iter().any(|(named, _)| named == number));
            unnamed.for_each(|(_, part)| model.discard(part));
        }
    }
    model.named.insert(id, list.to_vec());
    outcome
}
