//! The `Store` service: the gateway's answers as gRPC messages. Decides nothing but whether this node serves at all, and
//! whether it takes changes.

mod buckets;
mod keys;
mod objects;

use std::pin::Pin;

use futures_util::Stream;
use resilver_proto::store::store_server::{Store, StoreServer};
use resilver_proto::store::{
    Bucket, CreateBucketRequest, CreateKeyRequest, CreateKeyResponse, DeleteBucketRequest, DeleteBucketResponse,
    DeleteRequest, DeleteResponse, GetRequest, GetResponse, GrantKeyRequest, HeadRequest, Key, ListBucketsRequest,
    ListBucketsResponse, ListKeysRequest, ListKeysResponse, ListRequest, ListResponse, ObjectInfo, PutRequest,
    PutResponse, RepairRequest, RepairResponse, RevokeKeyRequest, RevokeKeyResponse, SetBucketRequest, VerifyRequest,
    VerifyResponse,
};
use resilver_proto::transport::MAX_MESSAGE_BYTES;
use tonic::{Request, Response, Status, Streaming};

use super::Gateway;
use crate::meta::Meta;
use crate::mode::Wants;
use crate::phase::PhaseCell;

/// The gRPC service in front of a [`Gateway`].
pub struct StoreService {
    gateway: Gateway,
    meta: Meta,
    phase: PhaseCell,
}

impl StoreService {
    /// Answers while the node serves, as far as its mode allows; refuses with `UNAVAILABLE` otherwise: isolation until
    /// verified, and a fence.
    pub fn new(gateway: Gateway, meta: Meta, phase: PhaseCell) -> Self {
        Self { gateway, meta, phase }
    }

    /// As a tonic service, with the message limits of this product.
    pub fn into_server(self) -> StoreServer<Self> {
        StoreServer::new(self).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn admit(&self, wants: Wants) -> Result<(), Status> {
        if !*self.phase.serving().borrow() {
            return Err(Status::unavailable(
                "starting: this node serves no client before it is verified; ask another node, or wait",
            ));
        }
        self.phase.mode().admit(wants).map_err(Status::unavailable)
    }
}

#[tonic::async_trait]
impl Store for StoreService {
    async fn create_bucket(&self, request: Request<CreateBucketRequest>) -> Result<Response<Bucket>, Status> {
        self.admit(Wants::Write)?;
        self.make_bucket(request.into_inner()).await.map(Response::new)
    }

    async fn list_buckets(
        &self,
        request: Request<ListBucketsRequest>,
    ) -> Result<Response<ListBucketsResponse>, Status> {
        self.admit(Wants::Read)?;
        self.all_buckets(request.into_inner()).await.map(Response::new)
    }

    async fn delete_bucket(
        &self,
        request: Request<DeleteBucketRequest>,
    ) -> Result<Response<DeleteBucketResponse>, Status> {
        self.admit(Wants::Write)?;
        self.remove_bucket(request.into_inner()).await.map(Response::new)
    }

    async fn set_bucket(&self, request: Request<SetBucketRequest>) -> Result<Response<Bucket>, Status> {
        self.admit(Wants::Write)?;
        self.change_bucket(request.into_inner()).await.map(Response::new)
    }

    async fn put(&self, request: Request<Streaming<PutRequest>>) -> Result<Response<PutResponse>, Status> {
        self.admit(Wants::Write)?;
        self.put_object(request.into_inner()).await.map(Response::new)
    }

    type GetStream = GetStream;

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Self::GetStream>, Status> {
        self.admit(Wants::Read)?;
        self.get_object(request.into_inner()).await.map(Response::new)
    }

    async fn head(&self, request: Request<HeadRequest>) -> Result<Response<ObjectInfo>, Status> {
        self.admit(Wants::Read)?;
        self.head_object(request.into_inner()).await.map(Response::new)
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        self.admit(Wants::Write)?;
        self.delete_object(request.into_inner()).await.map(Response::new)
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        self.admit(Wants::Read)?;
        self.list_objects(request.into_inner()).await.map(Response::new)
    }

    async fn verify(&self, request: Request<VerifyRequest>) -> Result<Response<VerifyResponse>, Status> {
        self.admit(Wants::Read)?;
        self.verify_object(request.into_inner()).await.map(Response::new)
    }

    async fn repair(&self, request: Request<RepairRequest>) -> Result<Response<RepairResponse>, Status> {
        self.admit(Wants::Write)?;
        self.repair_object(request.into_inner()).await.map(Response::new)
    }

    async fn create_key(&self, request: Request<CreateKeyRequest>) -> Result<Response<CreateKeyResponse>, Status> {
        self.admit(Wants::Write)?;
        self.make_key(request.into_inner()).await.map(Response::new)
    }

    async fn list_keys(&self, request: Request<ListKeysRequest>) -> Result<Response<ListKeysResponse>, Status> {
        self.admit(Wants::Read)?;
        self.all_keys(request.into_inner()).await.map(Response::new)
    }

    async fn revoke_key(&self, request: Request<RevokeKeyRequest>) -> Result<Response<RevokeKeyResponse>, Status> {
        self.admit(Wants::Write)?;
        self.remove_key(request.into_inner()).await.map(Response::new)
    }

    async fn grant_key(&self, request: Request<GrantKeyRequest>) -> Result<Response<Key>, Status> {
        self.admit(Wants::Write)?;
        self.change_grant(request.into_inner()).await.map(Response::new)
    }
}

/// What a get answers: the head, then the content.
type GetStream = Pin<Box<dyn Stream<Item = Result<GetResponse, Status>> + Send>>;

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
