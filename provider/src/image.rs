//! `vmetal_image`: an operating system image.

use tfplugin::{Attribute, Diagnostic, Schema, Type, Value, schema::Validator};
use vmetal_model::{Failure, Image, ImagePhase, ImageSpec, image::ImageFormat};

use crate::{
    convert::{equal, id_attribute, last_error_attribute, name_attribute, refresh, text},
    kind::{Declaration, Kind, Verdict},
    timeouts::Timeouts,
};

/// `vmetal_image`.
pub(crate) struct Images;

fn phase(phase: ImagePhase) -> &'static str {
    match phase {
        ImagePhase::Pending => "pending",
        ImagePhase::Importing => "importing",
        ImagePhase::Ready => "ready",
        ImagePhase::Failed => "failed",
    }
}

impl Kind for Images {
    type Object = Image;

    const TYPE: &'static str = "vmetal_image";
    const NOUN: &'static str = "image";
    const TIMEOUTS: Timeouts = Timeouts::minutes(60);
    const WAIT_FOR: Option<&'static str> = Some("ready");

    fn schema() -> Schema {
        Schema::new(
            "An operating system image, imported once into verified chunks and installed from there.",
            [
                ("id", id_attribute()),
                ("name", name_attribute("image")),
                (
                    "source",
                    Attribute::required(Type::String).describe(
                        "An absolute path on the engine's machine, or an `http://` or `https://` URL that the engine can fetch.",
                    ),
                ),
                (
                    "checksum",
                    Attribute::optional(Type::String).describe(
                        "`sha256:` and 64 hexadecimal digits, over the source as it is. Required for `http://`.",
                    ),
                ),
                (
                    "format",
                    Attribute::optional(Type::String)
                        .validate(Validator::one_of(&["raw", "qcow2"]))
                        .describe("`raw` or `qcow2`; found from the first bytes when not set."),
                ),
                (
                    "wait_for",
                    Attribute::optional(Type::String)
                        .default("ready")
                        .validate(Validator::one_of(&["ready", "none"]))
                        .describe("What an apply waits for: `ready` (default) or `none`."),
                ),
                ("timeouts", Self::TIMEOUTS.attribute()),
                ("phase", Attribute::computed(Type::String).describe("`pending`, `importing`, `ready` or `failed`.")),
                ("digest", Attribute::computed(Type::String).describe("Digest of the content.")),
                ("size_bytes", Attribute::computed(Type::Number).describe("Size of the disk in bytes.")),
                (
                    "stored_bytes",
                    Attribute::computed(Type::Number).describe("Bytes kept, after compression and without holes."),
                ),
                ("last_error", last_error_attribute()),
            ],
        )
    }

    fn declare(planned: &Value) -> Result<Declaration<ImageSpec>, Diagnostic> {
        let spec = ImageSpec {
            source: text(planned.attr("source")).unwrap_or_default(),
            checksum: text(planned.attr("checksum")),
            format: match planned.attr("format").as_str() {
                Some("raw") => Some(ImageFormat::Raw),
                Some("qcow2") => Some(ImageFormat::Qcow2),
                _ => None,
            },
        };
        Ok(Declaration { spec, labels: Default::default() })
    }

    fn observe(state: &mut Value, image: &Image) {
        let status = &image.status;
        let known = status.phase == ImagePhase::Ready;
        state.set("phase", phase(status.phase));
        state.set("digest", status.digest.clone());
        state.set("size_bytes", known.then_some(status.size_bytes));
        state.set("stored_bytes", known.then_some(status.stored_bytes));
        state.set("last_error", status.failure.as_ref().map(ToString::to_string));
    }

    fn recall(state: &mut Value, image: &Image) {
        let ImageSpec { source, checksum, format } = &image.spec;
        refresh(state, "source", source.clone(), equal);
        refresh(state, "checksum", checksum.clone(), equal);
        let format = format.map(|format| match format {
            ImageFormat::Raw => "raw",
            ImageFormat::Qcow2 => "qcow2",
        });
        refresh(state, "format", format, equal);
    }

    fn judge(image: &Image, wait_for: &str) -> Verdict {
        let status = &image.status;
        let current = status.observed_generation >= image.metadata.generation;
        match (status.phase, &status.failure) {
            _ if wait_for == "none" => Verdict::Done,
            (ImagePhase::Ready, _) if current => Verdict::Done,
            (ImagePhase::Failed, Some(failure)) if current => Verdict::Stuck(failure.clone()),
            _ => Verdict::Going(Self::doing(image)),
        }
    }

    fn doing(image: &Image) -> String {
        phase(image.status.phase).to_owned()
    }

    fn failure(image: &Image) -> Option<&Failure> {
        image.status.failure.as_ref()
    }

    fn whereabouts(image: &Image) -> Vec<String> {
        vec![format!("Source: {}", image.spec.source)]
    }
}
