//! The operations of S3 that this door has: each is one function of the modules beside this one. What is not here, s3s
//! answers with `NotImplemented`, and [`super::access`] refuses before that.

use async_trait::async_trait;
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result};

use super::{buckets, copy, listing, multipart, objects};
use crate::gateway::Gateway;

/// What every operation works with. Keeps no state: any node answers as any other.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) gateway: Gateway,
    pub(super) region: String,
}

/// One method per operation, each of them `module::function(self, request)`.
macro_rules! operations {
    ($($name:ident($input:ty) -> $output:ty = $module:ident;)*) => {
        #[async_trait]
        impl S3 for Store {
            $(async fn $name(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                $module::$name(self, request).await
            })*
        }
    };
}

operations! {
    create_bucket(CreateBucketInput) -> CreateBucketOutput = buckets;
    head_bucket(HeadBucketInput) -> HeadBucketOutput = buckets;
    list_buckets(ListBucketsInput) -> ListBucketsOutput = buckets;
    delete_bucket(DeleteBucketInput) -> DeleteBucketOutput = buckets;
    get_bucket_location(GetBucketLocationInput) -> GetBucketLocationOutput = buckets;
    get_bucket_versioning(GetBucketVersioningInput) -> GetBucketVersioningOutput = buckets;
    get_bucket_acl(GetBucketAclInput) -> GetBucketAclOutput = buckets;
    get_object_acl(GetObjectAclInput) -> GetObjectAclOutput = buckets;
    get_object_tagging(GetObjectTaggingInput) -> GetObjectTaggingOutput = buckets;
    get_bucket_request_payment(GetBucketRequestPaymentInput) -> GetBucketRequestPaymentOutput = buckets;
    get_bucket_logging(GetBucketLoggingInput) -> GetBucketLoggingOutput = buckets;
    get_bucket_notification_configuration(GetBucketNotificationConfigurationInput)
        -> GetBucketNotificationConfigurationOutput = buckets;
    get_bucket_accelerate_configuration(GetBucketAccelerateConfigurationInput)
        -> GetBucketAccelerateConfigurationOutput = buckets;
    put_object(PutObjectInput) -> PutObjectOutput = objects;
    get_object(GetObjectInput) -> GetObjectOutput = objects;
    head_object(HeadObjectInput) -> HeadObjectOutput = objects;
    get_object_attributes(GetObjectAttributesInput) -> GetObjectAttributesOutput = objects;
    delete_object(DeleteObjectInput) -> DeleteObjectOutput = objects;
    delete_objects(DeleteObjectsInput) -> DeleteObjectsOutput = objects;
    copy_object(CopyObjectInput) -> CopyObjectOutput = copy;
    upload_part_copy(UploadPartCopyInput) -> UploadPartCopyOutput = copy;
    list_objects(ListObjectsInput) -> ListObjectsOutput = listing;
    list_objects_v2(ListObjectsV2Input) -> ListObjectsV2Output = listing;
    list_object_versions(ListObjectVersionsInput) -> ListObjectVersionsOutput = listing;
    list_multipart_uploads(ListMultipartUploadsInput) -> ListMultipartUploadsOutput = listing;
    list_parts(ListPartsInput) -> ListPartsOutput = listing;
    create_multipart_upload(CreateMultipartUploadInput) -> CreateMultipartUploadOutput = multipart;
    upload_part(UploadPartInput) -> UploadPartOutput = multipart;
    complete_multipart_upload(CompleteMultipartUploadInput) -> CompleteMultipartUploadOutput = multipart;
    abort_multipart_upload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput = multipart;
}
