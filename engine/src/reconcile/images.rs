//! Images: fetch, check, cut into chunks, once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::SignedDuration;
use tokio::io::AsyncWriteExt;
use vmetal_image::{ImportOptions, import};
use vmetal_lifecycle::Note;
use vmetal_model::{Cause, Failure, Image, ImagePhase, ImageStatus, Kind};
use vmetal_store::CommitError;

use crate::causes::whole;
use crate::engine::{Engine, ObjectKey};
use crate::ledger::Batch;
use crate::ownership::{Author, Hold};

/// The pause before an import that failed is tried again.
const AGAIN: SignedDuration = SignedDuration::from_mins(5);

/// How long a connection to an image's server may take.
const CONNECT: Duration = Duration::from_secs(30);
/// How long an image's server may be silent.
const SILENCE: Duration = Duration::from_secs(60);

impl Engine {
    pub(super) async fn reconcile_image(self: &Arc<Self>, name: &str) -> Result<(), CommitError> {
        let key = ObjectKey::new(Kind::Image, name);
        if self.is_under_way(&key) {
            return Ok(());
        }
        let Some(hold) = self.ownership.hold(&key) else { return Ok(()) };
        let Some(image) = self.fleet.image(name) else { return Ok(()) };
        if image.is_deleted() {
            return self.remove_unused(hold, &*image, &[]).await.map(|_| ());
        }
        let current = image.status.observed_generation == image.metadata.generation;
        match image.status.phase {
            ImagePhase::Ready if current => return Ok(()),
            ImagePhase::Ready if image.status.imported.as_ref() == Some(&image.spec) => {
                // Only labels or annotations changed.
                let status = ImageStatus { observed_generation: image.metadata.generation, ..image.status.clone() };
                return self.set_image(hold, &image, status, None).await;
            }
            ImagePhase::Failed if current => {
                let since = image.status.failure.as_ref().map_or(self.now(), |failure| failure.at);
                let again = since.saturating_add(AGAIN).unwrap_or(vmetal_model::Timestamp::MAX);
                if again > self.now() {
                    self.wake_at(key, again);
                    return Ok(());
                }
            }
            _ => {}
        }
        let status = ImageStatus {
            phase: ImagePhase::Importing,
            observed_generation: image.metadata.generation,
            ..ImageStatus::default()
        };
        let note = Note::info("import", format!("importing {}", image.spec.source));
        self.set_image(hold, &image, status, Some(note)).await?;
        let engine = Arc::clone(self);
        self.run_restartable(key, hold, async move { engine.import(hold, image).await });
        Ok(())
    }

    async fn set_image(
        &self,
        hold: Hold,
        image: &Image,
        status: ImageStatus,
        note: Option<Note>,
    ) -> Result<(), CommitError> {
        let Some(current) = self.fleet.image(image.name()).filter(|now| now.metadata.uid == image.metadata.uid) else {
            return Ok(());
        };
        let mut batch = Batch::by(Author::Owner(hold));
        if current.status != status {
            let mut changed = (*current).clone();
            changed.status = status;
            batch.notes(&*current, self.now(), note);
            batch.replace(changed);
            self.ledger.commit(batch).await?;
        }
        Ok(())
    }

    async fn import(self: Arc<Self>, hold: Hold, image: Arc<Image>) {
        let started = self.now();
        let generation = image.metadata.generation;
        let turn = self.lanes.import().await;
        let imported = self.fetch_and_import(&image).await;
        drop(turn);
        let (status, note) = match imported {
            Ok(imported) => {
                let seconds = self.now().duration_since(started).as_secs_f64();
                let message = format!(
                    "imported {} MiB as {} MiB in {seconds:.1} s, digest {}",
                    imported.size_bytes >> 20,
                    imported.stored_bytes >> 20,
                    imported.digest
                );
                let status = ImageStatus {
                    phase: ImagePhase::Ready,
                    digest: Some(imported.digest.to_string()),
                    size_bytes: imported.size_bytes,
                    stored_bytes: imported.stored_bytes,
                    failure: None,
                    imported: Some(image.spec.clone()),
                    observed_generation: generation,
                };
                (status, Note::info("import", message))
            }
            Err(failure) => {
                let note = Note::error("failed", failure.to_string());
                let status = ImageStatus {
                    phase: ImagePhase::Failed,
                    failure: Some(failure),
                    observed_generation: generation,
                    ..ImageStatus::default()
                };
                (status, note)
            }
        };
        loop {
            match self.set_image(hold, &image, status.clone(), Some(note.clone())).await {
                Ok(()) => return,
                Err(CommitError::Conflict { .. }) => {}
                Err(error) if error.is_retryable() => self.store_trouble(&error).await,
                Err(error) => {
                    self.ownership.heed(&error);
                    return tracing::error!(image = image.name(), %error, "an import could not be recorded");
                }
            }
        }
    }

    async fn fetch_and_import(&self, image: &Image) -> Result<vmetal_image::Imported, Failure> {
        let images = self.config.images_dir();
        let spec = image.spec.clone();
        let fetched = if spec.source.starts_with('/') {
            None
        } else {
            Some(self.fetch(&image.metadata.uid.0, &spec.source).await?)
        };
        let source = fetched.clone().unwrap_or_else(|| PathBuf::from(&spec.source));
        let options = ImportOptions { checksum: spec.checksum, format: spec.format, ..ImportOptions::new(images) };
        let imported = tokio::task::spawn_blocking(move || import(&source, &options, |_| {})).await;
        if let Some(path) = fetched {
            // The download is only a means; a file that stays behind is overwritten by the next one.
            let _ = tokio::fs::remove_file(path).await;
        }
        imported
            .map_err(|error| self.internal("the import broke off", error))?
            .map_err(|error| self.image_failure(error.to_string()))
    }

    fn image_failure(&self, message: String) -> Failure {
        let advice = "correct source, checksum or format; the import is tried again every 5 minutes".to_owned();
        Failure { cause: Cause::Image, message, advice, at: self.now() }
    }

    /// Downloads a source to a file of its own. Redirects are followed; the checksum, if there is one, is checked by the
    /// import.
    async fn fetch(&self, uid: &str, url: &str) -> Result<PathBuf, Failure> {
        let failed =
            |error: &dyn std::error::Error| self.image_failure(format!("{url} cannot be fetched: {}", whole(error)));
        let directory = self.config.state_dir.join("downloads");
        tokio::fs::create_dir_all(&directory).await.map_err(|e| failed(&e))?;
        let path = directory.join(uid);
        // No limit on the whole: images are large. A server that falls silent must not keep the import for ever, and what was
        // asked for over TLS must not be redirected to clear text.
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .https_only(url.starts_with("https://"))
            .build()
            .map_err(|e| failed(&e))?;
        let answer = client.get(url).send().await.and_then(reqwest::Response::error_for_status);
        let answer = answer.map_err(|e| failed(&e))?;
        let mut file = tokio::fs::File::create(&path).await.map_err(|e| failed(&e))?;
        let mut body = answer.bytes_stream();
        while let Some(piece) = body.next().await {
            file.write_all(&piece.map_err(|e| failed(&e))?).await.map_err(|e| failed(&e))?;
        }
        file.flush().await.map_err(|e| failed(&e))?;
        Ok(path)
    }
}
