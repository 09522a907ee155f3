//! What was in flight when a node died: committed and never answered, it is there, once; asked for again, it is answered the same.
//! (What was in progress is collected: `what_a_gateway_that_died_left_behind_is_collected_once_it_is_old`; what was aborted leaves
//! nothing: `an_upload_that_broke_off_leaves_no_object_and_no_half_shard`, `what_aborted_abandoned_and_deleted_uploads_leave_is_collected`.)

use super::multipart::complete;
use super::{Cluster, Settings, bucket, content, until};
use crate::gateway::GatewayError;
use crate::model::{Condition, DiskState};

/// The node that dies: it does not lead.
const DIES: usize = 4;

impl Cluster {
    /// Runs a request at the node that dies, and kills that node as soon as the others see what the request came to: whoever
    /// asked never hears.
    async fn dies_in<T: Send + 'static>(
        &mut self,
        request: impl Future<Output = T> + Send + 'static,
        what: &str,
        mut committed: impl AsyncFnMut(&Cluster) -> bool,
    ) {
        let asked = tokio::spawn(request);
        until(what, async || committed(&*self).await).await;
        asked.abort();
        self.stop(DIES).await;
        self.restart(DIES).await;
        self.admit(DIES).await;
        self.node(DIES).meta.barrier().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_and_never_answered_is_there_once() {
    let mut cluster = Cluster::start(6, Settings::default()).await;

    // A put.
    let data = content(300_000);
    let (gateway, body) = (cluster.node(DIES).gateway.clone(), data.clone());
    let put = async move {
        let options = crate::gateway::PutOptions {
            bucket: bucket(),
            key: "put".to_owned(),
            condition: Condition::None,
            size_bytes: Some(body.len() as u64),
        };
        gateway.put(options, futures_util::stream::iter([Ok::<_, std::io::Error>(body)])).await
    };
    let there = async |cluster: &Cluster| cluster.node(0).gateway.head(&bucket(), "put").await.is_ok();
    cluster.dies_in(put, "the put is committed", there).await;
    assert!(cluster.get(DIES, "put").await.unwrap() == data);
    let again = cluster.put_if(DIES, "put", &data, Condition::Absent).await;
    assert!(again.is_err(), "it is there: {again:?}");
    assert_eq!(cluster.any().meta.counts().objects, 1);

    // The completion of an upload in parts.
    let upload = cluster.begin(0, "parts").await;
    let done = cluster.part(1, &upload, 1, &content(70_000)).await.unwrap();
    let gateway = cluster.node(DIES).gateway.clone();
    let asked = complete(&upload, &[(1, done.etag)]);
    let request = asked.clone();
    let there = async |cluster: &Cluster| cluster.node(0).gateway.head(&bucket(), "parts").await.is_ok();
    cluster.dies_in(async move { gateway.complete_upload(request).await }, "the upload is complete", there).await;
    let answer = cluster.node(DIES).gateway.complete_upload(asked.clone()).await.unwrap();
    assert_eq!(cluster.node(1).gateway.complete_upload(asked).await.unwrap(), answer, "asked again, it is the same");
    assert!(cluster.get(2, "parts").await.unwrap() == content(70_000));

    // A rebuild: what it wrote and could tell, counts; the rest is rebuilt once more, and nothing is there twice.
    let disk = cluster.record("put").await.extents[0].homes[0].at.unwrap();
    if cluster.owner(disk) != DIES {
        std::fs::remove_dir_all(cluster.node(cluster.owner(disk)).disks.volume(disk).unwrap().path()).unwrap();
        cluster.set_disk(disk, DiskState::Out).await;
        let moved = async |cluster: &Cluster| {
            let record = cluster.node(0).gateway.head(&bucket(), "put").await.unwrap();
            record.extents[0].homes[0].at != Some(disk)
        };
        cluster.dies_in(std::future::ready(()), "the shard has left the disk", moved).await;
        cluster.nodes.iter().flatten().for_each(|node| node.repair.check_now());
        until("all is redundant again", async || cluster.any().meta.counts().homeless_shards == 0).await;
        assert!(cluster.node(0).gateway.verify(&bucket(), "put").await.unwrap().intact);
    }

    // A delete.
    let gateway = cluster.node(DIES).gateway.clone();
    let gone = async |cluster: &Cluster| {
        matches!(cluster.node(0).gateway.head(&bucket(), "put").await, Err(GatewayError::NoObject { .. }))
    };
    let delete = async move { gateway.delete(&bucket(), "put", Condition::None).await };
    cluster.dies_in(delete, "the delete is committed", gone).await;
    assert!(!cluster.node(DIES).gateway.delete(&bucket(), "put", Condition::None).await.unwrap(), "it is gone already");
    assert!(matches!(cluster.get(DIES, "put").await, Err(GatewayError::NoObject { .. })));
    assert_eq!(cluster.any().meta.counts().objects, 1);
}
