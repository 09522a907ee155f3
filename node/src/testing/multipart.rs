//! Stories of uploads in parts: what becomes of every part, whatever happens to disks and clients meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use md5::{Digest, Md5};

use super::{Cluster, Settings, bucket, content, until};
use crate::gateway::{
    BucketSettings, ByteRange, Complete, GatewayError, NewUpload, PartTarget, PutDone, PutTarget, UploadQuery,
};
use crate::model::{
    Attributes, Command, Condition, DiskState, ETag, Grant, Outcome, UPLOADS_BUCKET, UploadRecord, part_key,
};
use crate::repair::Scope;
use crate::types::{BucketName, DiskId, NodeName, ShardIndex, ShardKey};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

impl Cluster {
    pub(super) async fn begin(&self, at: usize, key: &str) -> UploadRecord {
        let new = NewUpload {
            bucket: bucket(),
            key: key.to_owned(),
            attributes: Attributes { content_type: Some("text/plain".to_owned()), ..Attributes::default() },
            checksum: None,
            initiator: "test".to_owned(),
        };
        self.node(at).gateway.create_upload(new).await.unwrap()
    }

    pub(super) async fn part(
        &self,
        at: usize,
        upload: &UploadRecord,
        number: u16,
        data: &Bytes,
    ) -> Result<PutDone, GatewayError> {
        let gateway = &self.node(at).gateway;
        let body = futures_util::stream::iter([Ok::<_, String>(data.clone())]);
        let size = Some(data.len() as u64);
        let uploaded = gateway.upload_part(&upload.bucket, &upload.key, upload.id, size, body).await?;
        let (bucket, key, part) = (upload.bucket.clone(), upload.key.clone(), number);
        gateway.commit_part(uploaded, PartTarget { bucket, key, upload: upload.id, part, checksum: None }).await
    }

    /// Every shard of an object with the disk that has it.
    async fn shards(&self, bucket: &BucketName, key: &str) -> Vec<(ShardKey, DiskId)> {
        let record = self.any().gateway.head(bucket, key).await.unwrap();
        let homes = record.extents.iter().flat_map(|extent| {
            let homes = (0u8..).map(ShardIndex).zip(&extent.homes);
            homes.filter_map(|(shard, home)| Some((extent.id.shard(shard), home.at?)))
        });
        homes.collect()
    }

    /// How many shards a search for orphans of any age would move aside, over all disks.
    async fn orphans(&self) -> u64 {
        let mut moved = 0;
        for node in self.nodes.iter().flatten() {
            let parts = node.repair.parts_for_test();
            for volume in parts.disks.volumes() {
                moved += crate::repair::search_orphans(&parts, &volume, &mut BTreeMap::new(), Duration::ZERO).await;
            }
        }
        moved
    }
}

impl Cluster {
    /// A part of an upload under way, by its key among the parts, and the key of an object completed from a part.
    pub(super) async fn with_parts(&self, key: &str, len: usize) -> (String, String) {
        let done = self.begin(0, key).await;
        let put = self.part(0, &done, 1, &content(len)).await.unwrap();
        self.node(0).gateway.complete_upload(complete(&done, &[(1, put.etag)])).await.unwrap();
        let open = self.begin(1, "open").await;
        self.part(1, &open, 1, &content(len)).await.unwrap();
        (part_key(&bucket(), open.id, 1), key.to_owned())
    }
}

pub(super) fn complete(upload: &UploadRecord, parts: &[(u16, ETag)]) -> Complete {
    Complete {
        bucket: upload.bucket.clone(),
        key: upload.key.clone(),
        upload: upload.id,
        parts: parts.to_vec(),
        checksum: None,
        condition: Condition::None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_put_at_many_nodes_become_one_object_that_reads_and_heals_like_any_other() {
    let cluster = Cluster::start(6, Settings::default()).await;
    let whole = content(30 * MIB + 11);
    let cuts = [0, 5 * MIB, 25 * MIB + 1, 30 * MIB + 11];
    let pieces: Vec<Bytes> = cuts.windows(2).map(|cut| whole.slice(cut[0]..cut[1])).collect();

    // Each part at another node, out of order, one of them twice.
    let upload = cluster.begin(0, "key").await;
    cluster.part(1, &upload, 2, &content(6 * MIB)).await.unwrap();
    let mut named = Vec::new();
    for (at, number) in [(2, 3), (3, 1), (4, 2)] {
        let piece = &pieces[usize::from(number) - 1];
        let done = cluster.part(at, &upload, number, piece).await.unwrap();
        assert_eq!(done.etag, ETag::Content(Md5::digest(piece).into()));
        assert_eq!((done.shards_missing, done.replaced.is_some()), (0, number == 2));
        named.push((number, done.etag));
    }
    named.sort_unstable();
    let page = cluster.node(5).gateway.list_parts(&bucket(), "key", upload.id, 0, 0).await.unwrap();
    assert_eq!(page.parts.iter().map(|(number, part)| (*number, part.etag)).collect::<Vec<_>>(), named);

    // Parts are nobody's to see, and nobody's to collect. The search does find the part that was replaced, which is
    // garbage still.
    assert!(matches!(cluster.get(0, "key").await, Err(GatewayError::NoObject { .. })));
    assert_eq!(cluster.any().meta.counts().parts, 3);
    let parts = BucketName::from(UPLOADS_BUCKET);
    let name = part_key(&bucket(), upload.id, 2);
    let held = cluster.shards(&parts, &name).await;
    assert_eq!(held.len(), 2 * 6, "k+m shards of each of two extents");
    assert_eq!(cluster.orphans().await, 6, "of the replaced part and of nothing else");
    assert!(cluster.node(1).gateway.check_shards(&parts, &name).await.unwrap().intact);

    let done = cluster.node(5).gateway.complete_upload(complete(&upload, &named)).await.unwrap();
    assert_eq!(done.size_bytes, whole.len() as u64);
    assert!(done.etag.to_string().ends_with("-3"), "{}", done.etag);
    // Its answer may be lost: asked again, anywhere, it is the same.
    assert_eq!(cluster.node(2).gateway.complete_upload(complete(&upload, &named)).await.unwrap(), done);
    let gone = cluster.part(0, &upload, 4, &content(5)).await.unwrap_err();
    assert!(matches!(gone, GatewayError::NoUpload), "{gone}");

    assert!(cluster.get(3, "key").await.unwrap() == whole);
    for (offset, length) in [(5 * MIB - 1, 2), (5 * MIB, 1), (25 * MIB, 2), (4 * MIB, 24 * MIB), (30 * MIB + 10, 0)] {
        let range = ByteRange { offset: offset as u64, length: length as u64 };
        let end = if length == 0 { whole.len() } else { offset + length };
        assert!(cluster.get_range(1, "key", range).await.unwrap() == whole.slice(offset..end), "{range:?}");
    }
    let record = cluster.record("key").await;
    assert_eq!(record.attributes.content_type.as_deref(), Some("text/plain"));
    assert_eq!(cluster.orphans().await, 0, "what the parts owned, the object owns");

    // A disk is lost: what it had of the parts' extents is rebuilt elsewhere and proven.
    let (_, disk) = cluster.shards(&bucket(), "key").await[0];
    let owner = cluster.owner(disk);
    std::fs::remove_dir_all(cluster.node(owner).disks.volume(disk).unwrap().path()).unwrap();
    cluster.set_disk(disk, DiskState::Out).await;
    let synced = super::stories::last(cluster.node(owner).repair.sync_scope(Scope::Disk(disk))).await;
    assert_eq!((synced.failed, synced.skipped, synced.done), (0, 0, synced.total), "{synced:?}");
    let verdict = cluster.node(2).gateway.verify(&bucket(), "key").await.unwrap();
    assert!(verdict.intact, "{verdict:?}");
    let proof = super::stories::last(cluster.node(owner).repair.verify_scope(Scope::Disk(disk))).await;
    assert_eq!((proof.failed, proof.skipped), (0, 0), "{proof:?}");
    assert!(cluster.get(4, "key").await.unwrap() == whole);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_aborted_abandoned_and_deleted_uploads_leave_is_collected() {
    let settings = Settings {
        read_deadline: Duration::from_secs(2),
        abandoned_uploads_after: Duration::from_secs(6),
        ..Settings::default()
    };
    let cluster = Cluster::start(6, settings).await;
    let parts = BucketName::from(UPLOADS_BUCKET);
    let mut shards = Vec::new();
    let other = BucketName::from("other");
    cluster.node(0).gateway.create_bucket(&other, BucketSettings::default(), false).await.unwrap();

    // Aborted by its client; left alone by it; gone with its bucket; and completed, then deleted.
    let aborted = cluster.begin(0, "aborted").await;
    let abandoned = cluster.begin(1, "abandoned").await;
    let new = NewUpload {
        bucket: other.clone(),
        key: "deleted".to_owned(),
        attributes: Attributes::default(),
        checksum: None,
        initiator: String::new(),
    };
    let deleted = cluster.node(2).gateway.create_upload(new).await.unwrap();
    let completed = cluster.begin(3, "completed").await;
    let mut etag = None;
    for upload in [&aborted, &abandoned, &deleted, &completed] {
        etag = Some(cluster.part(0, upload, 1, &content(100 * KIB)).await.unwrap().etag);
        shards.extend(cluster.shards(&parts, &part_key(&upload.bucket, upload.id, 1)).await);
    }
    assert_eq!(shards.len(), 4 * 6);
    let gateway = &cluster.node(4).gateway;
    gateway.abort_upload(&bucket(), "aborted", aborted.id).await.unwrap();
    gateway.delete_bucket(&other).await.unwrap();
    gateway.complete_upload(complete(&completed, &[(1, etag.unwrap())])).await.unwrap();
    assert!(gateway.delete(&bucket(), "completed", Condition::None).await.unwrap());
    let again = gateway.abort_upload(&bucket(), "aborted", aborted.id).await.unwrap_err();
    assert!(matches!(again, GatewayError::NoUpload), "{again}");
    assert!(cluster.file(shards[0].1, shards[0].0).exists(), "whoever reads it still can");

    for (shard, disk) in shards {
        until("it is moved aside", async || !cluster.file(disk, shard).exists()).await;
        assert!(cluster.any().meta.forbidden(shard.version).await.unwrap(), "forbidden before it was moved");
    }
    let left = cluster.node(5).gateway.list_uploads(&bucket(), UploadQuery::default()).await.unwrap();
    assert!(left.entries.is_empty(), "{left:?}");
    assert_eq!(cluster.any().meta.counts().parts, 0);
    let late = cluster.part(0, &abandoned, 2, &content(5)).await.unwrap_err();
    assert!(matches!(late, GatewayError::NoUpload), "{late}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_may_not_be_are_refused_and_say_why() {
    let cluster = Cluster::start(6, Settings::default()).await;
    let gateway = &cluster.node(1).gateway;
    let target = |key: &str, condition| PutTarget {
        bucket: bucket(),
        key: key.to_owned(),
        condition,
        attributes: Attributes::default(),
    };
    let upload = async |data: Bytes| {
        let body = futures_util::stream::iter([Ok::<_, String>(data.clone())]);
        gateway.upload(&bucket(), None, body).await.unwrap()
    };

    // Given up before it was committed: the collector was first.
    let uploaded = upload(content(KIB)).await;
    assert_eq!(uploaded.md5(), <[u8; 16]>::from(Md5::digest(content(KIB))));
    let version = uploaded.version();
    let outcome = cluster.node(3).meta.propose(Command::ForbidVersion { version }).await.unwrap();
    assert_eq!(outcome, Outcome::Done);
    let error = gateway.commit_put(uploaded, target("late", Condition::None)).await.unwrap_err();
    assert!(matches!(error, GatewayError::GivenUp(_)), "{error}");

    // By its ETag.
    let done = gateway.commit_put(upload(content(KIB)).await, target("key", Condition::Absent)).await.unwrap();
    let refused = upload(content(2 * KIB)).await;
    let version = refused.version();
    let error = gateway.commit_put(refused, target("key", Condition::NotETag(done.etag))).await.unwrap_err();
    assert!(matches!(error, GatewayError::Condition { .. }), "{error}");
    until("what was refused is given up", async || cluster.node(2).meta.forbidden(version).await.unwrap()).await;
    let uploaded = upload(content(2 * KIB)).await;
    gateway.commit_put(uploaded, target("key", Condition::ETag(done.etag))).await.unwrap();

    // A bucket is full, and not empty.
    let change = crate::gateway::BucketChange { quota_bytes: Some(Some(3 * KIB as u64)), ..Default::default() };
    gateway.set_bucket(&bucket(), change).await.unwrap();
    let error = gateway.commit_put(upload(content(2 * KIB)).await, target("more", Condition::None)).await.unwrap_err();
    assert!(matches!(error, GatewayError::Quota { used_bytes: 2048, .. }), "{error}");
    assert_eq!(gateway.bucket_usage(&bucket()).await.unwrap().bytes, 2048);
    let error = gateway.delete_bucket(&bucket()).await.unwrap_err();
    assert!(matches!(error, GatewayError::BucketNotEmpty(_)), "{error}");

    // More than a client may say of an object.
    let user = BTreeMap::from([("name".to_owned(), "x".repeat(2045))]);
    let attributes = Attributes { user, ..Attributes::default() };
    let large = PutTarget { attributes, ..target("key", Condition::None) };
    let error = gateway.commit_put(upload(content(1)).await, large).await.unwrap_err();
    assert!(matches!(error, GatewayError::TooLarge { limit: 2048, .. }), "{error}");

    // Two of three voters without room for metadata: nothing that needs more of it is begun, and what frees it goes on.
    let voters = cluster.any().meta.status().voters;
    let map = cluster.any().meta.map();
    let names: Vec<NodeName> =
        voters.iter().filter_map(|id| map.node_by_raft(*id)).map(|node| node.name.clone()).collect();
    for (low, node) in names[..2].iter().enumerate() {
        assert!(cluster.node(1).meta.has_room().is_ok(), "{low} voters are low");
        let command = Command::SetMetadataRoom { node: node.clone(), low: true };
        assert_eq!(cluster.any().meta.propose(command).await.unwrap(), Outcome::Done);
        cluster.node(1).meta.barrier().await.unwrap();
    }
    let error = cluster.put(1, "more", &content(1)).await.unwrap_err();
    assert!(matches!(error, GatewayError::MetadataFull(_)), "{error}");
    assert!(error.to_string().contains(names[0].as_str()), "{error}");
    assert!(gateway.delete(&bucket(), "key", Condition::None).await.unwrap());
    gateway.delete_bucket(&bucket()).await.unwrap();
    let again = gateway.create_bucket(&bucket(), BucketSettings::default(), false).await.unwrap_err();
    assert!(matches!(again, GatewayError::MetadataFull(_)), "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_access_key_opens_every_node_until_it_is_revoked() {
    let cluster = Cluster::start(3, Settings::default()).await;
    let key = cluster.node(0).gateway.create_key("a test's", false).await.unwrap();
    assert!(key.id.starts_with("RS") && key.id.len() == 20 && key.secret.len() == 40, "{key:?}");
    let grant = Grant { read: true, ..Grant::default() };
    cluster.node(1).gateway.grant_key(&key.id, &bucket(), Some(grant)).await.unwrap();
    let known = cluster.node(2).gateway.list_keys().await.unwrap().pop().unwrap();
    assert_eq!((known.secret, known.grants), (key.secret, BTreeMap::from([(bucket(), grant)])));
    cluster.node(2).gateway.revoke_key(&key.id).await.unwrap();
    assert_eq!(cluster.node(2).gateway.key(&key.id).await.unwrap(), None);
    let error = cluster.node(0).gateway.revoke_key(&key.id).await.unwrap_err();
    assert!(matches!(error, GatewayError::NoKey(_)), "{error}");
    // A node that has never heard of a key asks before it says no.
    let fresh = cluster.node(0).gateway.create_key("fresh", true).await.unwrap();
    assert_eq!(cluster.node(1).gateway.key(&fresh.id).await.unwrap(), Some(fresh));
}
