//! Streams blobs, and goes on where a connection broke.
//!
//! Guarantees of a [`BlobStream`]: it yields the bytes from its offset to the descriptor's size, in
//! order, none twice, never more. It repeats by `Range` after a broken connection, at most
//! [`crate::RetryPolicy::attempts`] times without at least [`PROGRESS_BYTES`] between. Whether the bytes
//! have the right digest is for the reader to check. Dropping a future of it loses nothing.

use bytes::Bytes;
use futures_util::Stream;
use reqwest::header::{ACCEPT, CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};
use uimgacc_types::{Digest, ImageReference};

use crate::auth::Scope;
use crate::client::{Call, Client};
use crate::error::{Error, Task};
use crate::http::host_of;
use crate::manifest::Descriptor;

/// How much must arrive for earlier failures to be forgotten.
const PROGRESS_BYTES: u64 = 4 << 20;

pub(crate) fn pull_task(image: &ImageReference, descriptor: &Descriptor) -> Task {
    let digest = descriptor.digest;
    Task::new(format!("pull blob {digest} of {image}"))
}

/// The bytes of a blob as they come in.
#[derive(Debug)]
pub struct BlobStream {
    client: Client,
    image: ImageReference,
    descriptor: Descriptor,
    task: Task,
    /// What was yielded, counted from the start of the blob.
    position: u64,
    /// Bytes that a server without ranges sends again.
    skip: u64,
    answer: Option<Response>,
    failures: u32,
    /// Where the last failure was.
    failed_at: u64,
    failed: bool,
}

impl Client {
    /// Starts to stream the blob of `descriptor` in the repository of `image`, from `offset` bytes
    /// on. The request is sent before this returns.
    pub async fn blob(
        &self,
        image: &ImageReference,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<BlobStream, Error> {
        let mut stream = BlobStream::at(self, image, descriptor, offset);
        if offset > descriptor.size {
            return Err(stream.size_error(offset));
        }
        if offset < descriptor.size {
            stream.open().await?;
        }
        Ok(stream)
    }

    /// Whether the repository of `image` has a blob.
    pub async fn blob_exists(&self, image: &ImageReference, digest: Digest) -> Result<bool, Error> {
        let task = Task::new(format!("look for blob {digest} in {image}"));
        let scope = Scope::pull(image.repository());
        let url = self.url(image, &task, &format!("blobs/{digest}"))?;
        let call = Call::new(image, &task, Method::HEAD, url, &scope);
        let answer = self.call(call, &[404]).await?;
        Ok(answer.status() != StatusCode::NOT_FOUND)
    }
}

impl BlobStream {
    fn at(client: &Client, image: &ImageReference, descriptor: &Descriptor, offset: u64) -> Self {
        Self {
            client: client.clone(),
            image: image.clone(),
            descriptor: descriptor.clone(),
            task: pull_task(image, descriptor),
            position: offset,
            skip: 0,
            answer: None,
            failures: 0,
            failed_at: offset,
            failed: false,
        }
    }

    /// How many bytes of the blob lie behind, the offset included.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Which blob this is.
    #[must_use]
    pub const fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The same blob from its start; connects when it is first read.
    #[must_use]
    pub fn restarted(&self) -> Self {
        Self::at(&self.client, &self.image, &self.descriptor, 0)
    }

    /// The next bytes, never empty; `None` at the end of the blob, and after an error.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, Error> {
        if self.failed {
            return Ok(None);
        }
        let result = self.advance().await;
        self.failed = result.is_err();
        result
    }

    /// The same as a [`Stream`], which ends after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
        futures_util::stream::try_unfold(self, |mut stream| async move {
            let chunk = stream.next_chunk().await?;
            Ok(chunk.map(|bytes| (bytes, stream)))
        })
    }

    async fn advance(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if self.position == self.descriptor.size {
                return self.finish().await;
            }
            if self.answer.is_none() {
                self.open().await?;
            }
            let Some(answer) = &mut self.answer else {
                continue;
            };
            match answer.chunk().await {
                Ok(Some(bytes)) => {
                    if let Some(bytes) = self.take(bytes)? {
                        return Ok(Some(bytes));
                    }
                }
                Ok(None) => self.lost(None).await?,
                Err(error) => self.lost(Some(error)).await?,
            }
        }
    }

    /// Counts a chunk; `None` where nothing new is in it.
    fn take(&mut self, mut bytes: Bytes) -> Result<Option<Bytes>, Error> {
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let old = len.min(self.skip);
        self.skip -= old;
        let _ = bytes.split_to(usize::try_from(old).unwrap_or(bytes.len()));
        let new = len - old;
        if new > self.descriptor.size - self.position {
            return Err(self.size_error(self.position.saturating_add(new)));
        }
        self.position += new;
        Ok((new > 0).then_some(bytes))
    }

    /// Makes sure that nothing comes after the end. A connection that breaks there does no harm.
    async fn finish(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(mut answer) = self.answer.take() else {
            return Ok(None);
        };
        while let Ok(Some(bytes)) = answer.chunk().await {
            if !bytes.is_empty() {
                let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                return Err(self.size_error(self.position.saturating_add(len)));
            }
        }
        Ok(None)
    }

    /// The body ended early: waits and gives up the connection, or gives up.
    async fn lost(&mut self, cause: Option<reqwest::Error>) -> Result<(), Error> {
        let answer = self.answer.take();
        if self.position - self.failed_at >= PROGRESS_BYTES {
            self.failures = 0;
        }
        self.failures += 1;
        self.failed_at = self.position;
        let retry = self.client.http().retry();
        if self.failures >= retry.attempts {
            let host = answer.map(|answer| host_of(answer.url()));
            let host = host.unwrap_or_else(|| self.image.registry().to_owned());
            return Err(match cause {
                Some(cause) => Error::of_transport(&self.task, host, cause),
                None => self.size_error(self.position),
            });
        }
        let wait = retry.delay(self.failures);
        tracing::debug!(task = %self.task, position = self.position, ?wait, "going on after a broken connection");
        tokio::time::sleep(wait).await;
        Ok(())
    }

    async fn open(&mut self) -> Result<(), Error> {
        let scope = Scope::pull(self.image.repository());
        let path = format!("blobs/{}", self.descriptor.digest);
        let url = self.client.url(&self.image, &self.task, &path)?;
        let mut call = Call::new(&self.image, &self.task, Method::GET, url, &scope);
        call.headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        if self.position > 0 {
            let range = format!("bytes={}-{}", self.position, self.descriptor.size - 1);
            if let Ok(range) = HeaderValue::try_from(range) {
                call.headers.insert(RANGE, range);
            }
        }
        let answer = self.client.call(call, &[]).await?;
        self.skip = match answer.status() {
            StatusCode::OK => self.position,
            StatusCode::PARTIAL_CONTENT if self.position > 0 => {
                self.check_range(&answer)?;
                0
            }
            status => {
                return Err(self.bad_answer(&answer, format!("status {status} to a GET of a blob")));
            }
        };
        let expected = self.descriptor.size - self.position + self.skip;
        if let Some(found) = answer.content_length().filter(|found| *found != expected) {
            let before = self.position - self.skip;
            return Err(Error::Size {
                task: self.task.clone(),
                host: host_of(answer.url()),
                expected: self.descriptor.size,
                found: before.saturating_add(found),
            });
        }
        self.answer = Some(answer);
        Ok(())
    }

    /// `Content-Range: bytes FIRST-LAST/TOTAL` must be what was asked for (RFC 9110, 14.4).
    fn check_range(&self, answer: &Response) -> Result<(), Error> {
        let value = answer.headers().get(CONTENT_RANGE);
        let text = value.and_then(|value| value.to_str().ok()).unwrap_or("");
        let range = text.strip_prefix("bytes ").and_then(|t| t.split_once('/'));
        let bounds = range.and_then(|(bounds, _)| bounds.split_once('-'));
        let total = range.map(|(_, total)| total.trim());
        let first = bounds.and_then(|(first, _)| first.trim().parse::<u64>().ok());
        let size = self.descriptor.size;
        if first != Some(self.position) || !total.is_some_and(|t| t == "*" || t.parse() == Ok(size))
        {
            let asked = self.position;
            let text = crate::api_error::clean(Some(text));
            let problem = format!("range {text:?} instead of bytes {asked} to the end of {size}");
            return Err(self.bad_answer(answer, problem));
        }
        Ok(())
    }

    fn bad_answer(&self, answer: &Response, problem: String) -> Error {
        Error::BadAnswer {
            task: self.task.clone(),
            host: host_of(answer.url()),
            problem,
        }
    }

    fn size_error(&self, found: u64) -> Error {
        Error::Size {
            task: self.task.clone(),
            host: self.image.registry().to_owned(),
            expected: self.descriptor.size,
            found,
        }
    }
}
