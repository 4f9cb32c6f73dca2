//! What the commands about topics and those about modules have in common: listing, and the result of a deletion.

use crate::{
    connection::ClientArgs,
    failure::Outcome,
    output::{self, OutputArgs, Row},
};
use clap::Args;
use millpond::Client;
use serde::Serialize;
use std::io::{self, IsTerminal};

/// Arguments of a command that lists.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// Something that is gone.
#[derive(Debug, Serialize)]
pub(super) struct Deleted {
    name: String,
    deleted: bool,
}

/// Asks the broker and prints what it has. `none_yet` is for a person who sees headings and nothing below them.
pub(super) async fn list<R: Row>(arguments: &ListArgs, fetch: impl AsyncFnOnce(&Client) -> Outcome<Vec<R>>, none_yet: &str) -> Outcome {
    let rows = arguments.client.with(fetch).await?;
    arguments.output.list(&rows)?;
    if rows.is_empty() && io::stdout().is_terminal() {
        output::note(none_yet);
    }
    Ok(())
}

/// Says that something is gone.
pub(super) fn print_deleted(output: OutputArgs, name: String) -> Outcome {
    output.one(&Deleted { name, deleted: true }, |gone| format!("deleted {}\n", gone.name))
}
