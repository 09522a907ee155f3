//! Access keys: create, list, grant, revoke. A secret leaves in the answer to its creation, and never again.

use resilver_proto::store::{
    self as wire, CreateKeyRequest, CreateKeyResponse, GrantKeyRequest, Key, ListKeysRequest, ListKeysResponse,
    RevokeKeyRequest, RevokeKeyResponse,
};
use tonic::Status;

use super::StoreService;
use super::buckets::clients_bucket;
use crate::gateway::GatewayError;
use crate::model::{Grant, KeyRecord};
use crate::types::BucketName;

/// The longest label: it is shown in a table.
const MAX_LABEL_CHARS: usize = 64;

impl StoreService {
    pub(super) async fn make_key(&self, request: CreateKeyRequest) -> Result<CreateKeyResponse, Status> {
        check_label(&request.label)?;
        let key = self.gateway.create_key(&request.label, request.admin).await?;
        Ok(CreateKeyResponse { key: Some(key_message(&key)), secret: key.secret })
    }

    pub(super) async fn all_keys(&self, _: ListKeysRequest) -> Result<ListKeysResponse, Status> {
        Ok(ListKeysResponse { keys: self.gateway.list_keys().await?.iter().map(key_message).collect() })
    }

    pub(super) async fn remove_key(&self, request: RevokeKeyRequest) -> Result<RevokeKeyResponse, Status> {
        self.gateway.revoke_key(&request.id).await?;
        Ok(RevokeKeyResponse {})
    }

    pub(super) async fn change_grant(&self, request: GrantKeyRequest) -> Result<Key, Status> {
        let wanted = request.grant.ok_or_else(|| Status::invalid_argument("the request names no bucket"))?;
        let bucket = clients_bucket(wanted.bucket)?;
        let grant = Grant { read: wanted.read, write: wanted.write, admin: wanted.admin };
        let any = grant.read || grant.write || grant.admin;
        self.gateway.grant_key(&request.id, &bucket, any.then_some(grant)).await?;
        // As of now: what this node has applied of the key may be older than what was just agreed.
        let keys = self.gateway.list_keys().await?;
        let key = keys.iter().find(|key| key.id == request.id).ok_or(GatewayError::NoKey(request.id))?;
        Ok(key_message(key))
    }
}

fn check_label(label: &str) -> Result<(), Status> {
    if label.is_empty() || label.chars().count() > MAX_LABEL_CHARS || label.chars().any(char::is_control) {
        return Err(Status::invalid_argument(format!(
            "a key's label is 1 to {MAX_LABEL_CHARS} characters that can be printed: say whose it is"
        )));
    }
    Ok(())
}

fn key_message(key: &KeyRecord) -> Key {
    let grant = |(bucket, grant): (&BucketName, &Grant)| wire::Grant {
        bucket: bucket.to_string(),
        read: grant.read,
        write: grant.write,
        admin: grant.admin,
    };
    Key {
        id: key.id.clone(),
        label: key.label.clone(),
        created_ms: key.created_ms,
        admin: key.admin,
        grants: key.grants.iter().map(grant).collect(),
    }
}
