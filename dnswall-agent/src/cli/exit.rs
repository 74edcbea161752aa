//! How a command ends.

use std::process::ExitCode;

use crate::control::api::ErrorBody;
use crate::control::client::ClientError;
use crate::policy::Problems;

/// What the exit code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, or yes.
    Done = 0,
    /// No, refused, or different.
    No = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The policy or the configuration is invalid.
    Invalid = 3,
    /// This host cannot.
    HostCannot = 4,
    /// The agent cannot be reached.
    Unreachable = 5,
}

/// The same for the end of a help text.
pub const EXIT_CODES: &str = "\
Exit codes: 0 done or yes; 1 no, refused or different; 2 usage; 3 the policy or configuration is invalid; \
4 this host cannot; 5 the agent cannot be reached";

/// A command that did not do what it was asked.
#[derive(Debug)]
pub struct Failure {
    /// How it ends.
    pub exit: Exit,
    /// What happened and why.
    pub error: String,
    /// What to do.
    pub hint: Option<String>,
    /// The mistakes in a policy.
    pub problems: Option<Box<Problems>>,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(exit: Exit, error: impl Into<String>) -> Self {
        Self { exit, error: error.into(), hint: None, problems: None }
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Shows the mistakes in the text they are in.
    #[must_use]
    pub fn in_text(self, text: &str) -> Self {
        Self { problems: self.problems.map(|problems| Box::new(problems.with_text(text))), ..self }
    }

    /// What a program reads instead of the text.
    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            error: self.error.clone(),
            hint: self.hint.clone(),
            origin: self.problems.as_ref().map(|problems| problems.origin().to_owned()),
            problems: self.problems.as_ref().map(|problems| problems.list().to_vec()).unwrap_or_default(),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        let error = format!("{} is not a valid policy", problems.origin());
        Self { exit: Exit::Invalid, error, hint: None, problems: Some(Box::new(problems)) }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let shown = error.to_string();
        match error {
            ClientError::Unreachable { .. } => Self::new(Exit::Unreachable, shown),
            ClientError::Refused { status, body } => {
                let ErrorBody { error, hint, origin, problems } = *body;
                // Through JSON, so that places stay as the agent found them until the text is known again.
                let problems = origin.filter(|_| !problems.is_empty()).and_then(|origin| {
                    serde_json::from_value(serde_json::json!({ "origin": origin, "problems": problems })).ok()
                });
                let exit =
                    if status == hyper::StatusCode::UNPROCESSABLE_ENTITY { Exit::Invalid } else { Exit::No };
                Self { exit, error, hint, problems }
            }
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::No, format!("{error:#}"))
    }
}
