//! `work convert`: brings an image into the store and pushes its target image.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use kube::Client as Kube;
use kube::api::Api;
use uimgacc_convert::{CreateError, CreateRequest, LayerFailure};
use uimgacc_objects::AcceleratedImage;
use uimgacc_registry::{Client, ClientOptions, PlainHttp, Platform};
use uimgacc_store::StoreReader;
use uimgacc_types::{ImageReference, with_causes};

use super::failure::Failure;
use super::progress::Counter;
use super::retry::read;
use super::{blocking, report};

/// How often progress is told, where it changed.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Options.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Name of the AcceleratedImage
    #[arg(long, value_name = "NAME")]
    image: String,
    /// Registry to speak to by HTTP without TLS; may be given several times
    #[arg(long = "plain-http-registry", value_name = "HOST[:PORT]")]
    plain_http_registries: Vec<String>,
    /// Pull the original without credentials
    #[arg(long)]
    anonymous_original: bool,
    /// How many layers to convert at once
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=8))]
    jobs: u8,
    /// How often longer than its compressed form a layer may be (1 GiB is always allowed)
    #[arg(long, default_value_t = 100, value_name = "TIMES")]
    max_expansion: u64,
}

pub(super) async fn run(
    kube: &Kube,
    store: &StoreReader,
    options: &Options,
) -> Result<(), Failure> {
    let images: Api<AcceleratedImage> = Api::all(kube.clone());
    let image = read(&images, &options.image).await?;
    let request = request(&image, options).map_err(Failure::final_)?;
    let client = Client::new(ClientOptions {
        plain_http: PlainHttp::registries(options.plain_http_registries.clone()),
        anonymous: options.anonymous_original.then(|| request.original.clone()),
        ..ClientOptions::default()
    })
    .map_err(Failure::retried)?;
    let counter = Arc::new(Counter::default());
    let creating = uimgacc_convert::create(&client, store, &request, counter.clone());
    let telling = tell(&images, &options.image, &counter);
    let created = tokio::select! {
        created = creating => created.map_err(|error| refused(error, &request, options))?,
        () = telling => return Err(Failure::retried(anyhow::anyhow!("the conversion was lost"))),
    };
    let (unique, profile) = {
        let (store, record) = (store.clone(), created.record.clone());
        blocking(move || {
            // The image is there, whatever is wrong with others.
            let unique = uimgacc_store::freed_by_deleting(&store, &record)
                .inspect_err(|error| {
                    tracing::warn!(error = with_causes(error), "its own size is not known")
                })
                .ok();
            // One that cannot be read is none: the next first start is recorded.
            let profile = store.profile(record.chain_id).ok().flatten();
            Ok((unique, profile))
        })
        .await?
    };
    let (name, record) = (&options.image, &created.record);
    report::image(&images, name, record, unique, profile.as_ref()).await?;
    tracing::info!(
        target = created.record.target,
        layers_reused = created.layers_reused,
        "done"
    );
    Ok(())
}

/// Says why there were no credentials, where that may be what is missing.
fn refused(error: CreateError, request: &CreateRequest, options: &Options) -> Failure {
    let is_refusal = |error: &uimgacc_registry::Error| error.is_unauthorized();
    let unauthorized = match &error {
        CreateError::Registry(error) => is_refusal(error),
        CreateError::Layer { source, .. } => {
            matches!(source.as_ref(), LayerFailure::Fetch(error) if is_refusal(error))
        }
        _ => false,
    };
    let failure = Failure::from(error);
    if !options.anonymous_original || !unauthorized {
        return failure;
    }
    failure.context(format!(
        "{} is pulled without credentials, because credentialsFor of the ImageAcceleration does not cover it",
        request.original
    ))
}

/// Tells how far the conversion is, for ever.
async fn tell(images: &Api<AcceleratedImage>, name: &str, counter: &Counter) {
    let mut told = None;
    loop {
        tokio::time::sleep(TELL_EVERY).await;
        let now = counter.now();
        if told.as_ref() != Some(&now) {
            report::progress(images, name, &now).await;
            told = Some(now);
        }
    }
}

fn request(image: &AcceleratedImage, options: &Options) -> anyhow::Result<CreateRequest> {
    let reference = |name: &str| -> anyhow::Result<ImageReference> {
        name.parse()
            .with_context(|| format!("cannot understand the image name {name:?}"))
    };
    let target = reference(&image.spec.target_image)?;
    if target.digest().is_some() {
        anyhow::bail!("the target {target} must have a tag, not a digest");
    }
    let platform = match image.spec.platform.as_str() {
        "" => Platform::host(),
        platform => platform.parse()?,
    };
    Ok(CreateRequest {
        original: reference(&image.spec.original_image)?,
        target,
        platform,
        push: true,
        jobs: usize::from(options.jobs),
        max_expansion: options.max_expansion,
    })
}
