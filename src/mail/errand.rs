//! What is asked of an ESP's API beside mail: how something stands there, or to change it.

use bytes::Bytes;

/// One question or change. The base of its URL and the key belong to the wire.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Errand {
    /// JSON by HTTP.
    Http(HttpErrand),
    /// About where Amazon SES publishes the events of a configuration set.
    Ses(SesErrand),
}

/// One request to an API.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpErrand {
    /// What is done.
    pub verb: Verb,
    /// After the base, from its `/` on, with its query.
    pub path: String,
    /// The JSON. It may hold a secret, and is not printed.
    pub body: Option<Bytes>,
}

/// The methods that there is a use for. None deletes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    /// Looks.
    Get,
    /// Makes.
    Post,
    /// Replaces.
    Put,
    /// Changes.
    Patch,
}

/// One call of the SES API v2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SesErrand {
    /// `GetConfigurationSetEventDestinations`.
    Destinations {
        /// `ConfigurationSetName`.
        set: String,
    },
    /// `CreateConfigurationSetEventDestination`, or `Update…` of one that is there.
    Publish {
        /// `ConfigurationSetName`.
        set: String,
        /// It.
        destination: SesDestination,
        /// It is not there yet.
        new: bool,
    },
}

/// Where events of a configuration set go: enabled, to a topic of Amazon SNS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SesDestination {
    /// `EventDestinationName`.
    pub name: String,
    /// The topic's ARN.
    pub topic: String,
    /// `MatchingEventTypes`.
    pub kinds: Vec<String>,
}

impl HttpErrand {
    /// A look at what is there.
    pub fn get(path: impl Into<String>) -> Errand {
        Errand::Http(HttpErrand { verb: Verb::Get, path: path.into(), body: None })
    }

    /// A change, in JSON.
    pub fn with(verb: Verb, path: impl Into<String>, body: impl Into<Bytes>) -> Errand {
        Errand::Http(HttpErrand { verb, path: path.into(), body: Some(body.into()) })
    }
}

impl std::fmt::Debug for HttpErrand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpErrand")
            .field("verb", &self.verb)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
