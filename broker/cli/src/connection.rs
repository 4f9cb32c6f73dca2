//! Which broker a client command talks to: `--url`, else `MILLPOND_URL`, else the one that runs here on the usual port.
//!
//! A broker leaves its URL, with the fingerprint of its certificate, in the state folder of the user who runs it, and takes it
//! away when it stops. So a local broker needs no URL at all, and is trusted by its certificate all the same.

use crate::{
    failure::{Failure, Outcome},
    folders,
};
use clap::Args;
use millpond::{Client, DEFAULT_PORT, Error};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Flags of every command that talks to a broker.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ClientArgs {
    /// The broker, as `serve` printed it: millpond://HOST:PORT?fp=sha256:…; without it, the one that runs here
    #[arg(long, value_name = "URL", env = "MILLPOND_URL", hide_env_values = true)]
    url: Option<String>,

    /// PEM file of the certificate authority to trust, where the URL has no fingerprint
    #[arg(long, value_name = "PATH", env = "MILLPOND_CA_FILE", hide_env_values = true)]
    ca_file: Option<PathBuf>,
}

/// Where a URL was taken from; it decides what to say when nothing answers there.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Given(String),
    /// A broker on this machine left it in this file.
    Left {
        url: String,
        file: PathBuf,
    },
    /// Nothing is known of any broker.
    Default {
        others: Vec<PathBuf>,
    },
}

impl ClientArgs {
    /// Connects, does the work, and takes leave whatever came of it: a broker that is told nothing keeps the connection until it
    /// has been silent for long.
    pub(crate) async fn with<T>(&self, work: impl AsyncFnOnce(&Client) -> Outcome<T>) -> Outcome<T> {
        let client = self.connect().await?;
        let watch = tokio::spawn(tell_when_lost(client.clone()));
        let outcome = work(&client).await;
        watch.abort();
        client.close().await;
        outcome
    }

    /// What fails says which broker was meant and what to do.
    async fn connect(&self) -> Outcome<Client> {
        let given = self.url.clone().filter(|url| !url.is_empty());
        let choice = choose(given, folders::state().as_deref());
        let mut builder = Client::builder().url(choice.url()).connect_timeout(CONNECT_TIMEOUT);
        if let Some(path) = self.ca_file.as_ref().filter(|path| !path.as_os_str().is_empty()) {
            builder = builder.ca_file(path);
        }
        builder.connect().await.map_err(|error| choice.explain(error))
    }
}

impl Choice {
    fn url(&self) -> &str {
        match self {
            Choice::Given(url) | Choice::Left { url, .. } => url,
            Choice::Default { .. } => DEFAULT_URL,
        }
    }

    /// The SDK has a hint for every error; where the broker was not named, only we know how it was chosen.
    fn explain(&self, error: Error) -> Failure {
        let unreachable = matches!(error, Error::Connect { .. });
        let untrusted = matches!(error, Error::Certificate { .. } | Error::NoSystemRoots { .. });
        let unusable_file = matches!(error, Error::CaFile { .. });
        let failure = Failure::from(error);
        match self {
            _ if untrusted => failure.hint(UNTRUSTED),
            _ if unusable_file => {
                failure.hint("--ca-file, MILLPOND_CA_FILE or the URL's ca= names it: it is DATA_DIR/tls/ca.pem of the broker")
            }
            Choice::Left { file, .. } if unreachable => failure.hint(format!(
                "the broker that left its URL in {} may be gone: start it again with `millpond serve`, or name another with --url",
                file.display()
            )),
            Choice::Default { others } if unreachable => failure.hint(match others.first() {
                Some(other) => format!(
                    "no broker of yours runs here on port {DEFAULT_PORT}, but one on another port left its URL: try --url \"$(cat '{}')\"",
                    other.display()
                ),
                None => format!(
                    "no broker of yours runs here on port {DEFAULT_PORT}: start one with `millpond serve`, or name one with --url or \
                     MILLPOND_URL (the URL is what `serve` prints, and is in the file DATA_DIR/url)"
                ),
            }),
            _ => failure,
        }
    }
}

/// The SDK connects again by itself, and until then nothing seems to happen: whoever is watching should know why.
async fn tell_when_lost(client: Client) {
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    let (mut down, mut told) = (0, false);
    loop {
        ticks.tick().await;
        if client.is_connected() {
            if std::mem::take(&mut told) {
                tracing::warn!("the connection to {} is back", client.url().address());
            }
            down = 0;
        } else {
            down += 1;
            if down >= LOOKS_UNTIL_TOLD && !std::mem::replace(&mut told, true) {
                tracing::warn!("the connection to {} is lost; trying again", client.url().address());
            }
        }
    }
}

fn choose(given: Option<String>, state: Option<&Path>) -> Choice {
    if let Some(url) = given {
        return Choice::Given(url);
    }
    let Some(state) = state else { return Choice::Default { others: Vec::new() } };
    let file = folders::url_file(state, DEFAULT_PORT);
    match read_url(&file) {
        Some(url) => Choice::Left { url, file },
        None => Choice::Default { others: others(state) },
    }
}

/// URLs of brokers on other ports, in the order of their names.
fn others(state: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(state).into_iter().flatten().flatten().take(STATE_FILES_MAX);
    let mut files: Vec<_> = entries.map(|entry| entry.path()).filter(|path| read_url(path).is_some()).collect();
    files.sort();
    files
}

/// A file that can't be read, or holds something else, is as good as none.
fn read_url(file: &Path) -> Option<String> {
    file.extension().filter(|extension| *extension == "url")?;
    let text = fs::read_to_string(file).ok()?;
    let url = text.lines().next()?.trim();
    url.starts_with("millpond://").then(|| url.to_owned())
}

/// What to do about a broker whose certificate nobody here vouches for.
const UNTRUSTED: &str = "a broker makes its own certificate when it starts for the first time: use the URL that it printed, with ?fp=sha256:…, \
                         or name its authority with --ca-file FILE (a copy of DATA_DIR/tls/ca.pem from the broker's machine)";

/// How often to look whether the connection is up.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// A connection that comes back sooner is not worth a word.
const LOOKS_UNTIL_TOLD: u32 = 2;

/// Tried when nothing else is known.
const DEFAULT_URL: &str = "millpond://127.0.0.1:9440";

/// Long enough for a handshake over a bad mobile link, short enough for a person who mistyped an address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Files of the state folder that are looked at for a hint.
const STATE_FILES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_url_wins_over_the_one_that_a_broker_left() {
        let state = tempfile::tempdir().expect("a folder");
        fs::write(folders::url_file(state.path(), DEFAULT_PORT), "millpond://127.0.0.1:9440?fp=sha256:aa\n").expect("written");
        let given = choose(Some("millpond://there:1".to_owned()), Some(state.path()));
        assert_eq!(given.url(), "millpond://there:1");
        assert_eq!(choose(None, Some(state.path())).url(), "millpond://127.0.0.1:9440?fp=sha256:aa");
    }

    #[test]
    fn without_a_broker_on_the_usual_port_the_others_are_named() {
        let state = tempfile::tempdir().expect("a folder");
        assert_eq!(choose(None, Some(state.path())), Choice::Default { others: Vec::new() });
        let other = folders::url_file(state.path(), 1234);
        fs::write(&other, "millpond://127.0.0.1:1234").expect("written");
        fs::write(state.path().join("notes.txt"), "millpond://x").expect("written");
        let choice = choose(None, Some(state.path()));
        assert_eq!(choice, Choice::Default { others: vec![other] });
        assert_eq!(choice.url(), DEFAULT_URL);
    }

    #[test]
    fn a_certificate_that_is_not_trusted_is_told_with_the_flag_that_helps() {
        let untrusted = || Error::Certificate { address: "there:1".to_owned(), reason: "UnknownIssuer".to_owned() };
        for choice in [Choice::Given("millpond://there:1".to_owned()), Choice::Default { others: Vec::new() }] {
            let words = format!("{:?}", choice.explain(untrusted()));
            assert!(words.contains("--ca-file FILE") && !words.contains("no broker of yours"), "{words}");
        }
    }

    #[test]
    fn a_file_with_something_else_is_as_good_as_none() {
        let state = tempfile::tempdir().expect("a folder");
        fs::write(folders::url_file(state.path(), DEFAULT_PORT), "").expect("written");
        assert_eq!(choose(None, Some(state.path())), Choice::Default { others: Vec::new() });
        assert_eq!(choose(None, None), Choice::Default { others: Vec::new() });
    }
}
