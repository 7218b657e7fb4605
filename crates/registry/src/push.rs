//! Pushes blobs and manifests (OCI distribution spec, "Push").
//!
//! Blobs go up in one PUT after a POST, the form that every registry takes; from another registry
//! they stream through, a few chunks in memory. The registry checks the digest. An upload that
//! breaks starts again, after a look whether the blob arrived after all.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use parking_lot::Mutex;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::sync::Notify;
use uimgacc_types::{Digest, ImageReference};

use crate::auth::Scope;
use crate::blob::BlobStream;
use crate::client::{Call, Client, announced_digest, check_digest, manifest_name};
use crate::error::{Error, Task};
use crate::http::{host_of, redirect_target, refusal};
use crate::manifest::Descriptor;

/// An upload that the registry opened and waits for.
#[derive(Debug, Clone)]
pub struct Upload {
    location: Url,
    /// What it was opened with: the token of just that scope is at hand.
    scope: Scope,
}

/// What came of [`Client::mount_blob`].
#[derive(Debug)]
pub enum MountOutcome {
    /// The target repository has the blob now.
    Mounted,
    /// It has not; the registry opened an upload instead.
    NotMounted(Upload),
}

/// What [`Client::copy_blob`] had to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyOutcome {
    /// Nothing, it was there.
    Present,
    /// A cross-repository mount; no bytes moved.
    Mounted,
    /// A transfer through this process.
    Uploaded,
}

/// What is sent.
enum Source {
    Bytes(Bytes),
    Stream(Box<BlobStream>),
}

impl Client {
    /// Sees to it that the repository of `target` has a blob of that of `source`: leaves it, mounts
    /// it or streams it, whichever moves the least.
    pub async fn copy_blob(
        &self,
        source: &ImageReference,
        target: &ImageReference,
        descriptor: &Descriptor,
    ) -> Result<CopyOutcome, Error> {
        if self.blob_exists(target, descriptor.digest).await? {
            return Ok(CopyOutcome::Present);
        }
        let mut upload = None;
        if source.same_registry(target) && source.repository() != target.repository() {
            let from = source.repository();
            match self.mount_blob(target, descriptor.digest, from).await? {
                MountOutcome::Mounted => return Ok(CopyOutcome::Mounted),
                MountOutcome::NotMounted(opened) => upload = Some(opened),
            }
        }
        let stream = self.blob(source, descriptor, 0).await?;
        self.push_blob_stream(target, descriptor, stream, upload)
            .await?;
        Ok(CopyOutcome::Uploaded)
    }

    /// Asks the registry of `target` to take the blob over from another of its repositories.
    pub async fn mount_blob(
        &self,
        target: &ImageReference,
        digest: Digest,
        from_repository: &str,
    ) -> Result<MountOutcome, Error> {
        let task = Task::new(format!(
            "mount blob {digest} of {from_repository} into {target}"
        ));
        let scope = Scope::push(target.repository()).and(from_repository, &["pull"]);
        let mut url = self.url(target, &task, "blobs/uploads/")?;
        url.query_pairs_mut()
            .append_pair("mount", &digest.to_string())
            .append_pair("from", from_repository);
        let call = Call::new(target, &task, Method::POST, url, &scope);
        let answer = match self.call(call, &[]).await {
            // Who may not read the source may still write the target.
            Err(error) if error.is_unauthorized() => {
                let opened = self.start_upload(target, digest).await?;
                return Ok(MountOutcome::NotMounted(opened));
            }
            answer => answer?,
        };
        match answer.status() {
            StatusCode::CREATED => Ok(MountOutcome::Mounted),
            StatusCode::ACCEPTED => Ok(MountOutcome::NotMounted(Upload {
                location: redirect_target(&task, answer.url(), answer.headers())?,
                scope,
            })),
            status => Err(bad_status(&task, &answer, status)),
        }
    }

    /// Pushes a small blob, such as a config; nothing where it is there already.
    pub async fn push_blob_bytes(
        &self,
        target: &ImageReference,
        digest: Digest,
        bytes: Bytes,
    ) -> Result<(), Error> {
        let task = push_task(target, digest);
        check_digest(&task, digest, Digest::of(&bytes))?;
        if self.blob_exists(target, digest).await? {
            return Ok(());
        }
        self.upload(target, digest, Source::Bytes(bytes), None)
            .await
    }

    /// Pushes the blob of `descriptor`, reading it from `source`, into `upload` where
    /// [`Self::mount_blob`] opened one. A broken upload reads it again from its start.
    pub async fn push_blob_stream(
        &self,
        target: &ImageReference,
        descriptor: &Descriptor,
        source: BlobStream,
        upload: Option<Upload>,
    ) -> Result<(), Error> {
        let source = if source.position() > 0 || source.descriptor() != descriptor {
            source.restarted()
        } else {
            source
        };
        self.upload(
            target,
            descriptor.digest,
            Source::Stream(Box::new(source)),
            upload,
        )
        .await
    }

    /// Pushes a manifest under the tag of `target`, or under its digest where it has no tag.
    pub async fn push_manifest(
        &self,
        target: &ImageReference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Digest, Error> {
        let task = Task::new(format!("push the manifest of {target}"));
        let digest = Digest::of(&bytes);
        if let Some(expected) = target.digest() {
            check_digest(&task, expected, digest)?;
        }
        let scope = Scope::push(target.repository());
        let name = target
            .tag()
            .map_or_else(|| manifest_name(target), str::to_owned);
        let url = self.url(target, &task, &format!("manifests/{name}"))?;
        let mut call = Call::new(target, &task, Method::PUT, url, &scope);
        let content_type = HeaderValue::try_from(media_type).map_err(|_| Error::BadAnswer {
            task: task.clone(),
            host: target.registry().to_owned(),
            problem: format!("media type {media_type:?} is no header"),
        })?;
        call.headers.insert(CONTENT_TYPE, content_type);
        call.body = bytes;
        let answer = self.call(call, &[]).await?;
        if let Some(announced) = announced_digest(&answer, &task)? {
            check_digest(&task, digest, announced)?;
        }
        Ok(digest)
    }

    async fn start_upload(&self, target: &ImageReference, digest: Digest) -> Result<Upload, Error> {
        let task = push_task(target, digest);
        let scope = Scope::push(target.repository());
        let url = self.url(target, &task, "blobs/uploads/")?;
        let call = Call::new(target, &task, Method::POST, url, &scope);
        let answer = self.call(call, &[]).await?;
        match answer.status() {
            StatusCode::ACCEPTED => Ok(Upload {
                location: redirect_target(&task, answer.url(), answer.headers())?,
                scope,
            }),
            status => Err(bad_status(&task, &answer, status)),
        }
    }

    async fn upload(
        &self,
        target: &ImageReference,
        digest: Digest,
        mut source: Source,
        mut opened: Option<Upload>,
    ) -> Result<(), Error> {
        let mut attempt = 1;
        loop {
            let upload = match opened.take() {
                Some(upload) => upload,
                None => self.start_upload(target, digest).await?,
            };
            let again = match &source {
                Source::Bytes(bytes) => Source::Bytes(bytes.clone()),
                Source::Stream(stream) => Source::Stream(Box::new(stream.restarted())),
            };
            let error = match self.put_blob(target, digest, upload, source).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            // The token may have ended, or the registry restarted, under a long upload.
            let worth_it = error.is_transient()
                || error.is_unauthorized()
                || error.has_code("BLOB_UPLOAD_UNKNOWN");
            let retry = self.http().retry();
            if !worth_it || attempt >= retry.attempts {
                return Err(error);
            }
            let wait = retry.delay(attempt);
            tracing::debug!(%digest, %error, ?wait, "uploading again");
            tokio::time::sleep(wait).await;
            if self.blob_exists(target, digest).await? {
                return Ok(());
            }
            source = again;
            attempt += 1;
        }
    }

    async fn put_blob(
        &self,
        target: &ImageReference,
        digest: Digest,
        upload: Upload,
        source: Source,
    ) -> Result<(), Error> {
        let task = push_task(target, digest);
        let Upload {
            location: mut url,
            scope,
        } = upload;
        url.query_pairs_mut()
            .append_pair("digest", &digest.to_string());
        let octets = HeaderValue::from_static("application/octet-stream");
        let answer = match source {
            Source::Bytes(bytes) => {
                let mut call = Call::new(target, &task, Method::PUT, url, &scope);
                call.headers.insert(CONTENT_TYPE, octets);
                call.body = bytes;
                call.repeat = false;
                self.call(call, &[]).await?
            }
            Source::Stream(stream) => {
                let mut request = self
                    .http()
                    .upload(&url)
                    .put(url.clone())
                    .header(CONTENT_TYPE, octets);
                if let Some(value) = self.authorization(target, &task, &url, &scope).await? {
                    request = request.header(AUTHORIZATION, value);
                }
                let answer = self.send_stream(&task, &url, request, *stream).await?;
                if !answer.status().is_success() {
                    return Err(refusal(&task, answer).await);
                }
                answer
            }
        };
        match answer.status() {
            StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK => Ok(()),
            status => Err(bad_status(&task, &answer, status)),
        }
    }

    /// Sends `stream` as the body, as long as it moves.
    async fn send_stream(
        &self,
        task: &Task,
        url: &Url,
        request: reqwest::RequestBuilder,
        stream: BlobStream,
    ) -> Result<Response, Error> {
        let len_bytes = stream.descriptor().size;
        let moved = Arc::new(Notify::new());
        let broken: Arc<Mutex<Option<Error>>> = Arc::default();
        let body = {
            let moved = Arc::clone(&moved);
            let broken = Arc::clone(&broken);
            stream
                .into_stream()
                .inspect_ok(move |_| moved.notify_one())
                .map_err(move |error| {
                    let text = error.to_string();
                    *broken.lock() = Some(error);
                    std::io::Error::other(text)
                })
        };
        let sending = request
            .header(CONTENT_LENGTH, len_bytes)
            .body(reqwest::Body::wrap_stream(body))
            .send();
        tokio::pin!(sending);
        let idle = self.idle();
        let result = loop {
            tokio::select! {
                result = &mut sending => break result,
                () = moved.notified() => {}
                () = tokio::time::sleep(idle) => {
                    return Err(Error::Stalled {
                        task: task.clone(),
                        host: host_of(url),
                        seconds: idle.as_secs(),
                    });
                }
            }
        };
        // Where the source broke, that is the reason, not that the upload ended early.
        if let Some(error) = broken.lock().take() {
            return Err(error);
        }
        result.map_err(|error| Error::of_transport(task, host_of(url), error))
    }
}

fn push_task(target: &ImageReference, digest: Digest) -> Task {
    Task::new(format!("push blob {digest} to {target}"))
}

fn bad_status(task: &Task, answer: &Response, status: StatusCode) -> Error {
    Error::BadAnswer {
        task: task.clone(),
        host: host_of(answer.url()),
        problem: format!("status {status} where the protocol has none such"),
    }
}
