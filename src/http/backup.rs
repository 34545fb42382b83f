//! `/v1/backup`: a copy of the database, made beside the mail.
//!
//! A copy may take longer than a request: the answer of one that goes on is 202, and who asks again with the same file
//! waits on. What came of it is told once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use utoipa::ToSchema;

use super::App;
use super::body::{object, octets};
use super::error::{FieldProblem, Problem};
use crate::store::{BackedUp, BackupError, Progress};

/// How long one request waits for the end.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// `POST /v1/backup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackUp {
    /// A file on the relay's machine that is not there yet, with its whole path.
    pub file: String,
}

/// How it stands with a copy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Backup {
    /// The file.
    pub file: String,
    /// It is whole, synced, and has its name. `false`: it goes on; ask again with the same file.
    pub done: bool,
    /// How much is copied.
    pub percent: u64,
    /// Its length, when it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub octets: Option<u64>,
    /// How long it took, when it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_seconds: Option<f64>,
}

impl Backup {
    /// One that is done.
    pub fn done(file: String, made: BackedUp) -> Self {
        Backup {
            file,
            done: true,
            percent: 100,
            octets: Some(made.octets),
            took_seconds: Some((made.took.as_secs_f64() * 1000.0).round() / 1000.0),
        }
    }
}

/// The copy that is being made, or whose end nobody has asked for.
#[derive(Default)]
pub(super) struct Backups(Mutex<Option<Making>>);

struct Making {
    file: String,
    progress: Arc<Progress>,
    task: JoinHandle<Result<BackedUp, BackupError>>,
}

/// a consistent copy of the database, mail goes on: {"file":"/var/backups/postroad.db"}
#[utoipa::path(
    post,
    path = "/v1/backup",
    security(("bearer" = ["admin"])),
    request_body = BackUp,
    responses(
        (status = 200, description = "It is made", body = Backup),
        (status = 202, description = "It goes on: ask again with the same file", body = Backup),
        (status = 409, description = "The file is there already, or another copy is being made", body = super::ErrorBody),
        (status = 507, description = "The disk that it is to lie on has no room", body = super::ErrorBody),
    )
)]
pub(super) async fn back_up(
    State(app): State<Arc<App>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Backup>), Problem> {
    let file = read_file(&octets(body)?)?;
    let mut slot = app.backups.0.lock().await;
    match &*slot {
        Some(making) if making.file == file => {}
        Some(making) if !making.task.is_finished() => return Err(BackupError::Running.into()),
        Some(_) | None => *slot = Some(start(&app, file)),
    }
    let Some(making) = slot.as_mut() else { return Err(BackupError::Running.into()) };
    let ended = tokio::time::timeout(WAIT_MAX, &mut making.task).await;
    let (file, percent) = (making.file.clone(), making.progress.percent());
    let Ok(ended) = ended else {
        let goes_on = Backup { file, done: false, percent, octets: None, took_seconds: None };
        return Ok((StatusCode::ACCEPTED, Json(goes_on)));
    };
    *slot = None;
    let fault = |error| {
        let message = format!("the backup ended early: {error}");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "fault", message)
    };
    Ok((StatusCode::OK, Json(Backup::done(file, ended.map_err(fault)??))))
}

/// On a task of its own: a client that hangs up does not end it.
fn start(app: &Arc<App>, file: String) -> Making {
    let (queue, progress) = (Arc::clone(&app.relay.queue), Arc::new(Progress::default()));
    let (to, noted) = (PathBuf::from(&file), Arc::clone(&progress));
    let task = tokio::spawn(async move { queue.back_up(&to, &noted).await });
    Making { file, progress, task }
}

fn read_file(body: &[u8]) -> Result<String, Problem> {
    let members = object(body, "{\"file\":\"/var/backups/postroad.db\"}")?;
    let (mut file, mut wrong) = (None, Vec::new());
    for (key, value) in &members {
        match (key.as_str(), value) {
            ("file", Value::String(text)) if Path::new(text).is_absolute() && !text.contains('\0') => {
                file = Some(text.clone());
            }
            ("file", Value::String(_)) => {
                wrong.push(FieldProblem::new("file", "is no whole path, from / on, on the relay's machine"));
            }
            ("file", _) => wrong.push(FieldProblem::new("file", "not a text")),
            (_, _) => wrong.push(FieldProblem::new(key.as_str(), "no such field; there is file")),
        }
    }
    if !members.contains_key("file") {
        wrong.push(FieldProblem::new("file", "is missing: name the file to be made"));
    }
    match file {
        Some(file) if wrong.is_empty() => Ok(file),
        Some(_) | None => Err(Problem::fields(wrong)),
    }
}

impl From<BackupError> for Problem {
    fn from(error: BackupError) -> Self {
        let message = error.to_string();
        match error {
            BackupError::Exists(_) => Problem::new(StatusCode::CONFLICT, "exists", message),
            BackupError::Running => Problem::new(StatusCode::CONFLICT, "running", message),
            BackupError::NoRoom { .. } => Problem::new(StatusCode::INSUFFICIENT_STORAGE, "no_room", message),
            BackupError::File { .. } => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "file", message),
            BackupError::Open(_) | BackupError::NoDatabase(_) => {
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "fault", message)
            }
            BackupError::Store(error) => error.into(),
        }
    }
}
